"""Decisions about what agents say of their tasks."""

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from opscore.models import (
    Agent,
    AgentFacts,
    Change,
    EventType,
    Failure,
    FailureCode,
    SessionStatus,
    StateReport,
    StateWord,
    Task,
    TaskFacts,
    TaskResult,
    TaskStatus,
    WorkflowSession,
    answers_for,
    failure_code,
    normalise_state,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.signs_of_life import note_sign_of_life
from opscore.workflow.decisions.states import record_state, settle_time
from opscore.workflow.decisions.steps import complete_task, handle_task_failure

TASK_ID_KEYS = ("opscore_task_id", "taskId", "task_id")
ATTEMPT_KEYS = ("opscore_attempt", "attempt")

_WITHOUT_VERDICT = frozenset(
    {
        FailureCode.START_TIMEOUT,
        FailureCode.RUN_TIMEOUT,
        FailureCode.OUTCOME_UNKNOWN,
        FailureCode.LEASE_LOST,
    }
)


class Effect(Enum):
    """What a report does to the task it speaks of."""

    NONE = auto()
    ACTIVE = auto()
    COMPLETE = auto()
    FAIL = auto()


def named_task(details: Mapping[str, Any]) -> str | None:
    """The task id that a report's details name."""
    for key in TASK_ID_KEYS:
        value = details.get(key)
        if isinstance(value, str) and value:
            return value
    return None


def named_attempt(details: Mapping[str, Any]) -> int | None:
    for key in ATTEMPT_KEYS:
        value = details.get(key)
        if type(value) is int:
            return value
    return None


# --- state reports ----------------------------------------------------------------------------


def on_state_report(facts: AgentFacts, report: StateReport, ctx: Context) -> Change:
    draft = Draft(ctx)
    settled = settle_time(facts.agent, report, ctx)
    word = normalise_state(report.state)
    by_id = named_task(report.details) is not None
    subject = facts.named if by_id else facts.only
    if subject is None or settled.repeated or (settled.out_of_order and not by_id):
        record_state(draft, facts, report, settled, None)
        return draft.change()
    attempt = named_attempt(report.details) if by_id else None
    current = _is_current(subject.task, facts.agent, attempt)
    record_state(draft, facts, report, settled, subject.task if current else None)
    effect = _effect(word, subject.task, by_id, attempt)
    if current:
        if by_id or effect is not Effect.NONE:
            _learn(draft, subject)
        _carry_out(draft, subject, report, effect)
    elif effect is not Effect.NONE:
        _note_late(draft, subject.task, facts.agent.id, report.state)
    return draft.change()


def _is_current(task: Task, agent: Agent, attempt: int | None) -> bool:
    """Whether the report is about the attempt that counts now."""
    return (
        answers_for(agent, task.agent_id)
        and (attempt is None or attempt == task.attempt)
        and (task.status.in_flight or _is_in_doubt(task))
    )


def _effect(word: StateWord, task: Task, by_id: bool, attempt: int | None) -> Effect:
    match word:
        case StateWord.ACTIVE:
            return Effect.ACTIVE
        case StateWord.FINISHED:
            return Effect.COMPLETE
        case StateWord.ERROR:
            return Effect.FAIL
        case StateWord.IDLE if by_id and not _may_follow_error(task, attempt):
            return Effect.COMPLETE
        case StateWord.IDLE if _was_active(task):
            return Effect.COMPLETE
        case _:
            return Effect.NONE


def _was_active(task: Task) -> bool:
    """An idle heartbeat that crosses a delivery must not complete the task."""
    return task.accepted_at is not None and task.active_at is not None


def _may_follow_error(task: Task, attempt: int | None) -> bool:
    """Agents say `error` and then `idle` of the same task: that is no completion."""
    failed = failure_code(task.error) == FailureCode.AGENT_ERROR
    is_of_this_attempt = task.active_at is not None or attempt == task.attempt
    return failed and not (task.status.in_flight and is_of_this_attempt)


def _carry_out(draft: Draft, subject: TaskFacts, report: StateReport, effect: Effect) -> None:
    task, session = subject.task, subject.session
    match effect:
        case Effect.ACTIVE:
            _mark_active(draft, task, session)
        case Effect.COMPLETE:
            complete_task(draft, task, session, _result(report.details))
        case Effect.FAIL if task.status.in_flight:
            handle_task_failure(draft, task, session, _agent_error(_error(report.details)))
        case Effect.FAIL:
            _note_late(draft, task, report.agent_id, report.state)
        case Effect.NONE:
            _doubt(draft, task, report)


def _learn(draft: Draft, subject: TaskFacts) -> None:
    note_sign_of_life(draft, subject.task, subject.agent)


def _mark_active(draft: Draft, task: Task, session: WorkflowSession) -> None:
    now = draft.ctx.now
    if task.status.waiting:
        _note_late(draft, task, task.agent_id, StateWord.ACTIVE.value)
        return
    first = task.active_at is None
    task = draft.task(
        task,
        status=TaskStatus.RUNNING,
        active_at=task.active_at or now,
        heartbeat_at=now,
        start_deadline=None,
    )
    if first:
        draft.task_event(EventType.TASK_RUNNING, task)
    if session.status in (SessionStatus.PENDING, SessionStatus.WAITING):
        draft.session(session, status=SessionStatus.RUNNING, started_at=session.started_at or now)


def _doubt(draft: Draft, task: Task, report: StateReport) -> None:
    """Idle before the message was even taken: what was active was the agent's work before."""
    is_idle = normalise_state(report.state) is StateWord.IDLE
    if is_idle and task.status is TaskStatus.RUNNING and task.accepted_at is None:
        draft.task(task, status=TaskStatus.DISPATCHED, active_at=None, heartbeat_at=None)


# --- precise reports --------------------------------------------------------------------------


def on_task_result(facts: TaskFacts, report: TaskResult, ctx: Context) -> Change:
    """`POST task/{id}/result`: this task ended like this."""
    draft = Draft(ctx)
    task = facts.task
    verdict = "completed" if report.succeeded else "failed"
    if not _counts(task, report.attempt, report.succeeded):
        _note_late(draft, task, task.agent_id, verdict)
        return draft.change()
    if report.attempt is not None:
        # Without one it may be an operator's, who says nothing of how the agent is reached.
        _learn(draft, facts)
    if report.succeeded:
        complete_task(draft, task, facts.session, report.result)
    else:
        handle_task_failure(draft, task, facts.session, _agent_error(report.error))
    _touch_agent(draft, facts)
    return draft.change()


def _counts(task: Task, attempt: int | None, succeeded: bool) -> bool:
    """A failure counts for a running attempt, a success also for one given up in doubt."""
    if task.attempt == 0 or (attempt is not None and attempt != task.attempt):
        return False
    return task.status.in_flight or (succeeded and _is_in_doubt(task))


def _is_in_doubt(task: Task) -> bool:
    """The last attempt was given up without a verdict, and the next one has not begun."""
    return task.status.waiting and (task.error or {}).get("code") in _WITHOUT_VERDICT


def on_heartbeat(facts: TaskFacts, progress: Any, attempt: int | None, ctx: Context) -> Change:
    """`POST task/{id}/heartbeat`: the task is alive; its run deadline stands."""
    draft = Draft(ctx)
    task = facts.task
    if not task.status.in_flight or (attempt is not None and attempt != task.attempt):
        _note_late(draft, task, task.agent_id, "heartbeat")
        return draft.change()
    _learn(draft, facts)
    if progress is not None:
        task = draft.task(task, progress=progress)
        draft.task_event(EventType.TASK_HEARTBEAT, task, progress=draft.bounded(progress))
    _mark_active(draft, task, facts.session)
    _touch_agent(draft, facts)
    return draft.change()


def _touch_agent(draft: Draft, facts: TaskFacts) -> None:
    if facts.agent is not None:
        draft.agent(draft.latest(facts.agent), last_seen_at=draft.ctx.now, missed_deadlines=0)


# --- shared -----------------------------------------------------------------------------------


def _note_late(draft: Draft, task: Task, agent_id: str | None, said: str) -> None:
    draft.event(
        EventType.TASK_LATE,
        agent_id=agent_id,
        session_id=task.session_id,
        task_id=task.id,
        stepId=task.step_id,
        attempt=task.attempt,
        said=said,
        status=task.status.value,
    )


def _result(details: Mapping[str, Any]) -> Any:
    if "result" in details:
        return details["result"]
    ours = (*TASK_ID_KEYS, *ATTEMPT_KEYS) if named_task(details) else ()
    return {key: value for key, value in details.items() if key not in ours}


def _error(details: Mapping[str, Any]) -> Any:
    return details.get("error", details.get("message"))


def _agent_error(error: Any) -> Failure:
    message = error if isinstance(error, str) else "The agent reported an error."
    if isinstance(error, Mapping) and isinstance(error.get("message"), str):
        message = error["message"]
    return Failure(FailureCode.AGENT_ERROR, message[:4096], error=error)
