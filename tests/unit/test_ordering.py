"""The order of a queue: priority, ageing, and turns between workflows."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.storage.ordering import AGEING, FairTurns, urgency
from tests.builders import at

PRIORITIES = st.integers(0, 9)
MOMENTS = st.integers(0, 10_000).map(at)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ((5, at(0)), (4, at(0))),
        ((5, at(0)), (5, at(1))),
        ((9, at(59)), (8, at(0))),
        ((0, at(0)), (9, at(541))),
        ((9, at(539)), (0, at(0))),
    ],
)
def test_the_more_urgent_task_goes_first(
    first: tuple[int, datetime], then: tuple[int, datetime]
) -> None:
    assert urgency(*first) < urgency(*then)


@given(PRIORITIES, MOMENTS)
def test_waiting_for_one_ageing_is_worth_one_level(priority: int, since: datetime) -> None:
    assert urgency(priority, since) == urgency(priority + 1, since + AGEING)


@given(PRIORITIES, MOMENTS)
def test_F19_low_priority_never_starves(priority: int, since: datetime) -> None:
    """Whatever comes ten ageings later stands behind, however important it is."""
    later = since + 10 * AGEING
    assert urgency(priority, since) < urgency(9, later)


def drain(queue: list[tuple[int, str]], turns: FairTurns) -> list[str]:
    """Serve what stands in the queue, the lowest turn first, equals as they came."""
    served = []
    while queue:
        turn, workflow = min(queue, key=lambda entry: entry[0])
        queue.remove((turn, workflow))
        turns.served(turn)
        served.append(workflow)
    return served


def test_F19_a_flood_of_one_workflow_leaves_the_others_their_turns() -> None:
    turns = FairTurns()
    queue = [(turns.next("flood"), "flood") for _ in range(1000)]
    queue += [(turns.next("small"), "small") for _ in range(3)]
    assert drain(queue, turns)[:6] == ["flood", "small"] * 3


def test_F19_a_workflow_that_comes_later_is_not_made_to_catch_up() -> None:
    turns = FairTurns()
    queue = [(turns.next("old"), "old") for _ in range(100)]
    for _ in range(50):
        queue.remove(entry := min(queue))
        turns.served(entry[0])
    queue.append((turns.next("new"), "new"))
    assert [workflow for _, workflow in sorted(queue)][:2] == ["new", "old"]
    assert min(queue)[0] == 51


def test_turns_of_one_workflow_keep_its_order() -> None:
    turns = FairTurns()
    drawn = [turns.next("a") for _ in range(5)]
    turns.served(2)
    drawn += [turns.next("a") for _ in range(5)]
    assert drawn == sorted(set(drawn))


def test_a_turn_served_late_does_not_set_the_time_back() -> None:
    turns = FairTurns()
    turns.served(9)
    turns.served(3)
    assert turns.next("a") == 10


def test_what_is_remembered_of_workflows_is_bounded() -> None:
    turns = FairTurns()
    for number in range(1500):
        turns.served(turns.next(f"workflow {number}") + number)
    assert len(turns._last) <= 1001


def test_forgetting_changes_no_turn() -> None:
    turns = FairTurns()
    waiting = [turns.next("busy") for _ in range(10)]
    for number in range(1100):
        turns.next(f"workflow {number}")
    turns.served(5)
    assert turns.next("busy") == waiting[-1] + 1
    assert turns.next("workflow 3") == 6


@given(st.lists(st.sampled_from("ab"), max_size=60), st.integers(1, 200))
def test_F19_the_wait_at_most_doubles(arrivals: list[str], flood: int) -> None:
    """With two workflows, every task of one waits for at most as many of the other."""
    turns = FairTurns()
    queue = [(turns.next("flood"), "flood") for _ in range(flood)]
    queue += [(turns.next(workflow), workflow) for workflow in arrivals if workflow == "a"]
    served = drain(queue, turns)
    for place, workflow in enumerate(served):
        if workflow == "a":
            mine = served[: place + 1].count("a")
            assert served[:place].count("flood") <= mine
