"""Workflow definitions: what is to be done, in which order, and what if it fails."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

DEFAULT_PRIORITY = 5
HIGHEST_PRIORITY = 9


class Backoff(StrEnum):
    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class MessageType(StrEnum):
    WORKFLOW_TASK = "workflow_task"
    TOOL_INVOCATION = "tool_invocation"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`non_retryable` names failure codes, or words found in the error message."""

    max_retries: int = 3
    backoff: Backoff = Backoff.EXPONENTIAL
    initial_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(seconds=60)
    jitter: bool = True
    non_retryable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FallbackTask:
    """Another task of the same definition runs in the place of the failed one."""

    task_id: str


@dataclass(frozen=True, slots=True)
class FallbackCapability:
    """The same task is given to an agent with another capability."""

    capability: str


@dataclass(frozen=True, slots=True)
class FallbackResult:
    """The task counts as completed with this result."""

    result: Any


Fallback = FallbackTask | FallbackCapability | FallbackResult


@dataclass(frozen=True, slots=True)
class TaskDefinition:
    """One step. A duration that is None takes the service's default."""

    task_id: str
    name: str | None = None
    agent_capability: str | None = None
    agent_id: str | None = None
    message_type: MessageType = MessageType.WORKFLOW_TASK
    tool_name: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    next_task_id: str | None = None
    priority: int = DEFAULT_PRIORITY
    delay: timedelta | None = None
    timeout: timedelta | None = None
    start_timeout: timedelta | None = None
    queue_timeout: timedelta | None = None
    retry: RetryPolicy = RetryPolicy()
    fallback: Fallback | None = None


@dataclass(frozen=True, slots=True)
class WorkflowDefinition:
    """Tasks follow `next_task_id`; where no task names one, they follow the list.

    A task that is only named as a fallback stands outside the list order.
    """

    id: str
    tasks: tuple[TaskDefinition, ...]
    name: str | None = None
    version: str | None = None
    description: str | None = None
    timeout: timedelta | None = None

    def task(self, task_id: str) -> TaskDefinition:
        return next(task for task in self.tasks if task.task_id == task_id)

    @property
    def is_linked(self) -> bool:
        return any(task.next_task_id is not None for task in self.tasks)

    @property
    def main_line(self) -> tuple[TaskDefinition, ...]:
        """The tasks in list order, without those that only stand in for a failed one."""
        stand_ins = {
            task.fallback.task_id for task in self.tasks if isinstance(task.fallback, FallbackTask)
        }
        return tuple(task for task in self.tasks if task.task_id not in stand_ins)

    def first(self) -> TaskDefinition:
        return self.main_line[0]

    def successor(self, task_id: str) -> TaskDefinition | None:
        if self.is_linked:
            following = self.task(task_id).next_task_id
            return None if following is None else self.task(following)
        line = self.main_line
        ids = [task.task_id for task in line]
        if task_id not in ids:
            return None
        position = ids.index(task_id) + 1
        return line[position] if position < len(line) else None


@dataclass(frozen=True, slots=True)
class WorkflowRevision:
    """A saved definition. Revisions of one id count from 1; running sessions keep theirs."""

    definition: WorkflowDefinition
    revision: int
    saved_at: datetime

    @property
    def id(self) -> str:
        return self.definition.id


@dataclass(frozen=True, slots=True)
class RevisionInfo:
    """A revision without its definition, which may be large."""

    workflow_id: str
    revision: int
    saved_at: datetime
