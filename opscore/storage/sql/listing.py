"""Lists: filters as conditions, cursors as places in an order that writes do not disturb."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from opscore.models import (
    Agent,
    AgentFilter,
    Candidate,
    Event,
    EventFilter,
    EventType,
    Page,
    RevisionInfo,
    SessionFilter,
    Task,
    TaskFilter,
    WorkflowRevision,
    WorkflowSession,
)
from opscore.storage.cursors import decode, encode, page, sequence, time_cursor, time_place
from opscore.storage.damage import readable
from opscore.storage.matching import agent_matches
from opscore.storage.sql.codec import (
    load_agent,
    load_definition,
    load_event,
    load_session,
    load_task,
    micros,
    moment,
)
from opscore.storage.sql.program import Fetch, Program

_AGENTS_AT_ONCE = 200
_SESSION_EVENTS = 2000
_NEWEST_OF_SESSION = (
    "seq >= coalesce((SELECT seq FROM events WHERE session_id = ? "
    "ORDER BY seq DESC LIMIT 1 OFFSET ?), 0)"
)


@dataclass
class Conditions:
    """Conditions that all must hold, with their arguments."""

    texts: list[str] = field(default_factory=list)
    args: list[Any] = field(default_factory=list)

    def add(self, text: str, *args: Any) -> None:
        if all(arg is not None for arg in args):
            self.texts.append(text)
            self.args.extend(args)

    @property
    def where(self) -> str:
        return f" WHERE {' AND '.join(self.texts)}" if self.texts else ""

    def before(self, cursor: str | None) -> None:
        if cursor is not None:
            created_at, record_id = time_place(cursor)
            self.add("(created_at, id) < (?, ?)", micros(created_at), record_id)


def _like(text: str | None) -> str | None:
    if text is None:
        return None
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return f"%{text.lower()}%"


def _newest(
    table: str, conditions: Conditions, statuses: Collection[str], limit: int
) -> tuple[str, tuple[Any, ...]]:
    """Select the newest records that match, each status on its own.

    So the index of statuses gives each part in order; of one condition with several statuses
    it could not, and all their records would be sorted.
    """
    order = "ORDER BY created_at DESC, id DESC LIMIT ?"
    if not statuses:
        return f"SELECT * FROM {table}{conditions.where} {order}", (*conditions.args, limit)
    parts, args = [], []
    for number, status in enumerate(sorted(statuses)):
        own = Conditions(["status = ?", *conditions.texts], [status, *conditions.args])
        part = f"SELECT * FROM {table}{own.where} {order}"
        parts.append(f"SELECT * FROM ({part}) AS part{number}")
        args += [*own.args, limit]
    return " UNION ALL ".join(parts), tuple(args)


def sessions(
    where: SessionFilter, cursor: str | None, limit: int
) -> Program[Page[WorkflowSession]]:
    conditions = Conditions()
    conditions.add("workflow_id = ?", where.workflow_id)
    conditions.add("agent_id = ?", where.agent_id)
    conditions.add("search LIKE ? ESCAPE '\\'", _like(where.search))
    conditions.before(cursor)
    newest, args = _newest("sessions", conditions, where.statuses, limit + 1)
    rows = yield Fetch(
        f"SELECT sessions.doc, definitions.doc FROM ({newest}) AS sessions "
        "JOIN definitions ON definitions.hash = sessions.definition "
        "ORDER BY sessions.created_at DESC, sessions.id DESC LIMIT ?",
        (*args, limit + 1),
    )
    found = (load_session(*row) for row in rows)
    return page(found, limit, lambda one: time_cursor(one.created_at, one.id))


def tasks(where: TaskFilter, cursor: str | None, limit: int) -> Program[Page[Task]]:
    conditions = Conditions()
    conditions.add("session_id = ?", where.session_id)
    conditions.add("agent_id = ?", where.agent_id)
    conditions.add("workflow_id = ?", where.workflow_id)
    conditions.before(cursor)
    newest, args = _newest("tasks", conditions, where.statuses, limit + 1)
    rows = yield Fetch(
        f"SELECT doc FROM ({newest}) AS tasks ORDER BY created_at DESC, id DESC LIMIT ?",
        (*args, limit + 1),
    )
    found = (load_task(row[0]) for row in rows)
    return page(found, limit, lambda one: time_cursor(one.created_at, one.id))


def agents(where: AgentFilter, cursor: str | None, limit: int) -> Program[Page[Candidate]]:
    """Availability is derived, so agents are read in portions and looked through."""
    after = decode(cursor) if cursor else ""
    found: list[Candidate] = []
    while len(found) <= limit:
        rows = yield Fetch(
            "SELECT doc, in_flight FROM agents WHERE id > ? ORDER BY id LIMIT ?",
            (after, _AGENTS_AT_ONCE),
        )
        candidates = [Candidate(load_agent(row[0]), row[1]) for row in rows]
        found += [one for one in candidates if agent_matches(where, one)]
        if len(rows) < _AGENTS_AT_ONCE:
            break
        after = candidates[-1].agent.id
    return page(found, limit, lambda one: encode(one.agent.id))


def agent_history(
    agent_id: str, cursor: str | None, limit: int, bound: int
) -> Program[Page[Event]]:
    """At most the newest `bound` reports are shown."""
    before = sequence(cursor)
    conditions = Conditions()
    conditions.add("seq < ?", before)
    rows = yield Fetch(
        f"SELECT {_EVENT} FROM ("
        f"SELECT {_EVENT} FROM events WHERE agent_id = ? AND type = '{EventType.AGENT_STATE}' "
        f"ORDER BY seq DESC LIMIT ?) AS newest{conditions.where} ORDER BY seq DESC LIMIT ?",
        (agent_id, bound, *conditions.args, limit + 1),
    )
    return page(map(load_event, rows), limit, lambda event: encode(str(event.seq)))


_EVENT = "seq, at, type, agent_id, session_id, task_id, data"


def events(where: EventFilter, after: int, limit: int) -> Program[Page[Event]]:
    conditions = Conditions()
    conditions.add("seq > ?", after)
    conditions.add("agent_id = ?", where.agent_id)
    conditions.add("session_id = ?", where.session_id)
    if where.session_id is not None:
        # A session that never ends must not grow its answer without end.
        conditions.add(_NEWEST_OF_SESSION, where.session_id, _SESSION_EVENTS - 1)
    conditions.add("task_id = ?", where.task_id)
    conditions.add("at >= ?", micros(where.since) if where.since else None)
    if where.types:
        places = ", ".join("?" for _ in where.types)
        conditions.add(f"type IN ({places})", *sorted(where.types))
    rows = yield Fetch(
        f"SELECT {_EVENT} FROM events{conditions.where} ORDER BY seq LIMIT ?",
        (*conditions.args, limit),
    )
    found = tuple(map(load_event, rows))
    if len(found) == limit:
        return Page(found, str(found[-1].seq))
    newest = yield Fetch("SELECT max(seq) FROM events")
    return Page(found, str(max(after, newest[0][0] or 0)))


def silent_agents(before: datetime, limit: int) -> Program[Sequence[Agent]]:
    rows = yield Fetch(
        "SELECT id, doc FROM agents WHERE standing = 'registered' AND seen_at < ? "
        "ORDER BY seen_at, id LIMIT ?",
        (micros(before), limit),
    )
    return [agent for _, agent in readable("agents", rows, lambda row: load_agent(row[1]))]


# --- workflows ----------------------------------------------------------------------------------

_REVISION = """
SELECT workflows.revision, workflows.saved_at, definitions.doc
FROM workflows JOIN definitions ON definitions.hash = workflows.definition
"""


def _revision(row: Sequence[Any]) -> WorkflowRevision:
    return WorkflowRevision(load_definition(row[2]), row[0], moment(row[1]))


def workflow(workflow_id: str, revision: int | None) -> Program[WorkflowRevision | None]:
    conditions = Conditions()
    conditions.add("workflows.id = ?", workflow_id)
    conditions.add("workflows.revision = ?", revision)
    rows = yield Fetch(
        f"{_REVISION}{conditions.where} ORDER BY workflows.revision DESC LIMIT 1",
        tuple(conditions.args),
    )
    return _revision(rows[0]) if rows else None


def workflows(cursor: str | None, limit: int) -> Program[Page[WorkflowRevision]]:
    rows = yield Fetch(
        f"{_REVISION} JOIN (SELECT id, max(revision) AS revision FROM workflows WHERE id > ? "
        "GROUP BY id ORDER BY id LIMIT ?) AS newest "
        "ON newest.id = workflows.id AND newest.revision = workflows.revision "
        "ORDER BY workflows.id",
        (decode(cursor) if cursor else "", limit + 1),
    )
    return page(map(_revision, rows), limit, lambda saved: encode(saved.id))


def workflow_revisions(
    workflow_id: str, cursor: str | None, limit: int
) -> Program[Page[RevisionInfo]]:
    conditions = Conditions()
    conditions.add("id = ?", workflow_id)
    conditions.add("revision < ?", sequence(cursor))
    rows = yield Fetch(
        f"SELECT revision, saved_at FROM workflows{conditions.where} "
        "ORDER BY revision DESC LIMIT ?",
        (*conditions.args, limit + 1),
    )
    found = (RevisionInfo(workflow_id, row[0], moment(row[1])) for row in rows)
    return page(found, limit, lambda one: encode(str(one.revision)))
