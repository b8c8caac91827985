"""An agent's place in the registry: coming, changing, draining, going, getting lost."""

from typing import Any

import pytest

from opscore.models import (
    Agent,
    AgentState,
    Change,
    Hold,
    HoldReason,
    Registration,
    RegistrationFacts,
    Standing,
    StateReport,
    StateWord,
    WebhookReceipt,
)
from opscore.workflow.decisions import (
    Registered,
    deregister_agent,
    lose_silent_agent,
    on_agent_due,
    register_agent,
    update_agent,
)
from tests.builders import AGENT, NOW, agent, at, context, moves, report, types

RECEIPT = WebhookReceipt("signature", at(600))
FULL: dict[str, Any] = {
    "name": "Ada",
    "capabilities": ("x", "y"),
    "version": "2",
    "contact_endpoint": "http://127.0.0.1:9/task",
    "metadata": {"n": 1},
    "concurrency": 3,
}


def register(
    known: Agent | None = None,
    early: StateReport | None = None,
    policy: dict[str, Any] | None = None,
    **given: Any,
) -> Registered:
    facts = RegistrationFacts(known, early_report=early)
    return register_agent(facts, Registration(AGENT, **given), context(**(policy or {})), RECEIPT)


def after(registered: Registered) -> Agent:
    return registered.change.agents[0]


# --- coming -----------------------------------------------------------------------------------


def test_a_new_agent_is_registered_and_available() -> None:
    registered = register(**FULL)
    assert (registered.created, registered.ignored) == (True, False)
    assert after(registered) == Agent(AGENT, registered_at=NOW, rev=1, **FULL)
    assert types(registered.change.events) == ["agent.registered"]
    assert registered.change.events[0].data == {
        "name": "Ada",
        "capabilities": ["x", "y"],
        "concurrency": 3,
    }
    assert registered.change.receipt == RECEIPT
    assert registered.change.may_ready


def test_an_agent_without_a_name_is_called_by_its_id() -> None:
    assert after(register()).name == AGENT
    assert after(register()).concurrency == 1


def test_an_agent_that_never_reported_may_be_left_alone() -> None:
    hold = after(register(policy={"assume_available": False})).hold
    assert hold == Hold(HoldReason.NEVER_REPORTED, NOW)


@pytest.mark.parametrize(
    ("word", "hold"),
    [
        ("idle", None),
        ("active", Hold(HoldReason.REPORTED_ACTIVE, NOW, at(60))),
        ("error", Hold(HoldReason.REPORTED_ERROR, NOW, at(600))),
    ],
)
@pytest.mark.parametrize("assumed", [True, False])
def test_F47_a_report_before_the_registration_counts(
    word: str, hold: Hold | None, assumed: bool
) -> None:
    early = report(word, when=-3, n=1)
    registered = register(early=early, policy={"assume_available": assumed}, **FULL)
    one = after(registered)
    assert one.state is not None
    assert (one.state.state, one.state.timestamp, one.state.details) == (word, at(-3), {"n": 1})
    assert (one.hold, one.last_seen_at, one.rev) == (hold, NOW, 1)
    assert types(registered.change.events) == ["agent.registered", "agent.state"]


# --- coming again -----------------------------------------------------------------------------


def test_F39_a_known_agent_is_updated_and_nothing_else() -> None:
    state = AgentState("active", StateWord.ACTIVE, {}, NOW, NOW)
    hold = Hold(HoldReason.REPORTED_ACTIVE, NOW)
    known = agent(state=state, hold=hold, missed_deadlines=1, last_seen_at=at(-1))
    registered = register(known, **FULL)
    one = after(registered)
    assert (registered.created, registered.ignored) == (False, False)
    assert {name: getattr(one, name) for name in FULL} == FULL
    assert (one.registered_at, one.state, one.hold) == (known.registered_at, state, hold)
    assert (one.missed_deadlines, one.rev, one.standing) == (1, 2, Standing.REGISTERED)
    assert not moves(registered.change)
    assert types(registered.change.events) == ["agent.updated"]
    assert registered.change.receipt == RECEIPT


def test_F39_what_is_not_said_stays() -> None:
    known = agent(version="1", metadata={"n": 1}, concurrency=2, delivery_failures=3)
    one = after(register(known))
    names = [*FULL, "delivery_failures"]
    assert [getattr(one, name) for name in names] == [getattr(known, name) for name in names]


@pytest.mark.parametrize(
    ("given", "wakes"),
    [
        ({}, False),
        ({"name": "Ada"}, False),
        ({"capabilities": ("research",)}, False),
        ({"capabilities": ("research", "x")}, True),
        ({"concurrency": 1}, False),
        ({"concurrency": 2}, True),
    ],
)
def test_what_makes_an_agent_fit_for_more_wakes_the_dispatcher(
    given: dict[str, Any], wakes: bool
) -> None:
    assert register(agent(), **given).change.may_ready is wakes


def test_a_new_endpoint_begins_the_count_of_failures_anew() -> None:
    known = agent(delivery_failures=6, concurrency=2, on_trial=True)
    registered = register(known, contact_endpoint="http://127.0.0.1:7/")
    assert after(registered).delivery_failures == 0
    assert registered.change.may_ready


BAD_PAST: dict[str, Any] = {
    "standing_since": at(-9),
    "standing_reason": "silence",
    "hold": Hold(HoldReason.REPORTED_OFFLINE, at(-9)),
    "delivery_failures": 8,
    "missed_deadlines": 3,
}


def is_as_new(one: Agent) -> bool:
    return (
        one.standing is Standing.REGISTERED
        and (one.standing_since, one.standing_reason, one.hold) == (NOW, None, None)
        and (one.delivery_failures, one.missed_deadlines) == (0, 0)
    )


@pytest.mark.parametrize(
    ("standing", "registered_at"), [(Standing.LOST, at(-3600)), (Standing.DEREGISTERED, NOW)]
)
def test_an_agent_that_was_gone_comes_back(standing: Standing, registered_at: object) -> None:
    registered = register(agent(standing=standing, **BAD_PAST))
    one = after(registered)
    assert is_as_new(one)
    assert one.registered_at == registered_at
    assert not registered.created
    assert types(registered.change.events) == ["agent.registered"]
    assert registered.change.may_ready


def test_a_draining_agent_goes_on_draining() -> None:
    registered = register(agent(standing=Standing.DRAINING, standing_since=at(-9)), **FULL)
    assert (after(registered).standing, after(registered).standing_since) == (
        Standing.DRAINING,
        at(-9),
    )
    assert types(registered.change.events) == ["agent.updated"]


@pytest.mark.parametrize(
    ("announced", "ignored"), [(-10, True), (-9, True), (-8.9, False), (None, False)]
)
def test_F59_an_old_announcement_does_not_bring_an_agent_back(
    announced: float | None, ignored: bool
) -> None:
    gone = deregister_agent(agent(), context(3600, wall=-9)).agents[0]
    assert gone.deregistered_at == at(-9)
    moment = None if announced is None else at(announced)
    registered = register(gone, registration_time=moment)
    assert (registered.ignored, registered.created) == (ignored, False)
    assert registered.change.receipt == RECEIPT
    if ignored:
        assert registered.change == Change(receipt=RECEIPT)
    else:
        assert is_as_new(after(registered))


@pytest.mark.parametrize("standing", [Standing.LOST, Standing.REGISTERED])
def test_F59_only_a_deregistration_is_final(standing: Standing) -> None:
    known = agent(standing=standing, standing_since=at(-9))
    registered = register(known, registration_time=at(-3600))
    assert not registered.ignored
    assert after(registered).standing is Standing.REGISTERED


# --- going ------------------------------------------------------------------------------------


@pytest.mark.parametrize("standing", [Standing.REGISTERED, Standing.DRAINING, Standing.LOST])
def test_F62_a_deregistered_agent_gets_no_more_work(standing: Standing) -> None:
    change = deregister_agent(agent(standing=standing), context(), RECEIPT)
    one = change.agents[0]
    assert (one.standing, one.standing_since, one.standing_reason) == (
        Standing.DEREGISTERED,
        NOW,
        None,
    )
    assert (one.rev, one.deregistered_at) == (2, NOW)
    assert types(change.events) == ["agent.deregistered"]
    assert change.events[0].data == {}
    assert (change.tasks, change.receipt) == ((), RECEIPT)


def test_going_twice_is_going_once() -> None:
    gone = agent(standing=Standing.DEREGISTERED, standing_since=at(-9))
    assert deregister_agent(gone, context(), RECEIPT) == Change(receipt=RECEIPT)
    draining = agent(standing=Standing.DRAINING, standing_since=at(-9))
    assert update_agent(draining, {}, True, context()) == Change()


def test_an_agent_can_be_drained_and_put_back() -> None:
    drained = update_agent(agent(missed_deadlines=2), {}, True, context(-5)).agents[0]
    assert (drained.standing, drained.standing_since) == (Standing.DRAINING, at(-5))
    change = update_agent(drained, {}, False, context())
    assert is_as_new(change.agents[0])
    assert types(change.events) == ["agent.returned"]
    assert change.may_ready


def test_a_lost_agent_can_be_put_back() -> None:
    assert is_as_new(
        update_agent(agent(standing=Standing.LOST, **BAD_PAST), {}, False, context()).agents[0]
    )


def test_an_agent_in_service_is_not_put_back() -> None:
    assert (
        update_agent(agent(hold=Hold(HoldReason.REPORTED_ERROR, NOW)), {}, False, context())
        == Change()
    )


# --- getting lost -----------------------------------------------------------------------------


def test_a_silent_agent_is_lost() -> None:
    change = lose_silent_agent(agent(), context())
    one = change.agents[0]
    assert (one.standing, one.standing_since) == (Standing.LOST, NOW)
    assert one.standing_reason is not None
    assert "OPSCORE_SILENCE_THRESHOLD" in one.standing_reason
    assert types(change.events) == ["agent.lost"]
    assert change.events[0].data == {"reason": one.standing_reason}


@pytest.mark.parametrize("standing", [Standing.LOST, Standing.DRAINING, Standing.DEREGISTERED])
def test_only_an_agent_in_service_can_get_lost(standing: Standing) -> None:
    assert lose_silent_agent(agent(standing=standing), context()) == Change()


# --- holds ------------------------------------------------------------------------------------


def test_a_hold_ends_when_its_time_has_come() -> None:
    held = agent(hold=Hold(HoldReason.DELIVERY_FAILING, NOW, at(30)), delivery_failures=5)
    assert on_agent_due(held, context(29.9)) == Change()
    change = on_agent_due(held, context(30))
    assert (change.agents[0].hold, change.agents[0].delivery_failures) == (None, 5)
    assert types(change.events) == ["agent.released"]
    assert change.events[0].data == {"reason": "delivery_failing"}
    assert change.may_ready


@pytest.mark.parametrize("hold", [None, Hold(HoldReason.REPORTED_OFFLINE, NOW)])
def test_other_holds_end_only_by_a_report(hold: Hold | None) -> None:
    assert on_agent_due(agent(hold=hold), context(10**6)) == Change()
