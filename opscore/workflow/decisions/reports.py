"""Decisions about what agents say of their tasks."""

from dataclasses import replace
from typing import Any

from opscore.models import (
    AgentFacts,
    Change,
    EarlyReports,
    EventType,
    OpenEntry,
    Standing,
    StateReport,
    StateWord,
    Task,
    TaskFacts,
    TaskResult,
    TaskStatus,
    WorkflowSession,
    normalise_state,
)
from opscore.workflow.decisions.attribution import Attribution, Effect, attribute, is_in_doubt
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.open_entries import holding, leave_unsettled
from opscore.workflow.decisions.report_contents import agent_error, error_of, result_of
from opscore.workflow.decisions.report_times import settle_time
from opscore.workflow.decisions.signs_of_life import note_sign_of_life
from opscore.workflow.decisions.states import record_state
from opscore.workflow.decisions.steps import (
    complete_task,
    handle_task_failure,
    set_session_running,
)

# --- state reports ----------------------------------------------------------------------------


def on_state_report(facts: AgentFacts, report: StateReport, ctx: Context) -> Change:
    """Record the report, and do to the task that it speaks of what it says."""
    draft = Draft(ctx, facts.agent)
    when = settle_time(facts.agent, report, ctx)
    taken = attribute(facts, report, when, ctx)
    record_state(draft, facts, report, when, taken)
    if taken.subject is not None:
        if taken.by_id or taken.effect is not Effect.NONE:
            note_sign_of_life(draft, taken.subject.task, facts.agent)
        _carry_out(draft, taken.subject, report, taken)
    elif taken.late is not None:
        note_late(draft, taken.late, facts.agent.id, report.state)
    elif taken.entry is not None:
        _note_entry(draft, taken.entry, facts.agent.id, report.state)
    draft.uncounted = taken.uncounted or _unless_moving(facts, taken)
    return draft.change()


_DEREGISTERED = (
    "The agent was deregistered: its reports are kept, but it gets no tasks until it registers "
    "again."
)


def _unless_moving(facts: AgentFacts, taken: Attribution) -> str | None:
    """Tell a deregistered agent what its reports mean; one that ends its last task counts."""
    is_gone = facts.agent.standing is Standing.DEREGISTERED
    return _DEREGISTERED if is_gone and taken.subject is None else None


def _carry_out(draft: Draft, subject: TaskFacts, report: StateReport, taken: Attribution) -> None:
    task, session = subject.task, subject.session
    if not taken.by_id and task.accepted_at is None:
        _keep_early(draft, task, report, taken.effect)
        return
    match taken.effect:
        case Effect.ACTIVE:
            mark_active(draft, task, session)
        case Effect.COMPLETE:
            complete_task(draft, task, session, result_of(report.details))
        case Effect.FAIL if task.status.in_flight:
            handle_task_failure(draft, task, session, agent_error(error_of(report.details)))
        case Effect.FAIL:
            note_late(draft, task, report.agent_id, report.state)
        case Effect.NONE:
            pass


def _keep_early(draft: Draft, task: Task, report: StateReport, effect: Effect) -> None:
    """Keep what was said without an id before the acceptance; the first ending stands."""
    early = task.early or EarlyReports()
    if effect is Effect.ACTIVE:
        early = replace(early, active_at=early.active_at or draft.ctx.now)
    elif early.state is None:
        early = replace(early, state=report.state, details=report.details)
    draft.task(task, early=early)


def apply_early_reports(draft: Draft, task: Task, session: WorkflowSession) -> None:
    """Do to an accepted task what its agent reported before the acceptance."""
    early = task.early
    if early is None:
        return
    task = draft.task(task, early=None)
    if early.active_at is not None:
        task, session = mark_active(draft, task, session)
    if early.state is None:
        return
    if normalise_state(early.state) is StateWord.ERROR:
        handle_task_failure(draft, task, session, agent_error(error_of(early.details)))
    else:
        complete_task(draft, task, session, result_of(early.details))


def mark_active(draft: Draft, task: Task, session: WorkflowSession) -> tuple[Task, WorkflowSession]:
    now = draft.ctx.now
    if task.status.waiting:
        note_late(draft, task, task.agent_id, StateWord.ACTIVE.value)
        return task, session
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
    return task, set_session_running(draft, session)


# --- precise reports --------------------------------------------------------------------------


def on_task_result(facts: TaskFacts, report: TaskResult, ctx: Context) -> Change:
    """`POST task/{id}/result`: this task ended like this."""
    draft = Draft(ctx, facts.agent)
    task = facts.task
    verdict = "completed" if report.succeeded else "failed"
    if not _counts(task, report.attempt, report.succeeded):
        note_late(draft, task, task.agent_id, verdict)
        return draft.change()
    if report.attempt is not None:
        # Without one it may be an operator's, who says nothing of how the agent is reached.
        note_sign_of_life(draft, task, facts.agent)
    _touch_agent(draft, task, is_agents=report.attempt is not None)
    if report.succeeded:
        complete_task(draft, task, facts.session, report.result)
    else:
        handle_task_failure(draft, task, facts.session, agent_error(report.error))
    return draft.change()


def _counts(task: Task, attempt: int | None, succeeded: bool) -> bool:
    """A failure counts for a running attempt, a success also for one given up in doubt."""
    if task.attempt == 0 or (attempt is not None and attempt != task.attempt):
        return False
    return task.status.in_flight or (succeeded and is_in_doubt(task))


def on_heartbeat(facts: TaskFacts, progress: Any, attempt: int | None, ctx: Context) -> Change:
    """`POST task/{id}/heartbeat`: the task is alive; its run deadline stands."""
    draft = Draft(ctx, facts.agent)
    task = facts.task
    if not task.status.in_flight or (attempt is not None and attempt != task.attempt):
        note_late(draft, task, task.agent_id, "heartbeat")
        return draft.change()
    note_sign_of_life(draft, task, facts.agent)
    task, _ = mark_active(draft, task, facts.session)
    if progress is not None:
        task = draft.task(task, progress=progress)
        draft.task_event(EventType.TASK_HEARTBEAT, task, progress=draft.bounded(progress))
    _touch_agent(draft, task, is_agents=True)
    return draft.change()


def _touch_agent(draft: Draft, task: Task, *, is_agents: bool) -> None:
    """Note a precise report at the agent that has the task.

    A report that gives the attempt is the agent's own, and such an agent names its tasks. One
    without may be an operator's: an agent that is known to name none did not send it and works
    on.
    """
    agent = draft.agent_by_id(task.agent_id)
    if agent is None:
        return
    if agent.names_tasks is False and not is_agents:
        leave_unsettled(draft, task)
        return
    names = True if is_agents else agent.names_tasks
    draft.agent(
        agent,
        last_seen_at=draft.ctx.now,
        missed_deadlines=0,
        names_tasks=names,
        open_entries=holding(agent.open_entries, names) if is_agents else agent.open_entries,
    )


# --- late ones --------------------------------------------------------------------------------


def note_late(draft: Draft, task: Task, agent_id: str | None, said: str) -> None:
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


def _note_entry(draft: Draft, entry: OpenEntry, agent_id: str, said: str) -> None:
    """The end of an attempt that was taken back is late; an echo says nothing new."""
    ends = normalise_state(said) is not StateWord.ACTIVE
    if ends and not entry.kind.is_echo:
        draft.event(
            EventType.TASK_LATE,
            agent_id=agent_id,
            session_id=entry.session_id,
            task_id=entry.task_id,
            stepId=entry.step_id,
            attempt=entry.attempt,
            said=said,
            status=entry.kind.value,
        )
