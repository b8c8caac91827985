"""What failed deliveries say of agents: unknown to AgentKit, resting, lost."""

from typing import Any

import pytest

from opscore.models import (
    Accepted,
    Agent,
    Answered,
    Change,
    Delivery,
    DispatchMode,
    Failure,
    FailureCode,
    FallbackResult,
    Hold,
    HoldReason,
    MessageType,
    Outcome,
    SessionStatus,
    Standing,
    Task,
    TaskStatus,
    WorkflowSession,
)
from opscore.workflow.decisions import on_outcome
from tests.builders import (
    AGENT,
    NOW,
    OWNER,
    agent,
    at,
    became,
    context,
    dispatched,
    seconds,
    session,
    step,
    task_facts,
    types,
)

KIT, DIRECT = Delivery.AGENTKIT, Delivery.DIRECT


def settle(
    one: Task,
    outcome: Outcome,
    via: Delivery = KIT,
    *,
    where: WorkflowSession | None = None,
    who: Agent | None = None,
    probe: bool = False,
    **changes: Any,
) -> Change:
    facts = task_facts(one, session=where or session(), agent=who or agent())
    return on_outcome(facts, one.attempt, OWNER, via, outcome, context(**changes), probe)


def failure(code: FailureCode, **changes: Any) -> Failure:
    return Failure(code, "It went wrong.", **changes)


# --- an agent that AgentKit does not know -------------------------------------------------------

GONE = failure(FailureCode.AGENT_UNKNOWN, status=404)


def not_found_until_lost(one: Task) -> tuple[list[float], Change]:
    """Ask again as often as is said; the waits in between, and the last change."""
    waits: list[float] = []
    while True:
        change = settle(one, GONE, mode=DispatchMode.AGENTKIT)
        after = change.tasks[0]
        if after.status is not TaskStatus.DELAYED:
            return waits, change
        assert after.delayed_until is not None
        waits.append((after.delayed_until - NOW).total_seconds())
        assert (after.retries, change.agents) == (0, ())
        one = dispatched(
            attempt=after.attempt + 1,
            not_found=after.not_found,
            wanted_agent=after.wanted_agent,
            wanted_capability=after.wanted_capability,
        )


def test_F30_an_unknown_agent_is_asked_for_three_times_and_then_lost() -> None:
    waits, change = not_found_until_lost(dispatched())
    assert len(waits) == 3
    assert sum(waits) <= 60
    lost = change.agents[0]
    assert (lost.standing, lost.standing_since) == (Standing.LOST, NOW)
    assert lost.standing_reason == "AgentKit does not know it any more"
    assert "agent.deregistered" not in types(change.events)
    assert became(change) == "failed"
    assert change.tasks[0].error is not None
    assert change.tasks[0].error["code"] == "agent_unknown"


def test_F30_a_task_for_a_capability_fails_over() -> None:
    wish = {"wanted_agent": None, "wanted_capability": "research"}
    waits, change = not_found_until_lost(dispatched(**wish))
    one = change.tasks[0]
    assert len(waits) == 3
    assert (one.status, one.retries, one.not_found) == (TaskStatus.QUEUED, 0, 0)
    assert (one.lane, one.preferred_agent) == ("capability:research", None)
    assert change.agents[0].standing is Standing.LOST
    assert change.sessions[0].status is SessionStatus.WAITING
    assert types(change.events) == ["agent.lost", "task.attempt_failed", "task.queued"]


def test_F30_a_task_for_one_agent_falls_back() -> None:
    where = session(step(fallback=FallbackResult(1)))
    change = settle(dispatched(not_found=3), GONE, where=where, mode=DispatchMode.AGENTKIT)
    assert (became(change), change.agents[0].standing) == ("completed", Standing.LOST)


def test_F30_without_a_known_agent_the_task_fails_all_the_same() -> None:
    facts = task_facts(dispatched(not_found=3), agent=None)
    change = on_outcome(facts, 1, OWNER, KIT, GONE, context())
    assert (became(change), change.agents) == ("failed", ())


TOOL = {"message_type": MessageType.TOOL_INVOCATION, "tool_name": "calc"}


@pytest.mark.fault("F125")
@pytest.mark.parametrize("mode", list(DispatchMode))
@pytest.mark.parametrize("asked", range(6))
def test_unknown_agent_of_a_tool_step_fails_that_step_alone(asked: int, mode: DispatchMode) -> None:
    change = settle(dispatched(not_found=asked, **TOOL), GONE, mode=mode)
    one = change.tasks[0]
    assert change.agents == ()
    assert (one.status, one.retries) == (TaskStatus.DELAYED, 0 if asked < 3 else 1)


@pytest.mark.fault("F102")
def test_unknown_agent_with_an_endpoint_is_tried_directly_before_it_counts_as_lost() -> None:
    change = settle(dispatched(), GONE, probe_interval=seconds(60))
    one, who = change.tasks[0], change.agents[0]
    assert (one.status, one.prefer_direct, one.retries) == (TaskStatus.QUEUED, True, 0)
    assert (one.preferred_agent, one.silent_forward) == (AGENT, None)
    assert (who.standing, who.prefer_direct_until) == (Standing.REGISTERED, at(60))


def test_failed_direct_delivery_gives_agentkit_its_chance_again() -> None:
    who = agent(prefer_direct_until=at(60))
    change = settle(dispatched(), failure(FailureCode.UNREACHABLE), DIRECT, who=who)
    assert change.agents[0].prefer_direct_until is None


# --- failed at the agent ----------------------------------------------------------------------

AT_FAULT = [
    FailureCode.UNREACHABLE,
    FailureCode.OUTCOME_UNKNOWN,
    FailureCode.UPSTREAM_ERROR,
    FailureCode.TLS,
    FailureCode.REDIRECTED,
    FailureCode.FORBIDDEN_ENDPOINT,
]


@pytest.mark.parametrize("code", AT_FAULT)
def test_a_failed_direct_delivery_costs_a_retry_and_is_counted(code: FailureCode) -> None:
    change = settle(dispatched(), failure(code), DIRECT)
    assert (became(change), change.tasks[0].retries) == ("delayed", 1)
    assert change.agents[0].delivery_failures == 1
    assert change.agents[0].hold is None


@pytest.mark.parametrize(
    "code", [FailureCode.AGENT_ERROR, FailureCode.REJECTED, FailureCode.THROTTLED]
)
def test_an_agent_that_answers_at_all_was_reached(code: FailureCode) -> None:
    change = settle(dispatched(), failure(code), DIRECT, who=agent(delivery_failures=4))
    assert change.agents[0].delivery_failures == 0


def test_message_that_a_shutdown_broke_off_is_not_counted_against_its_agent() -> None:
    """An agent that works long before it answers must not be lost because of a deployment."""
    who = agent(delivery_failures=7)
    broken_off = failure(FailureCode.OUTCOME_UNKNOWN, free=True)
    change = settle(dispatched(), broken_off, DIRECT, who=who)
    assert (became(change), change.tasks[0].retries) == ("delayed", 0)
    (one,) = change.agents
    assert (one.delivery_failures, one.standing) == (7, Standing.REGISTERED)


def test_an_agent_without_an_address_is_not_counted_as_failing() -> None:
    assert settle(dispatched(), failure(FailureCode.NO_ENDPOINT), DIRECT).agents == ()


@pytest.mark.parametrize(
    ("before", "after", "held", "standing"),
    [
        (3, 4, False, Standing.REGISTERED),
        (4, 5, True, Standing.REGISTERED),
        (6, 7, True, Standing.REGISTERED),
        (7, 8, False, Standing.LOST),
    ],
)
def test_F23_after_failures_in_a_row_the_agent_rests_and_then_is_lost(
    before: int, after: int, held: bool, standing: Standing
) -> None:
    who = agent(delivery_failures=before)
    change = settle(dispatched(), failure(FailureCode.UNREACHABLE), DIRECT, who=who)
    one = change.agents[0]
    assert (one.delivery_failures, one.standing, one.rev) == (after, standing, 2)
    assert one.hold == (Hold(HoldReason.DELIVERY_FAILING, NOW, at(30)) if held else None)
    assert ("agent.held" in types(change.events)) is held
    assert ("agent.lost" in types(change.events)) is (standing is Standing.LOST)
    if standing is Standing.LOST:
        assert one.standing_reason == "8 deliveries in a row failed"


def test_F29_refused_credentials_make_the_agent_rest_at_once() -> None:
    change = settle(dispatched(), failure(FailureCode.UNAUTHORIZED), DIRECT)
    assert change.agents[0].delivery_failures == 5
    assert change.agents[0].hold == Hold(HoldReason.DELIVERY_FAILING, NOW, at(30))
    assert change.events[0].data == {"reason": "delivery_failing", "until": at(30).isoformat()}


def test_a_hold_of_another_reason_stays() -> None:
    hold = Hold(HoldReason.REPORTED_OFFLINE, at(-5))
    who = agent(delivery_failures=5, hold=hold)
    change = settle(dispatched(), failure(FailureCode.UNREACHABLE), DIRECT, who=who)
    assert change.agents[0].hold == hold
    assert "agent.held" not in types(change.events)


def test_a_failed_direct_delivery_of_an_agent_that_is_gone() -> None:
    facts = task_facts(dispatched(), agent=None)
    change = on_outcome(facts, 1, OWNER, DIRECT, failure(FailureCode.UNREACHABLE), context())
    assert (became(change), change.agents) == ("delayed", ())


@pytest.mark.parametrize("outcome", [Accepted(), Answered(1)])
@pytest.mark.parametrize(("via", "after"), [(DIRECT, 0), (KIT, 6)])
def test_a_direct_delivery_that_works_ends_the_count(
    outcome: Outcome, via: Delivery, after: int
) -> None:
    who = agent(delivery_failures=6)
    agents = settle(dispatched(), outcome, via, who=who).agents
    assert [one.delivery_failures for one in agents or (who,)] == [after]


ON_TRIAL = agent(delivery_failures=6, concurrency=3, on_trial=True)


def test_accepted_delivery_does_not_end_a_trial() -> None:
    after = settle(dispatched(), Accepted(), DIRECT, who=ON_TRIAL).agents[0]
    assert (after.on_trial, after.delivery_failures) == (True, 0)


def test_result_of_an_agent_on_trial_ends_the_trial_and_gives_its_slots_back() -> None:
    change = settle(dispatched(), Answered(1), DIRECT, who=ON_TRIAL)
    assert not change.agents[0].on_trial
    assert change.may_ready


def test_fallback_result_does_not_end_a_trial() -> None:
    where = session(step(fallback=FallbackResult(1)))
    rejected = failure(FailureCode.REJECTED, terminal=True)
    change = settle(dispatched(), rejected, DIRECT, who=ON_TRIAL, where=where)
    assert became(change) == "completed"
    assert change.agents[0].on_trial


def test_trial_begins_with_the_rest_after_failed_deliveries() -> None:
    change = settle(
        dispatched(), failure(FailureCode.UNREACHABLE), DIRECT, who=agent(delivery_failures=4)
    )
    assert change.agents[0].on_trial


def test_agent_on_trial_that_agentkit_still_does_not_know_is_lost_and_its_task_waits() -> None:
    change = settle(dispatched(), GONE, who=ON_TRIAL, mode=DispatchMode.AGENTKIT)
    assert change.agents[0].standing is Standing.LOST
    assert (change.tasks[0].status, change.tasks[0].retries) == (TaskStatus.QUEUED, 0)
