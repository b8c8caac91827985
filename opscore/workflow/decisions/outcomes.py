"""Decisions about how a delivery ended."""

from dataclasses import replace
from datetime import datetime, timedelta

from opscore.models import (
    Accepted,
    Agent,
    Answered,
    Change,
    Delivery,
    DispatchMode,
    EntryKind,
    EventType,
    Failure,
    FailureCode,
    HoldReason,
    MessageType,
    Outcome,
    Policy,
    Task,
    TaskDefinition,
    TaskFacts,
    TaskStatus,
)
from opscore.workflow.decisions.agents import (
    hold_agent,
    lose_agent,
    note_delivery,
    note_delivery_failure,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.direct import can_go_direct, go_direct
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.open_entries import expect_echo, holding
from opscore.workflow.decisions.reports import apply_early_reports, note_late
from opscore.workflow.decisions.signs_of_life import note_sign_of_life
from opscore.workflow.decisions.steps import (
    complete_task,
    handle_task_failure,
    requeue,
    set_session_running,
)

# An agent that AgentKit does not know is asked for again so often and so late: within a minute.
_NOT_FOUND_DELAYS = (timedelta(seconds=5), timedelta(seconds=15), timedelta(seconds=35))

# AgentKit did not take the message, or nobody knows: the agent itself may be there.
_GOES_DIRECT = frozenset(
    {
        FailureCode.UNREACHABLE,
        FailureCode.OUTCOME_UNKNOWN,
        FailureCode.UPSTREAM_ERROR,
        FailureCode.UNAUTHORIZED,
        FailureCode.TLS,
        FailureCode.AGENT_UNKNOWN,
    }
)

_ENDS_WORK = frozenset({FailureCode.AGENT_ERROR, FailureCode.REJECTED})

_NEVER_SENT = frozenset({FailureCode.HOST_BUSY, FailureCode.NOT_SENT})

# Nothing was delivered and the agent is not to blame: the task has lost nothing but time.
_FREE_AT_AGENTKIT = frozenset({FailureCode.UNREACHABLE, FailureCode.UNAUTHORIZED, FailureCode.TLS})


def run_deadline(task: Task, step: TaskDefinition, policy: Policy) -> datetime:
    """Absolute from the moment of dispatch; heartbeats do not move it."""
    return (task.dispatched_at or task.waiting_since) + (step.timeout or policy.run_timeout)


def on_outcome(
    facts: TaskFacts,
    attempt: int,
    owner: str,
    via: Delivery,
    outcome: Outcome,
    ctx: Context,
    probe: bool = False,
) -> Change:
    """`attempt` and `owner` fence: if the task has moved on, the outcome changes nothing."""
    draft = Draft(ctx, facts.agent)
    task = facts.task
    if task.attempt != attempt or task.owner != owner or not task.status.in_flight:
        _note_overtaken(draft, task, attempt, outcome)
        return draft.change()
    task = _as_sent(task, via, facts.agent, ctx)
    match outcome:
        case Accepted(unclear):
            accept_attempt(draft, facts, task)
            if unclear is not None:
                draft.task_event(EventType.TASK_ANSWER_UNCLEAR, task, message=unclear)
        case Answered(result):
            _note_delivered(draft, facts, task)
            _note_answer(draft, task)
            if via is Delivery.DIRECT:
                note_sign_of_life(draft, replace(task, accepted_at=ctx.now), facts.agent)
            complete_task(draft, task, facts.session, result)
        case Failure():
            _fail(draft, facts, task, outcome, probe)
    return draft.change()


def _as_sent(task: Task, via: Delivery, agent: Agent | None, ctx: Context) -> Task:
    """The task with what its message's channel says of it.

    A message that tries again whether AgentKit delivers is a probe: it may well not arrive, so
    what the agent reported meanwhile without an id was about something else. An agent without an
    endpoint has all its tasks from AgentKit, so its reports are about them.
    """
    is_workflow_task = task.message_type is MessageType.WORKFLOW_TASK
    has_other_way = agent is not None and agent.contact_endpoint is not None
    is_doubtful = has_other_way and ctx.forwards_miss(agent)
    is_probe = via is Delivery.AGENTKIT and is_workflow_task and is_doubtful
    return replace(
        task,
        via=via,
        sent_directly=task.sent_directly or via is Delivery.DIRECT,
        is_probe=is_probe,
        early=None if is_probe else task.early,
    )


def _note_overtaken(draft: Draft, task: Task, attempt: int, outcome: Outcome) -> None:
    """Record an answer that would have ended the task; its agent may echo it all the same."""
    if isinstance(outcome, Answered):
        if attempt == task.attempt:
            expect_echo(draft, task, EntryKind.ANSWERED)
        note_late(draft, replace(task, attempt=attempt), task.agent_id, "answered")


def accept_attempt(draft: Draft, facts: TaskFacts, task: Task) -> None:
    """Store that the message was taken, and decide what was reported before that."""
    step = facts.session.definition.task(task.step_id)
    early = task.early.active_at if task.early else None
    alive = task.active_at is not None or early is not None
    task = draft.task(
        task,
        accepted_at=draft.ctx.now,
        lease_until=None,
        run_deadline=run_deadline(task, step, draft.ctx.policy),
        start_deadline=None if alive else _start_deadline(facts, task, draft.ctx),
    )
    draft.task_event(EventType.TASK_ACCEPTED, task, via=task.via)
    if alive:
        note_sign_of_life(draft, task, facts.agent)
    _note_delivered(draft, facts, task)
    session = set_session_running(draft, facts.session)
    apply_early_reports(draft, task, session)


def _start_deadline(facts: TaskFacts, task: Task, ctx: Context) -> datetime | None:
    """The step's own `startTimeout`, or the default where a forward may have been lost.

    An agent that took the message itself has shown its sign of life. The default ends at half of
    the run deadline, so that a direct delivery comes within it.
    """
    step = facts.session.definition.task(task.step_id)
    if step.start_timeout is not None:
        return ctx.now + step.start_timeout if step.start_timeout else None
    is_sure = ctx.policy.mode is DispatchMode.AUTO and ctx.forwards_reach(facts.agent)
    limit = ctx.policy.start_timeout
    if task.via is not Delivery.AGENTKIT or is_sure or not limit:
        return None
    return ctx.now + min(limit, (step.timeout or ctx.policy.run_timeout) / 2)


def _note_delivered(draft: Draft, facts: TaskFacts, task: Task) -> None:
    if task.via is not Delivery.DIRECT:
        return
    if facts.agent is not None:
        note_delivery(draft, facts.agent)


def _note_answer(draft: Draft, task: Task) -> None:
    """An agent that answered a task is alive, counts as available again, and may echo."""
    if task.via is Delivery.DIRECT:
        expect_echo(draft, task, EntryKind.ANSWERED)
    agent = draft.agent_by_id(task.agent_id)
    if agent is None:
        return
    says_busy = agent.hold is not None and agent.hold.reason is HoldReason.REPORTED_ACTIVE
    draft.agent(
        agent,
        last_seen_at=draft.ctx.now,
        missed_deadlines=0,
        hold=None if says_busy else agent.hold,
        open_entries=holding(agent.open_entries, agent.names_tasks),
    )


def _fail(draft: Draft, facts: TaskFacts, task: Task, failure: Failure, probe: bool) -> None:
    if _outlived_doubt(task, failure):
        accept_attempt(draft, facts, task)
        return
    if failure.code in _NEVER_SENT:
        _requeue_unsent(draft, facts, failure)
        return
    if task.via is Delivery.DIRECT:
        if facts.agent is not None:
            note_delivery_failure(draft, facts.agent, failure)
        if _is_answer_after_work(failure):
            expect_echo(draft, task, EntryKind.ANSWERED)
    elif _is_of_agentkit(failure) and can_go_direct(task, facts.agent, draft.ctx):
        _turn_from_agentkit(draft, facts, task, failure)
        return
    elif probe or failure.code in _FREE_AT_AGENTKIT:
        failure = replace(failure, free=True)
    if failure.code is FailureCode.AGENT_UNKNOWN:
        _not_found(draft, facts, task, failure)
    else:
        handle_task_failure(draft, task, facts.session, _timed_out(facts, task, failure, draft.ctx))


def _is_answer_after_work(failure: Failure) -> bool:
    """Return whether the agent answered 2xx that the work failed, or with too large a result."""
    return failure.code in _ENDS_WORK and failure.status is None


def _is_of_agentkit(failure: Failure) -> bool:
    """What is free already was broken off here, or AgentKit asked to wait."""
    return failure.code in _GOES_DIRECT and not failure.free


def _turn_from_agentkit(draft: Draft, facts: TaskFacts, task: Task, failure: Failure) -> None:
    """Send the task straight to its agent, and the following ones if AgentKit lacks the agent."""
    if failure.code is FailureCode.AGENT_UNKNOWN and facts.agent is not None:
        until = draft.ctx.now + draft.ctx.policy.probe_interval
        draft.agent(draft.latest(facts.agent), prefer_direct_until=until)
    go_direct(draft, replace(facts, task=task), failure)


def _requeue_unsent(draft: Draft, facts: TaskFacts, failure: Failure) -> None:
    """The agent has seen nothing. While its host has no room its tasks must not be claimed."""
    if failure.code is FailureCode.HOST_BUSY and facts.agent is not None:
        hold_agent(draft, facts.agent, HoldReason.HOST_BUSY, draft.ctx.policy.host_busy_hold)
    requeue(draft, facts, failure)


def _outlived_doubt(task: Task, failure: Failure) -> bool:
    """The answer got lost, but the agent has reported that it works on the task."""
    has_begun = task.status is TaskStatus.RUNNING or task.early is not None
    return failure.code is FailureCode.OUTCOME_UNKNOWN and has_begun


def _timed_out(facts: TaskFacts, task: Task, failure: Failure, ctx: Context) -> Failure:
    """A message that was under way until the task's deadline is a missed deadline."""
    deadline = run_deadline(task, facts.session.definition.task(task.step_id), ctx.policy)
    if failure.code is FailureCode.OUTCOME_UNKNOWN and ctx.now >= deadline:
        return Failure(FailureCode.RUN_TIMEOUT, "No answer came before the run deadline.")
    return failure


def _not_found(draft: Draft, facts: TaskFacts, task: Task, failure: Failure) -> None:
    """AgentKit does not know the agent: ask again for a minute, then count the agent as lost.

    A tool is called by AgentKit and not by the agent, so a tool step says nothing of the agent.
    """
    tries = task.not_found
    is_on_trial = facts.agent is not None and facts.agent.on_trial
    is_tool = task.message_type is MessageType.TOOL_INVOCATION
    if tries < len(_NOT_FOUND_DELAYS) and (is_tool or not is_on_trial):
        again = replace(failure, free=True, retry_after=_NOT_FOUND_DELAYS[tries])
        task = draft.task(task, not_found=tries + 1)
        handle_task_failure(draft, task, facts.session, again)
        return
    if is_tool:
        handle_task_failure(draft, task, facts.session, failure)
        return
    if facts.agent is not None:
        lose_agent(draft, draft.latest(facts.agent), "AgentKit does not know it any more")
    if task.wanted_capability is None and not is_on_trial:
        handle_task_failure(draft, task, facts.session, replace(failure, terminal=True))
        return
    requeue(draft, replace(facts, task=task), failure, not_found=0, preferred_agent=None)
