"""Writing changes: many at once, each as a whole or not at all."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from opscore.crash_points import crash_point
from opscore.models import Agent, Change, Event, Task, TaskStatus
from opscore.storage.interface import REVISIONS_KEPT
from opscore.storage.ordering import lanes_of
from opscore.storage.sql.arrivals import Arrivals
from opscore.storage.sql.batch import Batch, Verdicts, read_batch
from opscore.storage.sql.codec import DefinitionTexts, dump, load_agent, micros
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.rows import (
    AGENT_COLUMNS,
    EVENT_COLUMNS,
    KNOWLEDGE_COLUMNS,
    SESSION_COLUMNS,
    TASK_COLUMNS,
    agent_row,
    agentkit_row,
    event_row,
    flow_of,
    insert,
    level_of,
    put,
    session_row,
    task_row,
    upsert,
)
from opscore.storage.sql.tallies import Tally, keep


@dataclass(frozen=True, slots=True)
class Mark:
    """Stands in the database once a batch is committed: the writer's id and the batch's number."""

    writer: str
    number: int
    at: datetime


def is_committed(mark: Mark) -> Program[bool]:
    rows = yield Fetch("SELECT number FROM commits WHERE writer = ?", (mark.writer,))
    return bool(rows) and rows[0][0] == mark.number


def apply_changes(
    dialect: Dialect,
    texts: DefinitionTexts,
    arrivals: Arrivals,
    changes: Sequence[Change],
    mark: Mark | None = None,
) -> Program[Verdicts]:
    """Apply each change that fits; the others are answered with what was in their way."""
    batch = yield from read_batch(dialect, texts, changes)
    verdicts: Verdicts = [batch.judge(change) for change in changes]
    if not batch.accepted:
        return verdicts
    crash_point("write.judged")
    yield from _write_definitions(dialect, texts, batch)
    yield from _write_sessions(texts, batch)
    crash_point("write.sessions-written")
    if batch.tasks:
        yield from _write_tasks(arrivals, batch)
        crash_point("write.tasks-written")
    yield from _write_agents(batch)
    crash_point("write.agents-written")
    yield from _write_workflows(texts, batch)
    yield from _write_agentkits(batch)
    yield from _write_keys(batch)
    crash_point("write.keys-written")
    events = [event for change in batch.accepted for event in change.events]
    if mark is not None:
        row = (mark.writer, mark.number, micros(mark.at))
        yield Execute(upsert("commits", ("writer", "number", "at")), [row])
    yield from write_events(events, batch.tally())
    crash_point("write.events-written")
    return verdicts


# The events of a transaction are numbered back from the counter, which stands at the last one.
_INSERT_EVENTS = insert("events", EVENT_COLUMNS).replace(
    "(?,", "((SELECT value FROM counters WHERE name = 'events') - ?,", 1
)


def write_events(events: Sequence[Event], tally: Tally) -> Program[None]:
    """Last of all in a transaction: the counter is held until its end."""
    if not (events or +tally or -tally):
        return
    # Taken also for none: whoever keeps tallies holds the counter.
    yield Execute("UPDATE counters SET value = value + ? WHERE name = 'events'", [(len(events),)])
    if events:
        rows = [event_row(event, place) for place, event in enumerate(reversed(events))]
        yield Execute(_INSERT_EVENTS, rows[::-1])
        tally["events"] += len(events)
    yield from keep(tally)


def _write_definitions(dialect: Dialect, texts: DefinitionTexts, batch: Batch) -> Program[None]:
    used = [session.definition for session in batch.sessions.values() if session.rev == 1]
    used += [change.workflow.definition for change in batch.accepted if change.workflow]
    missing = {(text := texts.of(definition))[0]: text for definition in used}
    missing = {one: text for one, text in missing.items() if one not in batch.definitions}
    while missing:
        yield Execute(
            "INSERT INTO definitions (hash, doc) VALUES (?, ?) ON CONFLICT (hash) DO NOTHING",
            [text for _, text in sorted(missing.items())],
        )
        # One that nobody used any more may be on its way out: only what is held here stays.
        rows = yield Fetch(
            dialect.sql("SELECT hash FROM definitions WHERE hash {among} ORDER BY hash {share}"),
            (dump(sorted(missing)),),
        )
        for row in rows:
            del missing[row[0]]


def _write_sessions(texts: DefinitionTexts, batch: Batch) -> Program[None]:
    if batch.sessions:
        rows = [session_row(one, texts.of(one.definition)) for one in batch.sessions.values()]
        # A session keeps its definition, in the text that is stored: a later version of the model
        # may write the same definition in other words.
        yield from put("sessions", SESSION_COLUMNS, rows, batch.stored_sessions, ("definition",))


# Definitions that are left over are deleted by retention.
_DELETE_OLD_REVISIONS = """
DELETE FROM workflows WHERE id = ? AND revision <= ?
AND NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.definition = workflows.definition)
"""


def _write_workflows(texts: DefinitionTexts, batch: Batch) -> Program[None]:
    for change in batch.accepted:
        saved = change.workflow
        if saved is not None:
            row = (saved.id, saved.revision, micros(saved.saved_at), texts.of(saved.definition)[0])
            yield Execute(
                "INSERT INTO workflows (id, revision, saved_at, definition) VALUES (?, ?, ?, ?)",
                [row],
            )
            yield Execute(_DELETE_OLD_REVISIONS, [(saved.id, saved.revision - REVISIONS_KEPT)])
        if change.deleted_workflow is not None:
            yield Execute("DELETE FROM workflows WHERE id = ?", [(change.deleted_workflow,)])


def _write_agentkits(batch: Batch) -> Program[None]:
    for change in batch.accepted:
        if change.agentkit is not None:
            known = {change.agentkit.agentkit} if change.agentkit.rev > 1 else set()
            row = agentkit_row(change.agentkit)
            yield from put("agentkit_knowledge", KNOWLEDGE_COLUMNS, [row], known)


def _write_keys(batch: Batch) -> Program[None]:
    receipts = [change.receipt for change in batch.accepted if change.receipt]
    if receipts:
        yield Execute(
            "INSERT INTO webhook_receipts (signature, expires_at) VALUES (?, ?)",
            [(receipt.signature, micros(receipt.expires_at)) for receipt in receipts],
        )
    keys = [change.idempotency for change in batch.accepted if change.idempotency]
    if keys:
        yield Execute(
            "INSERT INTO idempotency_keys (key, fingerprint, session_id, workflow_id, expires_at) "
            "VALUES (?, ?, ?, ?, ?)",
            [
                (one.key, one.fingerprint, one.session_id, one.workflow_id, micros(one.expires_at))
                for one in keys
            ],
        )


# --- agents -------------------------------------------------------------------------------------


def _write_agents(batch: Batch) -> Program[None]:
    if not batch.agents:
        return
    rows = [agent_row(agent) for agent in batch.agents.values()]
    yield from put("agents", AGENT_COLUMNS, rows, batch.stored_agents)
    moved = [agent for agent in batch.agents.values() if _lanes_changed(batch, agent)]
    if moved:
        yield Execute("DELETE FROM agent_lanes WHERE agent_id = ?", [(one.id,) for one in moved])
        yield Execute(
            "INSERT INTO agent_lanes (lane, agent_id) VALUES (?, ?)",
            [(lane, agent.id) for agent in moved for lane in dict.fromkeys(lanes_of(agent))],
        )
    new = [agent.id for agent in batch.agents.values() if agent.id not in batch.stored_agents]
    if new:
        yield Execute("DELETE FROM early_reports WHERE agent_id = ?", [(one,) for one in new])


def _lanes_changed(batch: Batch, agent: Agent) -> bool:
    stored = batch.stored_agents.get(agent.id)
    return stored is None or lanes_of(load_agent(stored[2])) != lanes_of(agent)


# --- tasks --------------------------------------------------------------------------------------


def _write_tasks(arrivals: Arrivals, batch: Batch) -> Program[None]:
    """Write tasks, give newly queued ones their turn, and move the slots of their agents."""
    stored, rows = batch.stored_tasks, []
    for task in batch.tasks.values():
        before = stored.get(task.id)
        if _joins(task, before):
            rows.append(task_row(task, _turn(task, batch), arrivals.next()))
        else:
            rows.append(task_row(task, before[5] if before else 0, before[6] if before else 0))
    yield from put("tasks", TASK_COLUMNS, rows, stored)
    deltas = _slot_deltas(batch.tasks.values(), stored)
    if deltas:
        yield Execute(
            "UPDATE agents SET in_flight = in_flight + ? WHERE id = ?",
            [(delta, agent_id) for agent_id, delta in sorted(deltas.items())],
        )


def _turn(task: Task, batch: Batch) -> int:
    """Start-time fair queueing: a workflow's next turn comes after its last, but not in the past.

    The present is the last turn that was served at the level.
    """
    flow = flow_of(task)
    turn = max(batch.flows.get(flow, 0), batch.served.get(level_of(task), 0)) + 1
    batch.flows[flow] = turn
    return turn


def _joins(task: Task, before: Row | None) -> bool:
    """Whether the task takes a new place in a queue."""
    if task.status is not TaskStatus.QUEUED:
        return False
    return before is None or before[2] != TaskStatus.QUEUED.value or before[4] != level_of(task)


def _slot_deltas(tasks: Iterable[Task], stored: dict[str, Row]) -> dict[str, int]:
    deltas: Counter[str] = Counter()
    for task in tasks:
        before = stored.get(task.id)
        if before is not None and TaskStatus(before[2]).in_flight:
            deltas[before[3]] -= 1
        if task.status.in_flight and task.agent_id is not None:
            deltas[task.agent_id] += 1
    return {agent_id: delta for agent_id, delta in deltas.items() if delta}
