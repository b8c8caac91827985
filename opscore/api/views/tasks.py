"""Answers about tasks."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from opscore.api.views.base import View
from opscore.api.views.reasons import PendingReasonView
from opscore.models import (
    Delivery,
    MessageType,
    Task,
    TaskStatus,
)
from opscore.workflow.queue import (
    PendingReason,
)


class TaskView(View):
    task_id: str
    session_id: str
    workflow_id: str
    step_id: str
    stands_for: str | None
    name: str | None
    status: TaskStatus
    pending_reason: PendingReasonView | None
    priority: int
    message_type: MessageType
    wanted_agent: str | None
    wanted_capability: str | None
    agent_id: str | None
    via: Delivery | None
    attempt: int
    retries: int
    parameters: Mapping[str, Any]
    progress: Any
    result: Any
    error: Mapping[str, Any] | None
    created_at: datetime
    waiting_since: datetime | None
    delayed_until: datetime | None
    dispatched_at: datetime | None
    accepted_at: datetime | None
    active_at: datetime | None
    heartbeat_at: datetime | None
    ended_at: datetime | None
    start_deadline: datetime | None
    run_deadline: datetime | None
    queue_deadline: datetime | None

    @classmethod
    def of(cls, task: Task, reason: PendingReason | None = None) -> "TaskView":
        return cls(
            task_id=task.id,
            pending_reason=PendingReasonView.of(reason) if reason else None,
            waiting_since=task.waiting_since if task.status.waiting else None,
            **{name: getattr(task, name) for name in _SAME_NAMES},
        )


_OWN_NAMES = {"task_id", "pending_reason", "waiting_since"}
_SAME_NAMES = tuple(name for name in TaskView.model_fields if name not in _OWN_NAMES)


class ResultView(View):
    """`counted` is false for an answer that came late or twice; it is recorded all the same."""

    counted: bool
    message: str


class HeartbeatView(View):
    """`cancelled` is true once the work is not wanted any more: the agent should stop.

    `deadline` is when the attempt times out, whatever heartbeats come until then.
    """

    status: TaskStatus
    cancelled: bool
    deadline: datetime | None

    @classmethod
    def of(cls, task: Task, attempt: int | None) -> "HeartbeatView":
        is_wanted = task.status.in_flight and attempt in (None, task.attempt)
        return cls(status=task.status, cancelled=not is_wanted, deadline=task.run_deadline)
