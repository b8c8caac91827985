"""Records as JSON and back."""

import hashlib
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import orjson
from pydantic import TypeAdapter

from opscore.models import (
    Agent,
    AgentKitKnowledge,
    Event,
    EventType,
    StateReport,
    Task,
    WorkflowDefinition,
    WorkflowSession,
)
from opscore.storage.sql.program import Row
from opscore.storage.sql.recent import Latest, Recent

R = TypeVar("R")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MICROSECONDS = 1_000_000
"""In a second."""

_agent: TypeAdapter[Agent] = TypeAdapter(Agent)
_task: TypeAdapter[Task] = TypeAdapter(Task)
_agentkit: TypeAdapter[AgentKitKnowledge] = TypeAdapter(AgentKitKnowledge)
_report: TypeAdapter[StateReport] = TypeAdapter(StateReport)
_definition: TypeAdapter[WorkflowDefinition] = TypeAdapter(WorkflowDefinition)
_session: TypeAdapter[WorkflowSession] = TypeAdapter(WorkflowSession)

_SESSION_FIELDS = tuple(field.name for field in fields(WorkflowSession))


def dump(value: Any) -> str:
    return orjson.dumps(value, default=_plain).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise TypeError(f"cannot be stored: {type(value).__name__}")


def load(text: str) -> Any:
    return orjson.loads(text)


def micros(moment: datetime) -> int:
    return (moment - _EPOCH) // MICROSECOND


def micros_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else micros(moment)


def moment(value: int) -> datetime:
    return _EPOCH + value * MICROSECOND


_agents: Recent[str, Agent] = Recent(_agent.validate_json, len)
_tasks: Recent[str, Task] = Recent(_task.validate_json, len)


def forget_recent() -> None:
    """Have everything decoded anew."""
    for recent in (_agents, _tasks, _definitions, _sessions):
        recent.forget()


def dump_agent(agent: Agent) -> str:
    doc = dump(agent)
    _agents.note(doc, agent)
    return doc


def load_agent(doc: str) -> Agent:
    return _agents.get(doc)


def dump_task(task: Task) -> str:
    doc = dump(task)
    _tasks.note(doc, task)
    return doc


def load_task(doc: str) -> Task:
    return _tasks.get(doc)


def load_agentkit(doc: str) -> AgentKitKnowledge:
    return _agentkit.validate_json(doc)


def load_report(doc: str) -> StateReport:
    return _report.validate_json(doc)


class DefinitionTexts:
    """Definitions as text, made once for each; they are large and shared by many sessions."""

    def __init__(self) -> None:
        self._known: Latest[int, tuple[WorkflowDefinition, str, str]] = Latest()

    def of(self, definition: WorkflowDefinition) -> tuple[str, str]:
        """The definition's hash and its text."""
        known = self._known.get(id(definition))
        # The definition is kept beside its text, so its id cannot come to mean another one.
        if known is None:
            text = dump(definition)
            known = definition, hashlib.sha256(text.encode()).hexdigest(), text
            self._known.put(id(definition), known, len(text))
        return known[1], known[2]


# One that is large serves many sessions.
_definitions: Recent[str, WorkflowDefinition] = Recent(
    _definition.validate_json, len, largest=sys.maxsize
)


def load_definition(doc: str) -> WorkflowDefinition:
    return _definitions.get(doc)


def dump_session(session: WorkflowSession) -> str:
    """The session without its definition, which is stored once for all that share it."""
    return dump({name: getattr(session, name) for name in _SESSION_FIELDS if name != "definition"})


def load_session(doc: str, definition: str) -> WorkflowSession:
    return _sessions.get((doc, definition))


def note_session(doc: str, definition: str, session: WorkflowSession) -> None:
    """These texts were made of this session."""
    _sessions.note((doc, definition), session)


def _decode_session(texts: tuple[str, str]) -> WorkflowSession:
    doc, definition = texts
    values = orjson.loads(doc)
    return _session.validate_python({**values, "definition": load_definition(definition)})


_sessions: Recent[tuple[str, str], WorkflowSession] = Recent(
    # Both are kept, and each session that is read has its definition in a text of its own.
    _decode_session,
    lambda texts: len(texts[0]) + len(texts[1]),
)


def load_event(row: Row) -> Event:
    """From the columns seq, at, type, agent_id, session_id, task_id, data."""
    seq, at, type_, agent_id, session_id, task_id, data = row
    return Event(
        EventType(type_), moment(at), agent_id, session_id, task_id, orjson.loads(data), seq
    )
