"""Answers that say why a task waits and what can be done."""

from datetime import datetime

from opscore.api.views.base import View
from opscore.models import (
    Task,
    TaskStatus,
)
from opscore.workflow.queue import (
    DeadlineKind,
    Explanation,
    Obstacle,
    PendingReason,
    Reason,
    Work,
)


class PendingReasonView(View):
    code: Reason
    message: str
    since: datetime
    until: datetime | None

    @classmethod
    def of(cls, reason: PendingReason) -> "PendingReasonView":
        return cls(code=reason.code, message=reason.message, since=reason.since, until=reason.until)


class ObstacleView(View):
    agent_id: str
    agent_name: str
    code: Reason
    message: str
    unblocked_by: str
    since: datetime | None
    until: datetime | None

    @classmethod
    def of(cls, obstacle: Obstacle) -> "ObstacleView":
        return cls(**{name: getattr(obstacle, name) for name in cls.model_fields})


class DeadlineView(View):
    """The next moment at which the service acts by itself, and what it does then."""

    kind: DeadlineKind
    at: datetime
    message: str


class WorkView(View):
    """Which agent has the task, since when, and what was last heard of it there.

    A tool step has no agent: AgentKit runs the tool.
    """

    agent_id: str | None
    agent_name: str | None
    attempt: int
    since: datetime
    last_sign_of_life: datetime | None
    agent_last_seen_at: datetime | None
    next_deadline: DeadlineView | None

    @classmethod
    def of(cls, work: Work) -> "WorkView":
        return cls.model_validate(work, from_attributes=True)


class WhyView(View):
    """Why a task waits or what happens to it, and what can be done about it.

    `candidates` are the agents that could have a queued task; `work` is there while an agent
    has it; `actions` are the calls by which an operator can move it now.
    """

    task_id: str
    status: TaskStatus
    reason: PendingReasonView
    candidates: list[ObstacleView]
    candidate_count: int
    ahead: int | None
    unblocked_by: list[str]
    work: WorkView | None
    actions: list[str]

    @classmethod
    def of(cls, task: Task, explanation: Explanation) -> "WhyView":
        return cls(
            task_id=task.id,
            status=task.status,
            reason=PendingReasonView.of(explanation.reason),
            candidates=[ObstacleView.of(obstacle) for obstacle in explanation.obstacles],
            candidate_count=explanation.candidate_count,
            ahead=explanation.ahead,
            unblocked_by=list(explanation.unblocked_by),
            work=WorkView.of(explanation.work) if explanation.work else None,
            actions=list(explanation.actions),
        )
