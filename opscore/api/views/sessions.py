"""Answers about sessions."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from opscore.api.views.base import View
from opscore.api.views.reasons import PendingReasonView
from opscore.models import (
    SessionStatus,
    Task,
    TaskStatus,
    WorkflowSession,
)
from opscore.workflow.queue import (
    PendingReason,
)


class TriggeredView(View):
    session_id: str
    workflow_id: str
    message: str


class SessionView(View):
    session_id: str
    workflow_id: str
    workflow_revision: int
    workflow_name: str | None
    agent_id: str | None
    status: SessionStatus
    input: Mapping[str, Any]
    output: Any
    error: Mapping[str, Any] | None
    metadata: Mapping[str, Any]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None

    @classmethod
    def of(cls, session: WorkflowSession) -> "SessionView":
        return cls(**_session_fields(session))


class OpenTaskView(View):
    """A task that the session waits for, and what the task itself waits for."""

    task_id: str
    step_id: str
    name: str | None
    status: TaskStatus
    agent_id: str | None
    reason: PendingReasonView


class SessionDetailView(SessionView):
    """`results` are those of the tasks completed so far, by their taskId in the definition.

    `openTasks` says what the session waits for; it is empty once the session has ended.
    """

    results: Mapping[str, Any]
    open_tasks: list[OpenTaskView]

    @classmethod
    def with_open_tasks(
        cls, session: WorkflowSession, open_tasks: Iterable[tuple[Task, PendingReason]]
    ) -> "SessionDetailView":
        waiting = [
            OpenTaskView(
                task_id=task.id,
                step_id=task.step_id,
                name=task.name,
                status=task.status,
                agent_id=task.agent_id,
                reason=PendingReasonView.of(reason),
            )
            for task, reason in open_tasks
        ]
        return cls(**_session_fields(session), results=session.results, open_tasks=waiting)


def _session_fields(session: WorkflowSession) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "workflow_id": session.workflow_id,
        "workflow_revision": session.workflow_revision,
        "workflow_name": session.definition.name,
        "agent_id": session.agent_id,
        "status": session.status,
        "input": session.input,
        "output": session.output,
        "error": session.error,
        "metadata": session.metadata,
        "created_at": session.created_at,
        "started_at": session.started_at,
        "ended_at": session.ended_at,
        "deadline_at": session.deadline_at,
    }
