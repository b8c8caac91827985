"""Reading facts: everything one decision needs, in few statements."""

from collections.abc import Sequence
from datetime import datetime

from opscore.models import (
    AgentFacts,
    Candidate,
    LaneFacts,
    RegistrationFacts,
    SessionFacts,
    Task,
    TaskFacts,
    TaskStatus,
    WorkflowSession,
)
from opscore.storage.interface import DueItems
from opscore.storage.sql.codec import (
    load_agent,
    load_report,
    load_session,
    load_task,
    micros,
    moment,
)
from opscore.storage.sql.program import Fetch, Program, Row

IN_FLIGHT = "(tasks.status = 'dispatched' OR tasks.status = 'running')"
WAITING = "(tasks.status = 'queued' OR tasks.status = 'delayed')"

_FACTS = """
SELECT tasks.doc, sessions.doc, definitions.doc, agents.doc
FROM tasks JOIN sessions ON sessions.id = tasks.session_id
JOIN definitions ON definitions.hash = sessions.definition
LEFT JOIN agents ON agents.id = tasks.agent_id
"""
_IN_FLIGHT = f"{_FACTS} WHERE tasks.agent_id = ? AND {IN_FLIGHT} ORDER BY dispatched_at, tasks.id"

_SESSION = """
SELECT sessions.doc, definitions.doc
FROM sessions JOIN definitions ON definitions.hash = sessions.definition
WHERE sessions.id = ?
"""

_DUE = """
SELECT kind, id FROM (
    SELECT * FROM (SELECT 'task' AS kind, id, due_at FROM tasks
        WHERE due_at <= ? ORDER BY due_at LIMIT ?) AS t
    UNION ALL
    SELECT * FROM (SELECT 'session' AS kind, id, due_at FROM sessions
        WHERE due_at <= ? ORDER BY due_at LIMIT ?) AS s
    UNION ALL
    SELECT * FROM (SELECT 'agent' AS kind, id, due_at FROM agents
        WHERE due_at <= ? ORDER BY due_at LIMIT ?) AS a
) AS due ORDER BY due_at, kind, id LIMIT ?
"""

_NEXT_DUE = """
SELECT (SELECT min(due_at) FROM tasks WHERE due_at IS NOT NULL),
       (SELECT min(due_at) FROM sessions WHERE due_at IS NOT NULL),
       (SELECT min(due_at) FROM agents WHERE due_at IS NOT NULL)
"""

_STRANDED = f"""
SELECT tasks.id FROM agents JOIN tasks ON tasks.lane = 'agent:' || agents.id
WHERE agents.gone_at IS NOT NULL AND {WAITING} ORDER BY tasks.id LIMIT ?
"""


def _task_facts(row: Row) -> TaskFacts:
    task, session, definition, agent = row
    return TaskFacts(
        load_task(task), load_session(session, definition), load_agent(agent) if agent else None
    )


def agent_facts(agent_id: str, task_id: str | None) -> Program[AgentFacts | None]:
    rows = yield Fetch("SELECT doc FROM agents WHERE id = ?", (agent_id,))
    if not rows:
        return None
    in_flight = yield Fetch(_IN_FLIGHT, (agent_id,))
    named = yield from task_facts(task_id) if task_id else _nothing()
    return AgentFacts(load_agent(rows[0][0]), tuple(map(_task_facts, in_flight)), named)


def _nothing() -> Program[None]:
    yield from ()


def registration_facts(agent_id: str, since: datetime) -> Program[RegistrationFacts]:
    agents = yield Fetch("SELECT doc FROM agents WHERE id = ?", (agent_id,))
    early = yield Fetch(
        "SELECT doc FROM early_reports WHERE agent_id = ? AND received_at >= ?",
        (agent_id, micros(since)),
    )
    return RegistrationFacts(
        load_agent(agents[0][0]) if agents else None,
        load_report(early[0][0]) if early else None,
    )


def task_facts(task_id: str) -> Program[TaskFacts | None]:
    rows = yield Fetch(f"{_FACTS} WHERE tasks.id = ?", (task_id,))
    return _task_facts(rows[0]) if rows else None


def session(session_id: str) -> Program[WorkflowSession | None]:
    rows = yield Fetch(_SESSION, (session_id,))
    return load_session(*rows[0]) if rows else None


def session_facts(session_id: str) -> Program[SessionFacts | None]:
    found = yield from session(session_id)
    if found is None:
        return None
    rows = yield Fetch(
        "SELECT doc FROM tasks WHERE session_id = ? ORDER BY created_at, arrival, id",
        (session_id,),
    )
    return SessionFacts(found, tuple(load_task(row[0]) for row in rows))


def due(now: datetime, limit: int) -> Program[DueItems]:
    until = micros(now)
    rows = yield Fetch(_DUE, (until, limit, until, limit, until, limit, limit))
    return DueItems(*(tuple(row[1] for row in rows if row[0] == kind) for kind in _KINDS))


_KINDS = ("task", "session", "agent")


def next_due() -> Program[datetime | None]:
    rows = yield Fetch(_NEXT_DUE)
    moments = [value for value in rows[0] if value is not None]
    return moment(min(moments)) if moments else None


def stranded(limit: int) -> Program[Sequence[str]]:
    rows = yield Fetch(_STRANDED, (limit,))
    return [row[0] for row in rows]


def candidate(agent_id: str) -> Program[Candidate | None]:
    rows = yield Fetch("SELECT doc, in_flight FROM agents WHERE id = ?", (agent_id,))
    return Candidate(load_agent(rows[0][0]), rows[0][1]) if rows else None


def agent_tasks(agent_id: str) -> Program[Sequence[Task]]:
    rows = yield Fetch(
        f"SELECT doc FROM tasks WHERE agent_id = ? AND {IN_FLIGHT} ORDER BY dispatched_at, id",
        (agent_id,),
    )
    return [load_task(row[0]) for row in rows]


def lane(task: Task, limit: int) -> Program[LaneFacts]:
    serving = (
        "FROM agent_lanes JOIN agents ON agents.id = agent_lanes.agent_id "
        "WHERE lane = ? AND standing <> 'deregistered'"
    )
    agents = yield Fetch(
        f"SELECT doc, in_flight {serving} ORDER BY agents.id LIMIT ?", (task.lane, limit)
    )
    counted = yield Fetch(f"SELECT count(*) {serving}", (task.lane,))
    places = yield Fetch(
        "SELECT count(*), coalesce(sum(CASE WHEN priority > ? THEN 1 WHEN priority < ? THEN 0 "
        "WHEN turn < own.own_turn THEN 1 WHEN turn = own.own_turn AND arrival < own.own_arrival "
        "THEN 1 ELSE 0 END), 0), max(own.own_turn) "
        "FROM tasks LEFT JOIN (SELECT turn AS own_turn, arrival AS own_arrival FROM tasks "
        "WHERE id = ? AND status = 'queued') AS own ON 1 = 1 "
        "WHERE lane = ? AND status = 'queued'",
        (task.priority, task.priority, task.id, task.lane),
    )
    waiting, ahead, is_queued = places[0]
    return LaneFacts(
        tuple(Candidate(load_agent(row[0]), row[1]) for row in agents),
        counted[0][0],
        int(ahead) if task.status is TaskStatus.QUEUED and is_queued is not None else None,
        waiting,
    )
