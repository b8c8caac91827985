"""Decisions about an agent's place in the registry."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from opscore.exceptions import ConflictError
from opscore.models import (
    BREAKER_THRESHOLD,
    Agent,
    Change,
    EventType,
    Failure,
    FailureCode,
    Hold,
    HoldReason,
    Registration,
    RegistrationFacts,
    Standing,
    WebhookReceipt,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.metadata import check_metadata
from opscore.workflow.decisions.open_entries import still_open
from opscore.workflow.decisions.states import take_early_report
from opscore.workflow.decisions.succession import announcement, settle_name
from opscore.workflow.decisions.trials import TRIAL_ENDED, rest_before_trial, try_lost_agent

_AGENT_AT_FAULT = frozenset(
    {
        FailureCode.UNREACHABLE,
        FailureCode.OUTCOME_UNKNOWN,
        FailureCode.UPSTREAM_ERROR,
        FailureCode.UNAUTHORIZED,
        FailureCode.TLS,
        FailureCode.REDIRECTED,
        FailureCode.FORBIDDEN_ENDPOINT,
    }
)

_AGENT_ANSWERED = frozenset({FailureCode.AGENT_ERROR, FailureCode.REJECTED, FailureCode.THROTTLED})


@dataclass(frozen=True, slots=True)
class Registered:
    """`created`: the agent is new. `ignored`: the announcement is older than its deregistration."""

    change: Change
    created: bool = False
    ignored: bool = False


# --- coming and going -------------------------------------------------------------------------


def register_agent(
    facts: RegistrationFacts,
    registration: Registration,
    ctx: Context,
    receipt: WebhookReceipt | None = None,
) -> Registered:
    """A new agent, or news of a known one."""
    check_metadata(registration.metadata, "an agent")
    draft = Draft(ctx)
    known = facts.agent
    if known is None:
        _welcome(draft, registration, facts)
    elif _is_old_news(known, registration):
        return Registered(replace(draft.change(), receipt=receipt), ignored=True)
    else:
        _refuse_replaced(known, registration)
        agent = _renew(draft, known, registration)
        settle_name(draft, agent, facts, is_new=False)
    return Registered(replace(draft.change(), receipt=receipt), created=known is None)


def _welcome(draft: Draft, registration: Registration, facts: RegistrationFacts) -> None:
    now = draft.ctx.now
    unheard = Hold(HoldReason.NEVER_REPORTED, now)
    agent = Agent(
        id=registration.agent_id,
        name=registration.name or registration.agent_id,
        registered_at=now,
        hold=None if draft.ctx.policy.assume_available else unheard,
        **_given(registration),
        **announcement(draft, registration),
    )
    agent = draft.add_agent(agent)
    shown = _shown(agent) | _noted(registration)
    draft.event(EventType.AGENT_REGISTERED, agent_id=agent.id, **shown)
    agent = settle_name(draft, agent, facts, is_new=True)
    if facts.early_report is not None:
        take_early_report(draft, agent, facts.early_report)


def _renew(draft: Draft, agent: Agent, registration: Registration) -> Agent:
    changes = _given(registration) | announcement(draft, registration)
    if registration.by_agentkit:
        # AgentKit knows the agent again, so the next task may try AgentKit.
        changes["prefer_direct_until"] = None
    if registration.name is not None:
        changes["name"] = registration.name
    returns = agent.standing in (Standing.LOST, Standing.DEREGISTERED)
    if returns:
        changes |= _back_in_service(draft)
        if agent.standing is Standing.DEREGISTERED:
            changes["registered_at"] = draft.ctx.now
    if "contact_endpoint" in changes:
        changes |= TRIAL_ENDED
    agent = draft.agent(agent, **changes)
    type_ = EventType.AGENT_REGISTERED if returns else EventType.AGENT_UPDATED
    draft.event(type_, agent_id=agent.id, **_shown(agent), **_noted(registration))
    return agent


def _back_in_service(draft: Draft) -> dict[str, Any]:
    return {
        "standing": Standing.REGISTERED,
        "standing_since": draft.ctx.now,
        "standing_reason": None,
        "replaced_by": None,
        "hold": None,
        "missed_deadlines": 0,
        **TRIAL_ENDED,
    }


def _is_old_news(agent: Agent, registration: Registration) -> bool:
    """An announcement made before the agent was deregistered does not bring it back."""
    if agent.standing is not Standing.DEREGISTERED or agent.deregistered_at is None:
        return False
    if registration.registration_time is None:
        # AgentKit makes a new id at each registration, so this one is a repetition.
        return registration.by_agentkit and agent.replaced_by is not None
    return registration.registration_time <= agent.deregistered_at


def _refuse_replaced(agent: Agent, registration: Registration) -> None:
    if agent.replaced_by is not None and not registration.by_agentkit:
        raise ConflictError(
            f"The agent goes on as {agent.replaced_by}, under which AgentKit announced it again; "
            "use that id, or register another one."
        )


def _given(registration: Registration) -> dict[str, Any]:
    values = {
        "capabilities": registration.capabilities,
        "version": registration.version,
        "contact_endpoint": registration.contact_endpoint,
        "metadata": registration.metadata,
        "concurrency": registration.concurrency,
    }
    return {key: value for key, value in values.items() if value is not None}


def _shown(agent: Agent) -> dict[str, Any]:
    return {
        "name": agent.name,
        "capabilities": list(agent.capabilities),
        "concurrency": agent.concurrency,
    }


def _noted(registration: Registration) -> dict[str, Any]:
    return {"notes": list(registration.notes)} if registration.notes else {}


def deregister_agent(agent: Agent, ctx: Context, receipt: WebhookReceipt | None = None) -> Change:
    """No new tasks from now on; what is running may finish by its deadline."""
    draft = Draft(ctx)
    if agent.standing is not Standing.DEREGISTERED:
        agent = draft.agent(agent, deregistered_at=ctx.wall)
        _set_standing(draft, agent, Standing.DEREGISTERED, EventType.AGENT_DEREGISTERED, None)
    return replace(draft.change(), receipt=receipt)


def update_agent(
    agent: Agent, changes: Mapping[str, Any], draining: bool | None, ctx: Context
) -> Change:
    """Change fields by hand. Draining: no new tasks, but the agent stays known."""
    if agent.standing is Standing.DEREGISTERED:
        raise ConflictError("The agent was deregistered; register it again with POST agents.")
    check_metadata(changes.get("metadata"), "an agent")
    draft = Draft(ctx)
    changed = {key: value for key, value in changes.items() if getattr(agent, key) != value}
    if changed:
        reset = TRIAL_ENDED if "contact_endpoint" in changed else {}
        agent = draft.agent(agent, **changed, **reset)
        draft.event(EventType.AGENT_UPDATED, agent_id=agent.id, **_shown(agent))
    if draining and agent.standing is not Standing.DRAINING:
        _set_standing(draft, agent, Standing.DRAINING, EventType.AGENT_DRAINING, None)
    if draining is False and agent.standing is not Standing.REGISTERED:
        draft.agent(agent, **_back_in_service(draft))
        draft.event(EventType.AGENT_RETURNED, agent_id=agent.id)
    return draft.change()


def lose_silent_agent(agent: Agent, ctx: Context) -> Change:
    draft = Draft(ctx)
    if agent.on_trial:
        # It was lost for its silence before, and its trial is not over.
        return draft.change()
    lose_agent(draft, agent, "it has been silent for longer than OPSCORE_SILENCE_THRESHOLD allows")
    return draft.change()


def lose_agent(draft: Draft, agent: Agent, reason: str) -> Agent:
    if agent.standing is not Standing.REGISTERED:
        return agent
    agent = draft.agent(agent, **rest_before_trial(draft, agent))
    return _set_standing(draft, agent, Standing.LOST, EventType.AGENT_LOST, reason)


def _set_standing(
    draft: Draft, agent: Agent, standing: Standing, type_: EventType, reason: str | None
) -> Agent:
    agent = draft.agent(
        agent, standing=standing, standing_since=draft.ctx.now, standing_reason=reason
    )
    draft.event(type_, agent_id=agent.id, **({"reason": reason} if reason else {}))
    return agent


# --- what deliveries and deadlines say of an agent --------------------------------------------


def note_delivery_failure(draft: Draft, agent: Agent, failure: Failure) -> None:
    """A direct delivery failed: after a few in a row the agent rests, after more it is lost.

    A failure that spends no retry is no fault of the agent: its message was broken off here.
    """
    if failure.code in _AGENT_ANSWERED:
        note_delivery(draft, agent)
    if failure.free or failure.code not in _AGENT_AT_FAULT:
        return
    policy = draft.ctx.policy
    failures = agent.delivery_failures + 1
    if failure.code is FailureCode.UNAUTHORIZED:
        failures = max(failures, BREAKER_THRESHOLD)
    agent = draft.agent(
        agent,
        delivery_failures=failures,
        prefer_direct_until=None,
        on_trial=agent.on_trial or failures >= BREAKER_THRESHOLD,
    )
    if failures >= policy.lost_after_failed_deliveries:
        lose_agent(draft, agent, f"{failures} deliveries in a row failed")
    elif failures >= BREAKER_THRESHOLD:
        hold_agent(draft, agent, HoldReason.DELIVERY_FAILING, policy.breaker_hold)


def hold_agent(draft: Draft, agent: Agent, reason: HoldReason, duration: timedelta) -> None:
    """Give a registered agent no task for a while, unless it is held already."""
    if agent.hold is not None or agent.standing is not Standing.REGISTERED:
        return
    until = draft.ctx.now + duration
    draft.agent(agent, hold=Hold(reason, draft.ctx.now, until))
    draft.event(
        EventType.AGENT_HELD, agent_id=agent.id, reason=reason.value, until=until.isoformat()
    )


def note_delivery(draft: Draft, agent: Agent) -> None:
    if agent.delivery_failures:
        draft.agent(agent, delivery_failures=0)


def note_missed_deadline(draft: Draft, agent: Agent) -> None:
    missed = agent.missed_deadlines + 1
    agent = draft.agent(agent, missed_deadlines=missed)
    if missed >= draft.ctx.policy.lost_after_missed_deadlines:
        lose_agent(draft, agent, f"{missed} tasks in a row missed their deadlines")


def on_agent_due(agent: Agent, ctx: Context) -> Change:
    """End the holds whose time has come, and try a lost agent again."""
    draft = Draft(ctx, agent)
    is_lost = agent.standing is Standing.LOST
    if is_lost and agent.trial_at is not None and agent.trial_at <= ctx.now:
        agent = try_lost_agent(draft, agent)
    if agent.hold is not None and agent.hold.until is not None and agent.hold.until <= ctx.now:
        reason = agent.hold.reason
        agent = draft.agent(agent, hold=None)
        draft.event(EventType.AGENT_RELEASED, agent_id=agent.id, reason=reason.value)
    if any(entry.holds and entry.until <= ctx.now for entry in agent.open_entries):
        agent = draft.agent(agent, open_entries=still_open(agent.open_entries, ctx.now))
        if not any(entry.holds for entry in agent.open_entries):
            reason = HoldReason.UNSETTLED_ATTEMPT
            draft.event(EventType.AGENT_RELEASED, agent_id=agent.id, reason=reason.value)
    return draft.change()
