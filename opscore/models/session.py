"""Sessions: one run of a workflow each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from opscore.models.definition import WorkflowDefinition


class SessionStatus(StrEnum):
    """`pending`: no task was accepted yet; `waiting`: it waits; `running`: an agent has it."""

    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def ended(self) -> bool:
        return self in _ENDED


_ENDED = frozenset(
    {
        SessionStatus.COMPLETED,
        SessionStatus.FAILED,
        SessionStatus.CANCELLED,
        SessionStatus.TIMED_OUT,
    }
)


# All results of a session together. Each of its writes carries them.
SESSION_RESULTS_LIMIT = 16 * 1024 * 1024

_NOTHING: Mapping[str, Any] = {}


def _nothing() -> Mapping[str, Any]:
    """The same empty mapping for all: a million waiting sessions have three of them each."""
    return _NOTHING


@dataclass(frozen=True, slots=True)
class WorkflowSession:
    """`workflow_revision` is 0 for a definition that came with the trigger and was not saved.

    `results_size` is how long the results are as JSON.
    """

    id: str
    definition: WorkflowDefinition
    workflow_revision: int
    created_at: datetime
    agent_id: str | None = None
    status: SessionStatus = SessionStatus.PENDING
    input: Mapping[str, Any] = field(default_factory=_nothing)
    results: Mapping[str, Any] = field(default_factory=_nothing)
    results_size: int = 0
    output: Any = None
    error: Mapping[str, Any] | None = None
    metadata: Mapping[str, Any] = field(default_factory=_nothing)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    deadline_at: datetime | None = None
    rev: int = 0

    @property
    def workflow_id(self) -> str:
        return self.definition.id

    @property
    def due_at(self) -> datetime | None:
        return None if self.status.ended else self.deadline_at
