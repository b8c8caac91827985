"""The values themselves: words, places in queues, and when something is due."""

from dataclasses import replace

import pytest

from opscore.models import (
    Agent,
    Availability,
    FallbackTask,
    Hold,
    HoldReason,
    SessionStatus,
    Standing,
    StateWord,
    Task,
    TaskStatus,
    WorkflowDefinition,
    WorkflowRevision,
    availability,
    normalise_state,
    slots,
)
from tests.builders import (
    NOW,
    agent,
    at,
    definition,
    dispatched,
    running,
    session,
    step,
    task,
)

WORDS = {
    StateWord.INITIALIZING: ["initializing"],
    StateWord.IDLE: ["idle"],
    StateWord.ACTIVE: ["active", "busy", "running", "processing", "working"],
    StateWord.FINISHED: ["finished", "completed", "done", "success"],
    StateWord.ERROR: ["error", "failed", "failure"],
    StateWord.OFFLINE: ["offline", "stopped"],
    StateWord.UNKNOWN: ["unknown"],
}


@pytest.mark.parametrize(
    ("said", "word"), [(said, word) for word, all_said in WORDS.items() for said in all_said]
)
def test_a_state_word_is_known_in_every_spelling(said: str, word: StateWord) -> None:
    spellings = {said, said.upper(), said.capitalize(), f"  {said}\t"}
    assert {normalise_state(spelling) for spelling in spellings} == {word}


@pytest.mark.parametrize("said", ["", "asleep", "idle!", "activ", "paused", "ид", "id le"])
def test_F50_a_word_outside_the_table_is_unknown(said: str) -> None:
    assert normalise_state(said) is StateWord.UNKNOWN


BUSY = Hold(HoldReason.REPORTED_ACTIVE, NOW)
BROKEN = Hold(HoldReason.REPORTED_ERROR, NOW)


@pytest.mark.parametrize(
    ("who", "in_flight", "free_slots", "expected"),
    [
        (agent(), 0, 1, Availability.AVAILABLE),
        (agent(), 1, 1, Availability.BUSY),
        (agent(concurrency=3), 2, 3, Availability.AVAILABLE),
        (agent(concurrency=3), 3, 3, Availability.BUSY),
        (agent(hold=BUSY), 0, 0, Availability.BUSY),
        (agent(hold=BROKEN), 0, 0, Availability.UNAVAILABLE),
        (agent(concurrency=3, hold=BROKEN), 3, 0, Availability.BUSY),
        (agent(concurrency=3, delivery_failures=7), 2, 3, Availability.AVAILABLE),
        (agent(concurrency=3, on_trial=True), 0, 1, Availability.AVAILABLE),
        (agent(concurrency=3, on_trial=True), 1, 1, Availability.UNAVAILABLE),
        (agent(standing=Standing.DRAINING), 0, 0, Availability.DRAINING),
        (agent(standing=Standing.LOST), 1, 0, Availability.LOST),
        (agent(standing=Standing.DEREGISTERED, hold=BUSY), 0, 0, Availability.DEREGISTERED),
    ],
)
def test_availability_and_slots(
    who: Agent, in_flight: int, free_slots: int, expected: Availability
) -> None:
    assert availability(who, in_flight) is expected
    assert slots(who) == free_slots


def test_an_agent_is_due_when_its_hold_ends_by_itself() -> None:
    assert agent().due_at is None
    assert agent(hold=BROKEN).due_at is None
    assert agent(hold=replace(BROKEN, until=at(9))).due_at == at(9)


@pytest.mark.parametrize("status", list(TaskStatus))
def test_a_task_waits_is_in_flight_or_has_ended(status: TaskStatus) -> None:
    assert [status.waiting, status.in_flight, status.ended].count(True) == 1
    assert status.waiting is (status in {TaskStatus.QUEUED, TaskStatus.DELAYED})
    assert status.in_flight is (status in {TaskStatus.DISPATCHED, TaskStatus.RUNNING})


@pytest.mark.parametrize(
    ("one", "due"),
    [
        (task(), None),
        (task(queue_deadline=at(5)), 5),
        (task(queue_deadline=at(5), start_deadline=at(1), run_deadline=at(2)), 5),
        (task(status=TaskStatus.DELAYED, delayed_until=at(5)), 5),
        (task(status=TaskStatus.DELAYED, delayed_until=at(5), queue_deadline=at(4)), 4),
        (dispatched(lease_until=at(15)), 15),
        (dispatched(lease_until=at(15), start_deadline=at(3), run_deadline=at(9)), 3),
        (dispatched(lease_until=None, queue_deadline=at(1)), None),
        (running(run_deadline=at(9)), 9),
        (running(run_deadline=at(9), lease_until=at(2)), 2),
        (task(status=TaskStatus.COMPLETED, queue_deadline=at(1), run_deadline=at(2)), None),
        (task(status=TaskStatus.CANCELLED, run_deadline=at(2)), None),
    ],
)
def test_the_next_moment_at_which_a_task_needs_attention(one: Task, due: float | None) -> None:
    assert one.due_at == (None if due is None else at(due))


@pytest.mark.parametrize(
    ("one", "lane"),
    [
        (task(wanted_agent="a1"), "agent:a1"),
        (task(wanted_agent="a1", wanted_capability="x"), "agent:a1"),
        (task(wanted_agent=None, wanted_capability="x"), "capability:x"),
        (task(wanted_agent=None), "capability:"),
    ],
)
def test_the_queue_that_a_task_stands_in(one: Task, lane: str) -> None:
    assert one.lane == lane


@pytest.mark.parametrize("status", list(SessionStatus))
def test_a_session_is_due_until_it_has_ended(status: SessionStatus) -> None:
    ended = status.value in {"completed", "failed", "cancelled", "timed_out"}
    assert status.ended is ended
    assert session(status=status, deadline_at=at(9)).due_at == (None if ended else at(9))


LISTED = definition(step("a"), step("b"), step("c"))
LINKED = definition(step("a", next_task_id="c"), step("b"), step("c", next_task_id="b"))
WITH_STAND_IN = definition(
    step("spare"), step("a", fallback=FallbackTask("spare")), step("b", fallback=FallbackTask("z"))
)
PARTLY_LINKED = definition(step("a"), step("b", next_task_id="a"))


@pytest.mark.parametrize(
    ("flow", "first", "line"),
    [
        (LISTED, "a", {"a": "b", "b": "c", "c": None}),
        (LINKED, "a", {"a": "c", "c": "b", "b": None}),
        (WITH_STAND_IN, "a", {"a": "b", "b": None, "spare": None}),
        (PARTLY_LINKED, "a", {"a": None, "b": "a"}),
        (definition(), "one", {"one": None}),
    ],
)
def test_what_follows_a_task(
    flow: WorkflowDefinition, first: str, line: dict[str, str | None]
) -> None:
    assert flow.first().task_id == first
    successors = {name: flow.successor(name) for name in line}
    assert {name: one and one.task_id for name, one in successors.items()} == line


def test_values_know_whose_they_are() -> None:
    assert session().workflow_id == "flow"
    assert WorkflowRevision(definition(id="research"), 1, NOW).id == "research"
