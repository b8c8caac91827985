"""Tasks: what runs, what waits and why, and what agents say of them precisely."""

from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query

from opscore.api.core import Core
from opscore.api.cursors import ListCursor
from opscore.api.dependencies import CoreDep, Cursor, LifecycleDep, Limit, TaskId
from opscore.api.problems import CHANGING, CONTENDING, FINDING, READING
from opscore.api.schemas import CancelIn, HeartbeatIn, ResultIn, RetryIn
from opscore.api.views import HeartbeatView, ListView, ResultView, TaskView, View, WhyView
from opscore.exceptions import PayloadTooLargeError
from opscore.models import RESULT_LIMIT, Task, TaskFilter, TaskResult, TaskStatus

router = APIRouter(tags=["tasks"])

TaskStatuses = Annotated[frozenset[TaskStatus], Query(description="Any of those given.")]


class SpanView(View):
    name: str
    started: datetime
    ended: datetime | None
    status: str
    attributes: dict[str, Any]


async def task_views(
    core: Core, where: TaskFilter, cursor: str | None, limit: int
) -> ListView[TaskView]:
    """A page of tasks, each waiting one with the reason why it waits."""
    cursors = ListCursor("tasks", where)
    page = await core.storage.tasks(where, cursors.open(cursor), limit)
    reasons = await core.lifecycle.pending_reasons(page.items, core.dispatcher.gate())
    items = [TaskView.of(task, reasons.get(task.id)) for task in page.items]
    return ListView(items=items, next_cursor=cursors.seal(page.next_cursor))


@router.get("/tasks", responses=READING)
async def list_tasks(
    core: CoreDep,
    status: TaskStatuses = frozenset(),
    session_id: Annotated[str | None, Query(alias="sessionId", max_length=64)] = None,
    agent_id: Annotated[str | None, Query(alias="agentId", max_length=128)] = None,
    workflow_id: Annotated[str | None, Query(alias="workflowId", max_length=128)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ListView[TaskView]:
    """Tasks, newest first."""
    where = TaskFilter(status, session_id, agent_id, workflow_id)
    return await task_views(core, where, cursor, limit)


@router.get("/task/{task_id}", responses=FINDING)
async def get_task(task_id: TaskId, core: CoreDep) -> TaskView:
    """One task; while it waits, with the reason."""
    return await _task_view(core, await core.lifecycle.get_task(task_id))


async def _task_view(core: Core, task: Task) -> TaskView:
    reasons = await core.lifecycle.pending_reasons((task,), core.dispatcher.gate())
    return TaskView.of(task, reasons.get(task.id))


@router.get("/task/{task_id}/why", responses=FINDING)
async def explain_task(task_id: TaskId, core: CoreDep) -> WhyView:
    """Why the task waits, the reason against each agent, and what would unblock it."""
    task = await core.lifecycle.get_task(task_id)
    return WhyView.of(task, await core.lifecycle.explain(task, core.dispatcher.gate()))


@router.post("/task/{task_id}/retry", status_code=202, responses=CONTENDING)
async def retry_task(task_id: TaskId, core: CoreDep, body: RetryIn | None = None) -> TaskView:
    """Try the task again now: take it back from its agent, end its delay, or undo its failure."""
    attempt = body.attempt if body else None
    return await _task_view(core, await core.lifecycle.retry_task(task_id, attempt))


@router.post("/task/{task_id}/cancel", status_code=202, responses=CONTENDING)
async def cancel_task(task_id: TaskId, core: CoreDep, body: CancelIn | None = None) -> TaskView:
    """End the task as failed; its fallback or the end of its session follows."""
    reason = (body or CancelIn()).reason
    return await _task_view(core, await core.lifecycle.cancel_task(task_id, reason))


@router.get("/task/{task_id}/trace", responses=FINDING)
async def get_trace(task_id: TaskId, core: CoreDep) -> ListView[SpanView]:
    """Where the task's time went, oldest span first; kept for the newest tasks only."""
    await core.lifecycle.get_task(task_id)
    spans = core.tracer.get_trace(task_id)
    return ListView(items=[SpanView.model_validate(span, from_attributes=True) for span in spans])


@router.post("/task/{task_id}/result", responses=CHANGING)
async def report_result(task_id: TaskId, body: ResultIn, lifecycle: LifecycleDep) -> ResultView:
    """The agent says precisely how the task ended; nothing has to be guessed."""
    succeeded = body.status == "completed"
    _check_size(body.result if succeeded else body.error)
    result = TaskResult(succeeded, body.result, body.error, body.attempt)
    counted = await lifecycle.report_result(task_id, result)
    message = "The result counts." if counted else "Too late or told before: recorded, no change."
    return ResultView(counted=counted, message=message)


@router.post("/task/{task_id}/heartbeat", responses=CHANGING)
async def heartbeat(
    task_id: TaskId, lifecycle: LifecycleDep, body: HeartbeatIn | None = None
) -> HeartbeatView:
    """The task is alive. Its run deadline stands all the same."""
    said = body or HeartbeatIn()
    _check_size(said.progress)
    task = await lifecycle.heartbeat(task_id, said.progress, said.attempt)
    return HeartbeatView.of(task, said.attempt)


def _check_size(value: Any) -> None:
    if len(orjson.dumps(value)) > RESULT_LIMIT:
        raise PayloadTooLargeError(
            "This may have at most 256 KiB; keep large data elsewhere and send where it is."
        )
