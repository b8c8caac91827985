"""Records as rows: the columns that statements search by, and the record itself as JSON."""

from collections.abc import Container, Sequence
from typing import Any

from opscore.models import Agent, AgentKitKnowledge, Event, Standing, Task, WorkflowSession, slots
from opscore.storage.ordering import served_name
from opscore.storage.sql.codec import (
    dump,
    dump_agent,
    dump_session,
    dump_task,
    micros,
    micros_or_none,
    note_session,
)
from opscore.storage.sql.program import Execute, Program

Rows = Sequence[tuple[Any, ...]]

AGENT_COLUMNS = (
    "id",
    "rev",
    "standing",
    "slots",
    "has_endpoint",
    "seen_at",
    "gone_at",
    "due_at",
    "agentkit_name",
    "doc",
)
SESSION_COLUMNS = (
    "id",
    "rev",
    "workflow_id",
    "agent_id",
    "status",
    "created_at",
    "ended_at",
    "due_at",
    "search",
    "definition",
    "doc",
)
TASK_COLUMNS = (
    "id",
    "rev",
    "session_id",
    "workflow_id",
    "agent_id",
    "status",
    "lane",
    "level",
    "flow",
    "turn",
    "arrival",
    "preferred",
    "waiting_since",
    "dispatched_at",
    "owner",
    "due_at",
    "created_at",
    "queue_bytes",
    "doc",
)
KNOWLEDGE_COLUMNS = ("agentkit", "rev", "doc")
EVENT_COLUMNS = ("seq", "at", "type", "agent_id", "session_id", "task_id", "data")


def insert(table: str, columns: tuple[str, ...]) -> str:
    places = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"


def upsert(table: str, columns: tuple[str, ...], kept: tuple[str, ...] = ()) -> str:
    """Insert a row, or replace what stands under its id, except in the columns that are kept."""
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns[1:] if name not in kept)
    return f"{insert(table, columns)} ON CONFLICT ({columns[0]}) DO UPDATE SET {updates}"


def level_of(task: Task) -> str:
    """Tasks of one level differ in their turns only."""
    return level_text(task.lane, task.needs_agentkit, task.priority)


def level_text(lane: str, needs_agentkit: bool, priority: int) -> str:
    return f"{lane}/{int(needs_agentkit)}{priority}"


def lane_of(level: str) -> str:
    return level[:-3]


def queue_of(level: str) -> str:
    """The lane and the kind of the level's tasks: all that decides which agents may have them."""
    return level[:-1]


def priority_of(level: str) -> int:
    return int(level[-1])


def flow_of(task: Task) -> str:
    """Tasks of one flow go in the order of their arrival."""
    return f"{level_of(task)}/{task.workflow_id}"


def put(
    table: str,
    columns: tuple[str, ...],
    rows: Rows,
    known: Container[str],
    kept: tuple[str, ...] = (),
) -> Program[None]:
    """Insert new rows and replace known ones, by their first column.

    A row is never replaced unseen: what someone else has inserted meanwhile is a collision.
    """
    new = [row for row in rows if row[0] not in known]
    if new:
        yield Execute(insert(table, columns), new)
    changed = [row for row in rows if row[0] in known]
    if changed:
        yield Execute(upsert(table, columns, kept), changed)


def agent_row(agent: Agent) -> tuple[Any, ...]:
    gone = agent.standing_since if agent.standing is Standing.DEREGISTERED else None
    return (
        agent.id,
        agent.rev,
        agent.standing.value,
        slots(agent),
        int(agent.contact_endpoint is not None),
        micros(agent.last_seen_at or agent.registered_at),
        micros_or_none(gone),
        micros_or_none(agent.due_at),
        served_name(agent),
        dump_agent(agent),
    )


def session_row(session: WorkflowSession, definition: tuple[str, str]) -> tuple[Any, ...]:
    """`definition` is its hash and its text."""
    definition_hash, text = definition
    doc = dump_session(session)
    note_session(doc, text, session)
    name = session.definition.name or ""
    return (
        session.id,
        session.rev,
        session.workflow_id,
        session.agent_id,
        session.status.value,
        micros(session.created_at),
        micros_or_none(session.ended_at),
        micros_or_none(session.due_at),
        f"{session.id}\n{session.workflow_id}\n{name}".lower(),
        definition_hash,
        doc,
    )


def task_row(task: Task, turn: int, arrival: int) -> tuple[Any, ...]:
    return (
        task.id,
        task.rev,
        task.session_id,
        task.workflow_id,
        task.agent_id,
        task.status.value,
        task.lane,
        level_of(task),
        flow_of(task),
        turn,
        arrival,
        task.preferred_agent,
        micros(task.waiting_since),
        micros_or_none(task.dispatched_at),
        task.owner,
        micros_or_none(task.due_at),
        micros(task.created_at),
        task.queue_bytes,
        dump_task(task),
    )


def agentkit_row(learned: AgentKitKnowledge) -> tuple[Any, ...]:
    return learned.agentkit, learned.rev, dump(learned)


def event_row(event: Event, seq: int) -> tuple[Any, ...]:
    return (
        seq,
        micros(event.at),
        event.type.value,
        event.agent_id,
        event.session_id,
        event.task_id,
        dump(event.data),
    )
