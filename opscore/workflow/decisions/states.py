"""What a state report says of its agent: the state itself, its time, and whether to give work."""

from datetime import datetime
from typing import Any

from opscore.models import (
    Agent,
    AgentFacts,
    AgentState,
    EventType,
    Hold,
    HoldReason,
    Standing,
    StateReport,
    StateWord,
    normalise_state,
)
from opscore.workflow.decisions.attribution import Attribution, Effect, attribute
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.open_entries import holding
from opscore.workflow.decisions.report_contents import remember
from opscore.workflow.decisions.report_times import ReportTime, settle_time
from opscore.workflow.decisions.trials import TRIAL_ENDED


def record_state(
    draft: Draft, facts: AgentFacts, report: StateReport, when: ReportTime, taken: Attribution
) -> None:
    """Keep the report in the history and, if it is news, as the agent's state."""
    agent = facts.agent
    changes: dict[str, Any] = {"last_seen_at": draft.ctx.now, "missed_deadlines": 0}
    if agent.standing is Standing.LOST:
        changes |= {
            "standing": Standing.REGISTERED,
            "standing_since": draft.ctx.now,
            "standing_reason": None,
            **TRIAL_ENDED,
        }
        draft.event(EventType.AGENT_RETURNED, agent_id=agent.id)
    changes |= _remembered(agent, when, taken)
    word = normalise_state(report.state)
    if when.repeated:
        changes["hold"] = _hold_of_repeated(agent, word, draft.ctx)
    elif not when.out_of_order:
        changes["state"] = _state(draft, report, word, when)
        if agent.on_trial and word in (StateWord.IDLE, StateWord.FINISHED):
            changes |= TRIAL_ENDED
        changes["hold"] = _hold_of(facts, word, taken, draft.ctx)
    draft.agent(draft.latest(agent), **changes)
    task = taken.subject.task if taken.subject else None
    draft.event(
        EventType.AGENT_STATE,
        agent_id=agent.id,
        session_id=task.session_id if task else None,
        task_id=task.id if task else None,
        **_history(draft, report, word, when, taken),
    )


def _remembered(agent: Agent, when: ReportTime, taken: Attribution) -> dict[str, Any]:
    """Return the changes of the agent's record besides its state and hold."""
    names = agent.names_tasks
    if taken.by_id and (taken.subject or taken.late):
        names = True
    elif taken.effect in (Effect.COMPLETE, Effect.FAIL) or taken.entry is not None:
        names = False
    entries = taken.open_entries
    if names is not None and entries:
        entries = holding(entries, names)
    changes: dict[str, Any] = {}
    if names is not agent.names_tasks:
        changes["names_tasks"] = names
    if entries != agent.open_entries:
        changes["open_entries"] = entries
    if not when.repeated:
        changes["recent_reports"] = remember(when.digest, agent.recent_reports)
    return changes


def _hold_of(facts: AgentFacts, word: StateWord, taken: Attribution, ctx: Context) -> Hold | None:
    """A report that names an unknown task is history: it neither holds nor releases the agent."""
    if taken.by_id and facts.named is None:
        return facts.agent.hold
    # A report about a known task speaks of that task, even when it is too late to count.
    explained = taken.subject or taken.entry or facts.in_flight or facts.named
    return _hold(facts.agent, word, bool(explained), ctx)


def _hold_of_repeated(agent: Agent, word: StateWord, ctx: Context) -> Hold | None:
    """`active` once more holds a busy agent for longer, though nothing else in it is new."""
    hold = agent.hold
    if hold is None or word is not StateWord.ACTIVE:
        return hold
    if hold.reason is not HoldReason.REPORTED_ACTIVE:
        return hold
    return _hold(agent, word, has_work=False, ctx=ctx)


def take_early_report(draft: Draft, agent: Agent, report: StateReport) -> None:
    """A report that came before the registration counts as soon as the agent is known."""
    facts = AgentFacts(agent)
    when = settle_time(agent, report, draft.ctx)
    record_state(draft, facts, report, when, attribute(facts, report, when, draft.ctx))


def _state(draft: Draft, report: StateReport, word: StateWord, when: ReportTime) -> AgentState:
    return AgentState(
        state=report.state,
        word=word,
        details=report.details,
        timestamp=when.timestamp,
        received_at=draft.ctx.wall,
        clock_corrected=when.corrected,
    )


def _history(
    draft: Draft, report: StateReport, word: StateWord, when: ReportTime, taken: Attribution
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "state": report.state,
        "word": word.value,
        "timestamp": when.timestamp.isoformat(),
    }
    if report.size > draft.ctx.policy.history_details_limit:
        data["detailsOmitted"] = True
    else:
        data["details"] = report.details
    if when.corrected:
        data["clockCorrected"] = True
    if when.out_of_order:
        data["outOfOrder"] = True
    if when.repeated:
        data["repeated"] = True
    if taken.entry is not None:
        data["takenFor"] = taken.entry.kind.value
        data["takenForTask"] = taken.entry.task_id
    return data


def _hold(agent: Agent, word: StateWord, has_work: bool, ctx: Context) -> Hold | None:
    """Return the hold that the agent's own word asks for. Its work may explain the word."""
    match word:
        case StateWord.IDLE | StateWord.FINISHED:
            return None
        case StateWord.ACTIVE:
            # Silence after this would otherwise keep the agent out of work for ever.
            reason, until = HoldReason.REPORTED_ACTIVE, ctx.now + ctx.policy.active_hold
            return None if has_work else _held(agent, reason, ctx, until)
        case StateWord.INITIALIZING:
            reason, until = (
                HoldReason.REPORTED_INITIALIZING,
                ctx.now + ctx.policy.initializing_hold,
            )
            return _held(agent, reason, ctx, until)
        case StateWord.ERROR:
            # One that speaks only of its work has no other way to say that it is well again.
            until = ctx.now + ctx.policy.error_hold
            return None if has_work else _held(agent, HoldReason.REPORTED_ERROR, ctx, until)
        case StateWord.OFFLINE:
            return _held(agent, HoldReason.REPORTED_OFFLINE, ctx)
        case StateWord.UNKNOWN:
            return agent.hold


def _held(agent: Agent, reason: HoldReason, ctx: Context, until: datetime | None = None) -> Hold:
    since = agent.hold.since if agent.hold and agent.hold.reason is reason else ctx.now
    return Hold(reason, since, until)
