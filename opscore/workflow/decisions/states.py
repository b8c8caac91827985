"""What a state report says of its agent: the state itself, its time, and whether to give work."""

from dataclasses import dataclass
from datetime import UTC, datetime
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
    Task,
    normalise_state,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft


@dataclass(frozen=True, slots=True)
class Settled:
    """A report's time, made comparable.

    Out of order: older than the agent's newest, but near. Repeated: it is the newest once more.
    """

    timestamp: datetime
    corrected: bool = False
    out_of_order: bool = False
    repeated: bool = False


def settle_time(agent: Agent, report: StateReport, ctx: Context) -> Settled:
    """Trust the agent's clock within limits; beyond them the receive time replaces it."""
    if report.timestamp is None:
        return Settled(ctx.wall)
    said = report.timestamp
    newest = agent.state.timestamp if agent.state else None
    if said > ctx.wall + ctx.policy.clock_ahead_limit:
        return Settled(ctx.wall, corrected=True)
    if said < (newest or ctx.wall) - ctx.policy.out_of_order_window:
        return Settled(ctx.wall, corrected=True)
    return Settled(
        said.astimezone(UTC),
        out_of_order=newest is not None and said < newest,
        repeated=agent.state is not None and _is_same(agent.state, report),
    )


def _is_same(newest: AgentState, report: StateReport) -> bool:
    return (
        newest.timestamp == report.timestamp
        and newest.state == report.state
        and newest.details == report.details
    )


def record_state(
    draft: Draft, facts: AgentFacts, report: StateReport, settled: Settled, task: Task | None
) -> None:
    """Keep the report in the history and, if it is news, as the agent's state."""
    agent = facts.agent
    word = normalise_state(report.state)
    changes: dict[str, Any] = {"last_seen_at": draft.ctx.now, "missed_deadlines": 0}
    if agent.standing is Standing.LOST:
        changes |= {
            "standing": Standing.REGISTERED,
            "standing_since": draft.ctx.now,
            "standing_reason": None,
            "delivery_failures": 0,
        }
        draft.event(EventType.AGENT_RETURNED, agent_id=agent.id)
    if not settled.out_of_order and not settled.repeated:
        changes["state"] = _state(draft, report, word, settled)
        # What is said of a named task speaks of that task, even when it is too late to count.
        is_of_task = facts.named is not None
        has_work = task is not None or bool(facts.in_flight) or is_of_task
        changes["hold"] = _hold(agent, word, has_work, draft.ctx)
    draft.agent(draft.latest(agent), **changes)
    draft.event(
        EventType.AGENT_STATE,
        agent_id=agent.id,
        session_id=task.session_id if task else None,
        task_id=task.id if task else None,
        **_history(draft, report, word, settled),
    )


def take_early_report(draft: Draft, agent: Agent, report: StateReport) -> None:
    """A report that came before the registration counts as soon as the agent is known."""
    settled = settle_time(agent, report, draft.ctx)
    record_state(draft, AgentFacts(agent), report, settled, None)


def _state(draft: Draft, report: StateReport, word: StateWord, settled: Settled) -> AgentState:
    return AgentState(
        state=report.state,
        word=word,
        details=report.details,
        timestamp=settled.timestamp,
        received_at=draft.ctx.wall,
        clock_corrected=settled.corrected,
    )


def _history(
    draft: Draft, report: StateReport, word: StateWord, settled: Settled
) -> dict[str, Any]:
    data: dict[str, Any] = {
        "state": report.state,
        "word": word.value,
        "timestamp": settled.timestamp.isoformat(),
    }
    if report.size > draft.ctx.policy.history_details_limit:
        data["detailsOmitted"] = True
    else:
        data["details"] = report.details
    if settled.corrected:
        data["clockCorrected"] = True
    if settled.out_of_order:
        data["outOfOrder"] = True
    if settled.repeated:
        data["repeated"] = True
    return data


def _hold(agent: Agent, word: StateWord, has_work: bool, ctx: Context) -> Hold | None:
    """Whether the agent, by its own word, should be left alone. Its work may explain the word."""
    match word:
        case StateWord.IDLE | StateWord.FINISHED:
            return None
        case StateWord.ACTIVE:
            # Silence after this would otherwise keep the agent out of work for ever.
            reason, until = HoldReason.REPORTED_ACTIVE, ctx.now + ctx.policy.active_hold
            return None if has_work else _held(agent, reason, ctx, until)
        case StateWord.INITIALIZING:
            reason, until = HoldReason.REPORTED_INITIALIZING, ctx.now + ctx.policy.active_hold
            return _held(agent, reason, ctx, until)
        case StateWord.ERROR:
            return None if has_work else _held(agent, HoldReason.REPORTED_ERROR, ctx)
        case StateWord.OFFLINE:
            return _held(agent, HoldReason.REPORTED_OFFLINE, ctx)
        case StateWord.UNKNOWN:
            return agent.hold


def _held(agent: Agent, reason: HoldReason, ctx: Context, until: datetime | None = None) -> Hold:
    since = agent.hold.since if agent.hold and agent.hold.reason is reason else ctx.now
    return Hold(reason, since, until)
