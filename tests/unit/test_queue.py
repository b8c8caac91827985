"""Why a task waits: every reason with its words, and what would remove it."""

from typing import Any

import pytest

from opscore.models import (
    Agent,
    Candidate,
    ClaimScope,
    Hold,
    HoldReason,
    LaneFacts,
    MessageType,
    Standing,
    TaskStatus,
)
from opscore.workflow.queue import Gate, Reason, explain, pending_reason
from tests.builders import NOW, agent, at, task

FREE = Candidate(agent(), 0)
BUSY = Candidate(agent("a2", name="Bea"), 1)
FOR_ALL = task(wanted_agent=None, wanted_capability="x")


def lane(*candidates: Candidate, **changes: Any) -> LaneFacts:
    return LaneFacts(candidates, **{"candidate_count": len(candidates), **changes})


def only(who: Agent, in_flight: int = 0) -> LaneFacts:
    return lane(Candidate(who, in_flight))


# --- no agent matters -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attempt", "code", "message"),
    [
        (0, Reason.DELAYED, "The task waits until 2026-01-01T12:00:05Z."),
        (2, Reason.RETRY_DELAYED, "The task waits before attempt 3 until 2026-01-01T12:00:05Z."),
    ],
)
def test_a_delayed_task(attempt: int, code: Reason, message: str) -> None:
    one = task(status=TaskStatus.DELAYED, delayed_until=at(5), attempt=attempt)
    said = explain(one, lane(FREE), Gate(Reason.STOPPING, "stop"))
    assert (said.reason.code, said.reason.message, said.reason.until) == (code, message, at(5))
    assert said.unblocked_by == ("Time passes until 2026-01-01T12:00:05Z.",)
    assert said.obstacles == ()


def test_delayed_task_without_end_says_nothing_of_free_agents() -> None:
    said = explain(task(status=TaskStatus.DELAYED), lane(FREE, BUSY), None)
    assert (said.obstacles, said.candidate_count, said.unblocked_by) == ((), 0, ())


def test_a_delay_without_an_end_is_told_without_one() -> None:
    said = pending_reason(task(status=TaskStatus.DELAYED), lane(), None)
    assert (said.message, said.until) == ("The task waits.", None)


def test_nobody_could_do_it() -> None:
    said = explain(task(wanted_agent="a9"), lane(), None)
    assert said.reason.code is Reason.AGENT_NOT_REGISTERED
    assert said.reason.message == "The task is for agent a9, which is not registered."
    assert said.unblocked_by == ("Agent a9 registers.",)
    said = explain(FOR_ALL, lane(), None)
    assert said.reason.code is Reason.NO_CAPABLE_AGENT
    assert said.reason.message == "No registered agent has the capability 'x'."
    assert said.unblocked_by == ("An agent with the capability 'x' registers.",)


# --- one agent --------------------------------------------------------------------------------

HOLDS = {
    HoldReason.REPORTED_ACTIVE: "busy",
    HoldReason.REPORTED_ERROR: "error",
    HoldReason.REPORTED_OFFLINE: "offline",
    HoldReason.REPORTED_INITIALIZING: "initializing",
    HoldReason.NEVER_REPORTED: "never reported",
    HoldReason.DELIVERY_FAILING: "could not be reached",
}


@pytest.mark.parametrize(("reason", "word"), HOLDS.items())
@pytest.mark.parametrize("until", [None, 30])
def test_an_agent_on_hold(reason: HoldReason, word: str, until: float | None) -> None:
    end = None if until is None else at(until)
    said = explain(task(), only(agent(name="Ada", hold=Hold(reason, at(-5), end))), None)
    assert (said.reason.code, said.reason.since) == (Reason.AGENT_ON_HOLD, at(-5))
    assert said.reason.message.startswith("Agent Ada ")
    assert word in said.reason.message
    assert said.reason.until == end
    if until is None:
        assert said.unblocked_by == ("Agent Ada: it reports idle.",)
    else:
        assert said.unblocked_by == ("Time passes until 2026-01-01T12:00:30Z.",)
        assert said.obstacles[0].unblocked_by == "it reports idle or time passes"


@pytest.mark.parametrize(
    ("standing", "code", "message", "remedy"),
    [
        (Standing.DRAINING, Reason.AGENT_DRAINING, "is draining", "is put back to work"),
        (Standing.LOST, Reason.AGENT_LOST, "is lost", "reports a state or registers again"),
        (Standing.DEREGISTERED, Reason.AGENT_DEREGISTERED, "was deregistered", "registers again"),
    ],
)
@pytest.mark.parametrize(("why", "shown"), [(None, ""), ("it was silent", ": it was silent")])
def test_an_agent_out_of_service(
    standing: Standing, code: Reason, message: str, remedy: str, why: str | None, shown: str
) -> None:
    who = agent(name="Ada", standing=standing, standing_since=at(-5), standing_reason=why)
    said = explain(task(), only(who), None)
    assert (said.reason.code, said.reason.since) == (code, at(-5))
    assert said.reason.message == f"Agent Ada {message}{shown}."
    assert said.unblocked_by == (f"Agent Ada: it {remedy}.",)


@pytest.mark.parametrize(
    ("who", "in_flight", "message"),
    [
        (agent(name="Ada"), 1, "Agent Ada has 1 of 1 tasks in flight."),
        (agent(name="Ada", concurrency=3), 3, "Agent Ada has 3 of 3 tasks in flight."),
        (
            agent(name="Ada", concurrency=3, on_trial=True),
            1,
            "Agent Ada is on trial after failures and gets one task at a time; it has 1 of 3 tasks "
            "in flight.",
        ),
    ],
)
def test_a_busy_agent(who: Agent, in_flight: int, message: str) -> None:
    said = explain(task(), only(who, in_flight), None)
    assert (said.reason.code, said.reason.message) == (Reason.AGENT_BUSY, message)
    assert said.reason.since == at(-60)
    remedy = "a result of it counts or it reports idle" if who.on_trial else "one of its tasks ends"
    assert said.unblocked_by == (f"Agent Ada: {remedy}.",)


@pytest.mark.parametrize(("other", "since"), [(-5, -5), (-90, -60)])
def test_a_task_waits_no_longer_than_it_has_waited(other: float, since: float) -> None:
    hold = Hold(HoldReason.REPORTED_ERROR, at(other))
    assert pending_reason(task(), only(agent(hold=hold)), None).since == at(since)


# --- several agents ---------------------------------------------------------------------------


def test_none_of_several_is_free() -> None:
    lost = Candidate(agent("a3", standing=Standing.LOST), 0)
    held = Candidate(agent("a4", hold=Hold(HoldReason.REPORTED_ERROR, NOW)), 0)
    said = explain(FOR_ALL, lane(BUSY, BUSY, lost, held, candidate_count=9), None)
    assert said.reason.code is Reason.NO_AVAILABLE_AGENT
    assert said.reason.message == (
        "None of the 9 agents that could do it is free: 2 busy, 1 lost, 1 on hold."
    )
    assert [one.code for one in said.obstacles] == [
        Reason.AGENT_BUSY,
        Reason.AGENT_BUSY,
        Reason.AGENT_LOST,
        Reason.AGENT_ON_HOLD,
    ]
    assert said.candidate_count == 9
    assert len(said.unblocked_by) == 4


@pytest.mark.parametrize("standing", [Standing.DRAINING, Standing.LOST, Standing.DEREGISTERED])
def test_several_that_are_alike_share_their_reason(standing: Standing) -> None:
    gone = Candidate(agent(standing=standing), 0)
    said = pending_reason(FOR_ALL, lane(gone, gone), None)
    assert said.code.value == f"agent_{standing.value}"
    assert f"2 {standing.value}." in said.message


# --- a free agent -----------------------------------------------------------------------------


@pytest.mark.parametrize("candidates", [(FREE,), (BUSY, FREE)])
def test_a_task_that_is_ready(candidates: tuple[Candidate, ...]) -> None:
    said = pending_reason(FOR_ALL, lane(*candidates), None)
    assert (said.code, said.since) == (Reason.READY, at(-60))
    assert said.message.startswith("The task is ready")
    said = pending_reason(FOR_ALL, lane(*candidates, ahead=7), None)
    assert said.message == "The task is ready; 7 tasks of its queue stand before it."


def test_a_free_agent_is_no_obstacle_but_is_listed() -> None:
    said = explain(FOR_ALL, lane(FREE, ahead=2), None)
    assert [(one.agent_id, one.code) for one in said.obstacles] == [("a1", Reason.READY)]
    assert said.obstacles[0].unblocked_by == "the tasks before it are dispatched"
    assert said.ahead == 2


CLOSED = Gate(Reason.BREAKER_OPEN, "AgentKit rests.", at(-5), at(9))


def test_F23_an_open_breaker_is_the_reason_that_a_ready_task_shows() -> None:
    said = explain(task(), lane(FREE), CLOSED)
    assert (said.reason.code, said.reason.message) == (Reason.BREAKER_OPEN, "AgentKit rests.")
    assert (said.reason.since, said.reason.until) == (at(-5), at(9))
    assert said.unblocked_by == ("Time passes until 2026-01-01T12:00:09Z.",)


@pytest.mark.parametrize(
    ("direct", "still_open", "code"),
    [
        (True, ClaimScope.DIRECT, Reason.READY),
        (True, None, Reason.STOPPING),
        (False, ClaimScope.DIRECT, Reason.STOPPING),
        (False, ClaimScope.WITHOUT_TOOLS, Reason.READY),
    ],
)
def test_gate_holds_only_tasks_outside_its_open_scope(
    direct: bool, still_open: ClaimScope | None, code: Reason
) -> None:
    gate = Gate(Reason.STOPPING, "stop", open=still_open)
    free = FREE if direct else Candidate(agent(contact_endpoint=None), 0)
    assert pending_reason(task(), lane(free), gate).code is code
    tool = task(message_type=MessageType.TOOL_INVOCATION)
    assert pending_reason(tool, lane(free), gate).code is Reason.STOPPING


def test_a_busy_agent_comes_before_the_gate() -> None:
    assert pending_reason(task(), lane(BUSY), CLOSED).code is Reason.AGENT_BUSY
