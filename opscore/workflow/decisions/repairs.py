"""Decisions about what should never be. In a healthy system each of them changes nothing."""

from opscore.models import (
    Change,
    EventType,
    SessionFacts,
    SessionStatus,
    Task,
    TaskFacts,
    TaskStatus,
    WorkflowSession,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.outcomes import run_deadline
from opscore.workflow.decisions.steps import (
    cancel_tasks,
    fail_session,
    following_step,
    go_on_after,
    start_step,
    with_result,
)

_INTERRUPTED = {
    "code": "interrupted",
    "message": "The step after this task was lost; start the workflow again.",
}


def repair_task(facts: TaskFacts, ctx: Context) -> Change:
    """Give an unfinished task back the end or the timer that it lacks."""
    draft = Draft(ctx, facts.agent)
    task, session = facts.task, facts.session
    if task.status.ended:
        return draft.change()
    if session.status.ended:
        _end_outlived(draft, task)
    elif task.status is TaskStatus.DELAYED and task.delayed_until is None:
        _note(draft, task, "timer_lost", "It was delayed without an end; its delay ends now.")
        draft.task(task, delayed_until=ctx.now)
    elif _has_no_dispatcher(task, ctx):
        _note(draft, task, "lease_lost", "No dispatcher had it; it is taken back now.")
        draft.task(task, lease_until=ctx.now)
    elif task.status.in_flight and task.accepted_at and task.run_deadline is None:
        _note(draft, task, "timer_lost", "It had no run deadline; it was given the usual one.")
        deadline = run_deadline(task, session.definition.task(task.step_id), ctx.policy)
        draft.task(task, run_deadline=deadline)
    return draft.change()


def _has_no_dispatcher(task: Task, ctx: Context) -> bool:
    """Until a task is accepted, someone holds it by a lease."""
    if not task.status.in_flight or task.accepted_at is not None:
        return False
    return task.lease_until is None or (task.owner is None and task.lease_until > ctx.now)


def _note(draft: Draft, task: Task, found: str, message: str) -> None:
    draft.task_event(EventType.STORAGE_REPAIRED, task, found=found, message=message)


def _end_outlived(draft: Draft, task: Task) -> None:
    _note(draft, task, "task_outlived_session", "Its session had ended, so it was cancelled.")
    cancel_tasks(draft, (task,), "its session had ended")


def repair_session(facts: SessionFacts, ctx: Context) -> Change:
    """A session goes on exactly as long as one of its tasks does."""
    draft = Draft(ctx, *facts.agents)
    unfinished = [task for task in facts.tasks if not task.status.ended]
    if facts.session.status.ended:
        for task in unfinished:
            _end_outlived(draft, task)
    elif not unfinished:
        _follow(draft, facts)
    return draft.change()


def _follow(draft: Draft, facts: SessionFacts) -> None:
    """Nothing of the session is under way: do what should have followed its last task."""
    session = facts.session
    if not facts.tasks:
        _note_idle(draft, session, "Its first task was begun.")
        start_step(draft, session, session.definition.first(), overrides=session.input)
        return
    last = max(facts.tasks, key=lambda task: (task.ended_at or task.created_at, task.id))
    match last.status:
        case TaskStatus.COMPLETED:
            _go_on(draft, facts, last)
        case TaskStatus.CANCELLED:
            _note_idle(draft, session, "Its last task was cancelled, and so it was.")
            session = draft.session(
                session,
                status=SessionStatus.CANCELLED,
                ended_at=draft.ctx.now,
                error={"code": "cancelled", "message": "Its last task was cancelled."},
            )
            draft.session_event(EventType.SESSION_CANCELLED, session)
        case _:
            _note_idle(draft, session, "Its last task had failed, and so it did.")
            fail_session(draft, last, session, last.error or _INTERRUPTED)


def _go_on(draft: Draft, facts: SessionFacts, last: Task) -> None:
    session = facts.session
    following = following_step(last, session)
    if following is not None and any(task.step_id == following.task_id for task in facts.tasks):
        # Its own end should have led on; to begin it once more would be to do it twice.
        _note_idle(draft, session, "Where to go on cannot be told, so it failed.")
        fail_session(draft, last, session, _INTERRUPTED)
        return
    _note_idle(draft, session, "What follows its last task was begun.")
    go_on_after(draft, last, draft.session(session, **with_result(session, last, last.result)))


def _note_idle(draft: Draft, session: WorkflowSession, message: str) -> None:
    said = f"It was not ended, but none of its tasks was waiting or under way. {message}"
    draft.session_event(EventType.STORAGE_REPAIRED, session, found="nothing_pending", message=said)
