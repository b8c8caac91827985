"""Decisions that time takes."""

from datetime import datetime

from opscore.models import (
    Agent,
    Change,
    Delivery,
    EventType,
    Failure,
    FailureCode,
    SessionFacts,
    SessionStatus,
    Standing,
    TaskFacts,
    TaskStatus,
    answers_for,
)
from opscore.workflow.decisions.agents import note_missed_deadline
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.direct import can_go_direct, go_direct
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.outcomes import accept_attempt
from opscore.workflow.decisions.steps import (
    cancel_tasks,
    enqueue_task,
    handle_task_failure,
    requeue,
)
from opscore.workflow.retry import pause_after_lost_lease


def on_task_due(facts: TaskFacts, ctx: Context) -> Change:
    """Whatever of the task's timers has passed; nothing if none has."""
    draft = Draft(ctx, facts.agent)
    task = facts.task
    if task.status.waiting:
        _wake_or_give_up(draft, facts)
    elif _passed(task.run_deadline, ctx):
        _not_finished(draft, facts)
    elif _passed(task.start_deadline, ctx):
        _not_started(draft, facts)
    elif _passed(task.lease_until, ctx):
        _lose_lease(draft, facts)
    return draft.change()


def _passed(moment: datetime | None, ctx: Context) -> bool:
    return moment is not None and moment <= ctx.now


def _wake_or_give_up(draft: Draft, facts: TaskFacts) -> None:
    task = facts.task
    if _passed(task.queue_deadline, draft.ctx):
        message = "No agent was free for the task before its queueTimeout."
        failure = Failure(FailureCode.QUEUE_TIMEOUT, message, terminal=True)
        handle_task_failure(draft, task, facts.session, failure)
    elif task.status is TaskStatus.DELAYED and _passed(task.delayed_until, draft.ctx):
        enqueue_task(draft, task, facts.session)


def _not_started(draft: Draft, facts: TaskFacts) -> None:
    message = "The task was accepted, but its agent showed no sign of life in time."
    _miss(draft, facts, Failure(FailureCode.START_TIMEOUT, message))


def _not_finished(draft: Draft, facts: TaskFacts) -> None:
    message = "The agent did not finish before the deadline."
    _miss(draft, facts, Failure(FailureCode.RUN_TIMEOUT, message))


def _miss(draft: Draft, facts: TaskFacts, failure: Failure) -> None:
    """After AgentKit's acceptance and silence, try the agent itself before the attempt fails."""
    task = facts.task
    if facts.agent is not None and _agent_is_to_blame(facts, draft.ctx):
        note_missed_deadline(draft, facts.agent)
    if task.active_at is None and can_go_direct(task, facts.agent, draft.ctx):
        go_direct(draft, facts, failure, silent_forward=task.agent_id)
    else:
        handle_task_failure(draft, task, facts.session, failure)


def _agent_is_to_blame(facts: TaskFacts, ctx: Context) -> bool:
    """Silence proves nothing against an agent that perhaps was never given the task."""
    task = facts.task
    is_given = task.via is Delivery.DIRECT or task.active_at is not None
    return is_given or ctx.forwards_reach(facts.agent)


def _lose_lease(draft: Draft, facts: TaskFacts) -> None:
    """The dispatcher that had the task is gone. Whether the message got out is not known."""
    task = facts.task
    if task.status is TaskStatus.RUNNING or task.early is not None:
        accept_attempt(draft, facts, task)
        return
    lost = task.lost_leases + 1
    if lost >= draft.ctx.policy.lost_leases_limit:
        message = f"{lost} dispatchers were lost while they had the task."
        failure = Failure(FailureCode.LEASE_LOST, message, terminal=True)
        handle_task_failure(draft, draft.task(task, lost_leases=lost), facts.session, failure)
        return
    failure = Failure(FailureCode.LEASE_LOST, "The dispatcher that had the task was lost.")
    pause = pause_after_lost_lease(task, lost)
    # On which channel the message went, if it went, is not known.
    requeue(draft, facts, failure, pause, lost_leases=lost, sent_directly=True)


def on_session_due(facts: SessionFacts, ctx: Context) -> Change:
    draft = Draft(ctx, *facts.agents)
    session = facts.session
    if not session.status.ended and _passed(session.deadline_at, ctx):
        cancel_tasks(draft, facts.tasks, "the session's deadline passed")
        message = "The session did not end before its deadline."
        session = draft.session(
            session,
            status=SessionStatus.TIMED_OUT,
            ended_at=ctx.now,
            error={"code": "session_timeout", "message": message},
        )
        draft.session_event(EventType.SESSION_TIMED_OUT, session)
    return draft.change()


def on_stranded(facts: TaskFacts, wanted: Agent | None, ctx: Context) -> Change:
    """The only agent that could do the task was deregistered, unless it is back by now.

    `wanted` is that agent, or the last of those that it went on as. One that has had too many ids
    since then to answer for this one gets the task under its own.
    """
    draft = Draft(ctx, facts.agent)
    task = facts.task
    if wanted is None or task.wanted_agent is None or not task.status.waiting:
        return draft.change()
    if wanted.standing is Standing.DEREGISTERED:
        message = "The agent that the task was for was deregistered."
        failure = Failure(FailureCode.AGENT_GONE, message, terminal=True)
        handle_task_failure(draft, task, facts.session, failure)
    elif not answers_for(wanted, task.wanted_agent):
        draft.task(task, wanted_agent=wanted.id)
    return draft.change()
