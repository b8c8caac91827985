"""Decisions that an operator takes: try a task again, end it, go on with a failed session."""

from collections.abc import Mapping
from typing import Any

from opscore.exceptions import ConflictError
from opscore.models import (
    Change,
    EventType,
    Failure,
    FailureCode,
    SessionFacts,
    SessionStatus,
    Task,
    TaskDefinition,
    TaskFacts,
    TaskStatus,
    WorkflowSession,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.new_tasks import queue_bytes, resolved_parameters, wanted_by
from opscore.workflow.decisions.open_entries import take_back
from opscore.workflow.decisions.sessions import session_deadline
from opscore.workflow.decisions.steps import (
    enqueue_task,
    handle_task_failure,
    set_session_waiting,
)
from opscore.workflow.references import UnresolvedReferenceError

_OPERATOR = "operator"
_TAKEN_BACK = {
    "code": "taken_back",
    "message": "An operator took the attempt back to have the task tried again.",
}


# --- trying again -----------------------------------------------------------------------------


def retry_task_now(facts: TaskFacts, attempt: int | None, ctx: Context) -> Change:
    """Queue the task again: one at work is taken back, a delayed one no longer waits.

    A task that its session failed at reopens the session. With `attempt` the retry is refused
    once the task has moved on to another attempt.
    """
    draft = Draft(ctx, facts.agent)
    task, session = facts.task, facts.session
    if attempt is not None and attempt != task.attempt:
        raise ConflictError(f"The task is at attempt {task.attempt} now; read it again first.")
    if task.status.ended:
        _reopen(draft, session, task)
    elif task.status is TaskStatus.QUEUED:
        raise ConflictError(
            "The task is queued already, so there is nothing to retry; GET task/{id}/why says "
            "what it waits for."
        )
    elif task.status.in_flight:
        take_back(draft, task)
        _begin_again(draft, task, session, error=_TAKEN_BACK)
    else:
        _begin_again(draft, task, session)
    return draft.change()


def retry_session(facts: SessionFacts, ctx: Context) -> Change:
    """Go on from the task that the session failed at; earlier results are kept."""
    draft = Draft(ctx)
    session = facts.session
    _check_has_failed(session)
    task = next((task for task in facts.tasks if _stopped_at(session, task)), None)
    if task is None:
        raise ConflictError(
            "The session did not fail at a task that can be tried again; start the workflow anew."
        )
    _reopen(draft, session, task)
    return draft.change()


def _check_has_failed(session: WorkflowSession) -> None:
    match session.status:
        case SessionStatus.FAILED | SessionStatus.TIMED_OUT:
            return
        case SessionStatus.COMPLETED:
            message = "The session has completed, so there is nothing to retry."
        case SessionStatus.CANCELLED:
            message = "The session was cancelled, and stays so; start the workflow anew."
        case status:
            message = (
                f"The session has not ended; it is {status.value}. To try its open task again, "
                "use POST task/{id}/retry."
            )
    raise ConflictError(message)


def _stopped_at(session: WorkflowSession, task: Task) -> bool:
    """Return whether the session ended because this task did not complete."""
    if session.status is SessionStatus.TIMED_OUT:
        return task.status is TaskStatus.CANCELLED
    is_named = (session.error or {}).get("taskId") == task.id
    return is_named and task.status in (TaskStatus.FAILED, TaskStatus.TIMED_OUT)


def _reopen(draft: Draft, session: WorkflowSession, task: Task) -> None:
    _check_can_reopen(session, task)
    step = session.definition.task(task.step_id)
    parameters = _parameters(session, task, step)
    draft.reopen(session, task)
    session = draft.session(
        session,
        status=SessionStatus.WAITING,
        error=None,
        ended_at=None,
        deadline_at=session_deadline(session.definition, draft.ctx.now),
    )
    draft.session_event(EventType.SESSION_RESUMED, session, by=_OPERATOR, stepId=task.step_id)
    size = queue_bytes(session, parameters)
    _begin_again(draft, task, session, parameters=parameters, queue_bytes=size, ended_at=None)


def _check_can_reopen(session: WorkflowSession, task: Task) -> None:
    if task.status is TaskStatus.COMPLETED:
        raise ConflictError("The task has completed, and its result counts; it is not run again.")
    if not session.status.ended:
        raise ConflictError(
            "The task has ended and its session went on with a fallback; retry an open task of "
            "the session."
        )
    _check_has_failed(session)
    if not _stopped_at(session, task):
        raise ConflictError(
            "The session did not fail at this task; POST session/{id}/retry goes on from the one "
            "it failed at."
        )


def _parameters(session: WorkflowSession, task: Task, step: TaskDefinition) -> Mapping[str, Any]:
    """Resolve the references anew: the session's metadata may have been corrected meanwhile."""
    is_first = task.stands_for is None and step == session.definition.first()
    try:
        return resolved_parameters(session, step, session.input if is_first else {})
    except UnresolvedReferenceError as error:
        raise ConflictError(f"The task cannot be tried again yet. {error}") from error


def _begin_again(draft: Draft, task: Task, session: WorkflowSession, **changes: Any) -> None:
    """Queue the step as its definition has it, with all its retries and its fallback unspent."""
    step = session.definition.task(task.step_id)
    draft.task_event(EventType.TASK_RETRY, task, by=_OPERATOR, retries=0)
    enqueue_task(
        draft,
        task,
        session,
        **wanted_by(step, session),
        fell_back=False,
        retries=0,
        lost_leases=0,
        not_found=0,
        prefer_direct=False,
        silent_forward=None,
        sent_directly=True,
        progress=None,
        **changes,
    )
    set_session_waiting(draft, session)


# --- ending -----------------------------------------------------------------------------------


def cancel_task(facts: TaskFacts, reason: str, ctx: Context) -> Change:
    """End the task as failed; its fallback or the end of its session follows."""
    draft = Draft(ctx, facts.agent)
    task = facts.task
    if task.status.ended:
        if (task.error or {}).get("code") != FailureCode.CANCELLED:
            raise ConflictError(f"The task has ended already; it is {task.status.value}.")
        return draft.change()
    if task.status.in_flight:
        take_back(draft, task)
    message = f"An operator cancelled the task: {reason}"
    failure = Failure(FailureCode.CANCELLED, message, terminal=True)
    handle_task_failure(draft, task, facts.session, failure)
    return draft.change()
