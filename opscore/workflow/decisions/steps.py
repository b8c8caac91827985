"""Steps: how a task begins, succeeds and fails, and what follows."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson

from opscore.models import (
    SESSION_RESULTS_LIMIT,
    EventType,
    Failure,
    FailureCode,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    SessionStatus,
    Task,
    TaskDefinition,
    TaskFacts,
    TaskStatus,
    WorkflowSession,
)
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.new_tasks import new_task, queue_bytes, resolved_parameters
from opscore.workflow.decisions.open_entries import (
    leave_unsettled,
    leaves_outcome_open,
    take_back,
    tell_to_stop,
)
from opscore.workflow.decisions.trials import end_trial
from opscore.workflow.references import UnresolvedReferenceError
from opscore.workflow.retry import may_retry, retry_delay

_OUT_OF_FLIGHT: dict[str, Any] = {
    "owner": None,
    "lease_until": None,
    "start_deadline": None,
    "run_deadline": None,
    "delayed_until": None,
    "early": None,
}
_RESULTS_TOO_LARGE = {
    "code": "results_too_large",
    "message": f"The results of the session are over {SESSION_RESULTS_LIMIT // 1024**2} MiB "
    "together; have agents keep large data elsewhere and answer where it is.",
}
_NOT_BEGUN: dict[str, Any] = {
    **_OUT_OF_FLIGHT,
    "accepted_at": None,
    "active_at": None,
    "heartbeat_at": None,
    "is_probe": False,
}

_TIMEOUTS = frozenset(
    {FailureCode.QUEUE_TIMEOUT, FailureCode.START_TIMEOUT, FailureCode.RUN_TIMEOUT}
)


# --- beginning --------------------------------------------------------------------------------


def start_step(
    draft: Draft,
    session: WorkflowSession,
    step: TaskDefinition,
    stands_for: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Make the task of a step. `overrides` are values that replace its parameters as they are."""
    task = new_task(draft, session, step, stands_for)
    try:
        parameters = resolved_parameters(session, step, overrides or {})
    except UnresolvedReferenceError as error:
        failure = Failure(FailureCode.UNRESOLVED_REFERENCE, str(error), terminal=True)
        task = draft.task(task)
        draft.task_event(EventType.TASK_QUEUED, task)
        handle_task_failure(draft, task, session, failure)
        return
    task = replace(task, parameters=parameters, queue_bytes=queue_bytes(session, parameters))
    if step.delay:
        schedule_task(draft, task, draft.ctx.now + step.delay)
    else:
        enqueue_task(draft, task, session)


def enqueue_task(draft: Draft, task: Task, session: WorkflowSession, **changes: Any) -> Task:
    """The task may run as soon as an agent is free; its wait for one begins now."""
    step = session.definition.task(task.step_id)
    task = draft.task(
        task,
        **_NOT_BEGUN,
        status=TaskStatus.QUEUED,
        waiting_since=draft.ctx.now,
        queue_deadline=_after(draft.ctx.now, step.queue_timeout),
        **changes,
    )
    draft.task_event(EventType.TASK_QUEUED, task)
    return task


def schedule_task(draft: Draft, task: Task, until: datetime, **changes: Any) -> Task:
    """The task may run from the given time on."""
    task = draft.task(
        task,
        **{**_NOT_BEGUN, "delayed_until": until},
        status=TaskStatus.DELAYED,
        waiting_since=draft.ctx.now,
        queue_deadline=None,
        **changes,
    )
    draft.task_event(EventType.TASK_DELAYED, task, until=until.isoformat())
    return task


def _after(now: datetime, duration: timedelta | None) -> datetime | None:
    return now + duration if duration else None


# --- succeeding -------------------------------------------------------------------------------


def complete_task(
    draft: Draft, task: Task, session: WorkflowSession, result: Any, **data: Any
) -> None:
    """The task's one counted completion, and what follows from it."""
    task = draft.task(
        task,
        **_OUT_OF_FLIGHT,
        status=TaskStatus.COMPLETED,
        ended_at=draft.ctx.now,
        result=result,
        error=None,
    )
    draft.task_event(EventType.TASK_COMPLETED, task, **data)
    if not data.get("fallback"):
        end_trial(draft, task.agent_id)
    # An answer may come before anything said that the work had begun.
    started_at = session.started_at or task.dispatched_at
    session = draft.session(session, **with_result(session, task, result), started_at=started_at)
    go_on_after(draft, task, session)


def with_result(session: WorkflowSession, task: Task, result: Any) -> dict[str, Any]:
    """The session's results with that of the task, which may have stood in for another one."""
    steps = [step for step in (task.step_id, task.stands_for) if step is not None]
    added = sum(step not in session.results for step in steps)
    size = added * len(orjson.dumps(result))
    return {
        "results": {**session.results, **dict.fromkeys(steps, result)},
        "results_size": session.results_size + size,
    }


def go_on_after(draft: Draft, task: Task, session: WorkflowSession) -> None:
    """Begin the step after a completed task, or complete the session."""
    following = following_step(task, session)
    if following is None:
        _complete_session(draft, session, task.result)
        return
    if session.results_size > SESSION_RESULTS_LIMIT:
        fail_session(draft, task, session, _RESULTS_TOO_LARGE)
        return
    waiting = draft.session(session, status=SessionStatus.WAITING)
    draft.then(lambda: start_step(draft, waiting, following))


def following_step(task: Task, session: WorkflowSession) -> TaskDefinition | None:
    """A stand-in goes on where it says, or else where the task it stands for would have."""
    definition = session.definition
    own = definition.successor(task.step_id)
    if own is not None or task.stands_for is None:
        return own
    return definition.successor(task.stands_for)


def _complete_session(draft: Draft, session: WorkflowSession, output: Any) -> None:
    session = draft.session(
        session,
        status=SessionStatus.COMPLETED,
        output=output,
        ended_at=draft.ctx.now,
    )
    draft.session_event(EventType.SESSION_COMPLETED, session)


# --- failing ----------------------------------------------------------------------------------


def handle_task_failure(
    draft: Draft, task: Task, session: WorkflowSession, failure: Failure
) -> None:
    """One attempt failed: try again, fall back, or end the session."""
    draft.task_event(EventType.TASK_ATTEMPT_FAILED, task, **_described(draft, failure))
    _leave_unsettled(draft, task, failure)
    step = session.definition.task(task.step_id)
    if may_retry(step.retry, task, failure):
        retry_task(draft, task, session, failure)
    elif _may_fall_back(step, task, failure):
        fallback_task(draft, task, session, failure)
    else:
        _fail_task(draft, task, session, failure)


def _leave_unsettled(draft: Draft, task: Task, failure: Failure) -> None:
    if task.status.in_flight and leaves_outcome_open(failure):
        leave_unsettled(draft, task, failure.code)


def _may_fall_back(step: TaskDefinition, task: Task, failure: Failure) -> bool:
    """Another agent can do nothing with parameters that are not there."""
    if isinstance(step.fallback, FallbackCapability):
        return not task.fell_back and failure.code is not FailureCode.UNRESOLVED_REFERENCE
    return step.fallback is not None


def retry_task(draft: Draft, task: Task, session: WorkflowSession, failure: Failure) -> None:
    """The task waits for its next attempt; whichever agent was used longest ago gets it."""
    policy = session.definition.task(task.step_id).retry
    until = draft.ctx.now + retry_delay(policy, task, failure)
    retries = task.retries if failure.free else task.retries + 1
    draft.task_event(
        EventType.TASK_RETRY, task, retries=retries, free=failure.free, until=until.isoformat()
    )
    schedule_task(
        draft,
        task,
        until,
        retries=retries,
        preferred_agent=None,
        prefer_direct=False,
        silent_forward=None,
        error=describe(failure),
    )
    set_session_waiting(draft, session)


def requeue(
    draft: Draft,
    facts: TaskFacts,
    failure: Failure,
    pause: timedelta = timedelta(),
    **changes: Any,
) -> None:
    """The attempt came to nothing, but that costs no retry: the task waits for an agent again."""
    task = facts.task
    draft.task_event(EventType.TASK_ATTEMPT_FAILED, task, **_described(draft, failure))
    _leave_unsettled(draft, task, failure)
    if pause:
        schedule_task(draft, task, draft.ctx.now + pause, error=describe(failure), **changes)
    else:
        enqueue_task(draft, task, facts.session, error=describe(failure), **changes)
    set_session_waiting(draft, facts.session)


def fallback_task(draft: Draft, task: Task, session: WorkflowSession, failure: Failure) -> None:
    """The task's retries are spent: do what its definition has for this case."""
    fallback = session.definition.task(task.step_id).fallback
    match fallback:
        case FallbackResult(result):
            draft.task_event(EventType.TASK_FALLBACK, task, kind="result")
            complete_task(draft, task, session, result, fallback=True)
        case FallbackCapability(capability):
            draft.task_event(EventType.TASK_FALLBACK, task, kind="capability", to=capability)
            enqueue_task(
                draft,
                task,
                session,
                wanted_agent=None,
                wanted_capability=capability,
                preferred_agent=None,
                prefer_direct=False,
                silent_forward=None,
                fell_back=True,
                retries=0,
                lost_leases=0,
                not_found=0,
                error=describe(failure),
            )
            set_session_waiting(draft, session)
        case FallbackTask(step_id):
            _end_failed(draft, task, failure)
            draft.task_event(EventType.TASK_FALLBACK, task, kind="task", to=step_id)
            stand_in = session.definition.task(step_id)
            stands_for = task.stands_for or task.step_id
            waiting = set_session_waiting(draft, session)
            draft.then(lambda: start_step(draft, waiting, stand_in, stands_for))
        case None:
            _fail_task(draft, task, session, failure)


def _fail_task(draft: Draft, task: Task, session: WorkflowSession, failure: Failure) -> None:
    _end_failed(draft, task, failure)
    fail_session(draft, task, session, describe(failure))


def fail_session(
    draft: Draft, task: Task, session: WorkflowSession, reason: Mapping[str, Any]
) -> None:
    error = {"taskId": task.id, "stepId": task.step_id, **reason}
    session = draft.session(
        session, status=SessionStatus.FAILED, error=error, ended_at=draft.ctx.now
    )
    draft.session_event(EventType.SESSION_FAILED, session, error=draft.bounded(error))


def _end_failed(draft: Draft, task: Task, failure: Failure) -> None:
    timed_out = failure.code in _TIMEOUTS
    if timed_out and task.status.in_flight:
        tell_to_stop(draft, task)
    ended = draft.task(
        task,
        **_OUT_OF_FLIGHT,
        status=TaskStatus.TIMED_OUT if timed_out else TaskStatus.FAILED,
        ended_at=draft.ctx.now,
        error=describe(failure),
    )
    draft.task_event(
        EventType.TASK_TIMED_OUT if timed_out else EventType.TASK_FAILED,
        ended,
        code=failure.shown_code,
    )


def describe(failure: Failure) -> dict[str, Any]:
    """A failure as users see it, in events, tasks and sessions."""
    shown = {
        "code": failure.shown_code,
        "failure": failure.code.value if failure.shown_code != failure.code else None,
        "message": failure.message,
        "status": failure.status,
        "body": failure.body,
        "error": failure.error,
    }
    return {key: value for key, value in shown.items() if value is not None}


def _described(draft: Draft, failure: Failure) -> dict[str, Any]:
    """The same for events, which are many and must stay small."""
    return {key: draft.bounded(value) for key, value in describe(failure).items()}


# --- ending early -----------------------------------------------------------------------------


def cancel_tasks(draft: Draft, tasks: tuple[Task, ...], reason: str) -> None:
    """End every unfinished task of a session that ends; agents are told to stop."""
    for task in tasks:
        if task.status.ended:
            continue
        cancelled = draft.task(
            task, **_OUT_OF_FLIGHT, status=TaskStatus.CANCELLED, ended_at=draft.ctx.now
        )
        draft.task_event(EventType.TASK_CANCELLED, cancelled, reason=reason)
        if task.status.in_flight:
            take_back(draft, task)


def set_session_waiting(draft: Draft, session: WorkflowSession) -> WorkflowSession:
    if session.status is not SessionStatus.RUNNING:
        return session
    return draft.session(session, status=SessionStatus.WAITING)


def set_session_running(draft: Draft, session: WorkflowSession) -> WorkflowSession:
    if session.status not in (SessionStatus.PENDING, SessionStatus.WAITING):
        return session
    started_at = session.started_at or draft.ctx.now
    return draft.session(session, status=SessionStatus.RUNNING, started_at=started_at)
