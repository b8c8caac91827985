"""What lists are asked for, and what they answer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from opscore.models.agent import Availability
from opscore.models.event import EventType
from opscore.models.session import SessionStatus
from opscore.models.task import TaskStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`next_cursor` is opaque and None at the end; it stays good while records come and go."""

    items: tuple[T, ...]
    next_cursor: str | None = None


# Filters of a list hold together. A set means any of its members; an empty one sets no condition.


@dataclass(frozen=True, slots=True)
class AgentFilter:
    capability: str | None = None
    availabilities: frozenset[Availability] = frozenset()
    state: str | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class SessionFilter:
    statuses: frozenset[SessionStatus] = frozenset()
    workflow_id: str | None = None
    agent_id: str | None = None
    search: str | None = None


@dataclass(frozen=True, slots=True)
class TaskFilter:
    statuses: frozenset[TaskStatus] = frozenset()
    session_id: str | None = None
    agent_id: str | None = None
    workflow_id: str | None = None


@dataclass(frozen=True, slots=True)
class EventFilter:
    types: frozenset[EventType] = frozenset()
    agent_id: str | None = None
    session_id: str | None = None
    task_id: str | None = None
    since: datetime | None = None
