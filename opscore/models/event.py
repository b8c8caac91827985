"""Events: the one log that histories, streams, metrics and audits read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class EventType(StrEnum):
    AGENT_REGISTERED = "agent.registered"
    AGENT_UPDATED = "agent.updated"
    AGENT_DEREGISTERED = "agent.deregistered"
    AGENT_REPLACED = "agent.replaced"
    AGENT_DRAINING = "agent.draining"
    AGENT_LOST = "agent.lost"
    AGENT_RETURNED = "agent.returned"
    AGENT_HELD = "agent.held"
    AGENT_RELEASED = "agent.released"
    AGENT_STATE = "agent.state"
    WORKFLOW_SAVED = "workflow.saved"
    WORKFLOW_DELETED = "workflow.deleted"
    SESSION_STARTED = "session.started"
    SESSION_RESUMED = "session.resumed"
    SESSION_UPDATED = "session.updated"
    SESSION_COMPLETED = "session.completed"
    SESSION_FAILED = "session.failed"
    SESSION_CANCELLED = "session.cancelled"
    SESSION_TIMED_OUT = "session.timed_out"
    TASK_QUEUED = "task.queued"
    TASK_DELAYED = "task.delayed"
    TASK_DISPATCHED = "task.dispatched"
    TASK_ACCEPTED = "task.accepted"
    TASK_RUNNING = "task.running"
    TASK_HEARTBEAT = "task.heartbeat"
    TASK_COMPLETED = "task.completed"
    TASK_ATTEMPT_FAILED = "task.attempt_failed"
    TASK_RETRY = "task.retry"
    TASK_FALLBACK = "task.fallback"
    TASK_FAILED = "task.failed"
    TASK_TIMED_OUT = "task.timed_out"
    TASK_CANCELLED = "task.cancelled"
    TASK_LATE = "task.late"
    TASK_ANSWER_UNCLEAR = "task.answer_unclear"
    DELIVERY_LEARNED = "delivery.learned"
    STORAGE_PRUNED = "storage.pruned"
    STORAGE_REPAIRED = "storage.repaired"


@dataclass(frozen=True, slots=True)
class Event:
    """`seq` is 0 until the storage appends the event; then it rises by one for each."""

    type: EventType
    at: datetime
    agent_id: str | None = None
    session_id: str | None = None
    task_id: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    seq: int = 0
