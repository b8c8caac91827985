"""The order in which tasks are handed out: priority, ageing, turns, arrival."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opscore.models import Retention, TaskStatus
from opscore.storage import Storage
from tests import builders
from tests.builders import at, seconds
from tests.contract.conftest import Opener
from tests.contract.shelf import bump, claim, ended, put, queue, tasks_of

BY_CAPABILITY: dict[str, Any] = {"wanted_agent": None, "wanted_capability": "research"}


@pytest.mark.parametrize(
    ("low", "high", "waited_longer", "low_goes_first"),
    [
        (5, 6, 0, False),
        (5, 6, 59, False),
        (5, 6, 61, True),
        (0, 9, 9 * 60 - 1, False),
        (0, 9, 9 * 60 + 1, True),
    ],
)
async def test_F19_priority_first_but_waiting_a_minute_is_worth_a_level(
    storage: Storage, low: int, high: int, waited_longer: float, low_goes_first: bool
) -> None:
    await put(storage, builders.agent())
    (old,) = await queue(storage, [1], priority=low, waiting_since=at(-waited_longer))
    (new,) = await queue(storage, [2], priority=high, waiting_since=at(0))
    assert tasks_of(await claim(storage)) == [old.id if low_goes_first else new.id]


async def test_the_most_urgent_of_an_agents_lanes_goes_first(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=4))
    (own,) = await queue(storage, [1], priority=5)
    (shared,) = await queue(storage, [2], priority=7, **BY_CAPABILITY)
    (urgent,) = await queue(storage, [3], priority=9)
    assert tasks_of(await claim(storage)) == [urgent.id, shared.id, own.id]


async def test_what_became_ready_first_goes_first(storage: Storage) -> None:
    tasks = await queue(storage, range(10))
    await put(storage, builders.agent(concurrency=10))
    got = tasks_of(await claim(storage, 4)) + tasks_of(await claim(storage))
    assert got == [task.id for task in tasks]


@given(priorities=st.lists(st.integers(0, 9), min_size=1, max_size=25))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_the_order_of_one_lane_is_urgency_then_arrival(
    open_with: Opener, priorities: list[int]
) -> None:
    storage = await open_with(Retention())
    await put(storage, builders.agent(concurrency=len(priorities)))
    tasks = []
    for number, priority in enumerate(priorities):
        # Seven seconds apart no two levels are ever equally urgent.
        moment = at(7 * number)
        tasks += await queue(storage, [number], priority=priority, waiting_since=moment)
    got = tasks_of(await claim(storage, after=1000))
    wanted = sorted(tasks, key=lambda task: task.waiting_since - seconds(60 * task.priority))
    assert got == [task.id for task in wanted]


async def test_F19_workflows_take_turns_however_many_tasks_one_has(storage: Storage) -> None:
    flood = await queue(storage, range(40), workflow_id="flood")
    first = await queue(storage, range(40, 43), workflow_id="small")
    await put(storage, builders.agent(concurrency=100))
    got = tasks_of(await claim(storage, 6))
    assert sorted(got) == sorted(task.id for task in (*flood[:3], *first))
    assert [one for one in got if one in {task.id for task in flood}] == [
        task.id for task in flood[:3]
    ]


async def test_F19_who_comes_late_waits_at_most_a_turn(storage: Storage) -> None:
    flood = await queue(storage, range(40), workflow_id="flood")
    await put(storage, builders.agent(concurrency=100))
    assert tasks_of(await claim(storage, 20)) == [task.id for task in flood[:20]]
    (late,) = await queue(storage, [50], workflow_id="small")
    assert late.id in tasks_of(await claim(storage, 2))


async def test_F19_the_flood_is_not_starved_by_ever_new_workflows(storage: Storage) -> None:
    flood = await queue(storage, range(3), workflow_id="flood")
    await put(storage, builders.agent(concurrency=100))
    got: list[str] = []
    for number in range(10, 20):
        await queue(storage, [number], workflow_id=f"new-{number}")
        got += tasks_of(await claim(storage, 1, after=number))
    assert {task.id for task in flood} < set(got[:8])


@pytest.mark.timeout(300)
async def test_F19_turns_hold_after_thousands_of_workflows(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=9999))
    await queue(storage, range(1100), workflow_id="flood")
    for number in range(2000, 3100):
        await queue(storage, [number], workflow_id=f"once-{number}")
    assert len(await claim(storage, 2100)) == 2100
    (late,) = await queue(storage, [5000], workflow_id="small")
    assert late.id in tasks_of(await claim(storage, 2))
    assert len(await claim(storage, 200)) == 99


async def test_a_task_queued_again_is_claimed_again_behind_those_that_waited(
    storage: Storage,
) -> None:
    await put(storage, builders.agent())
    tasks = await queue(storage, [1, 2])
    (first,) = await claim(storage)
    assert first.task.id == tasks[0].id
    again = bump(
        first.task, status=TaskStatus.QUEUED, waiting_since=at(1), owner=None, lease_until=None
    )
    await put(storage, again)
    (second,) = await claim(storage, owner="d2", after=2)
    assert second.task.id == tasks[1].id
    await put(storage, ended(second.task))
    (third,) = await claim(storage, owner="d2", after=3)
    assert (third.task.id, third.task.attempt, third.task.owner) == (tasks[0].id, 2, "d2")


async def test_a_delayed_task_stands_behind_those_that_were_ready_before(
    storage: Storage,
) -> None:
    (delayed,) = await queue(storage, [1], status=TaskStatus.DELAYED, delayed_until=at(5))
    (other,) = await queue(storage, [2])
    await put(storage, builders.agent(concurrency=5))
    await put(storage, bump(delayed, status=TaskStatus.QUEUED, waiting_since=at(5)))
    assert tasks_of(await claim(storage, after=5)) == [other.id, delayed.id]


async def test_a_change_while_queued_keeps_the_place(storage: Storage) -> None:
    tasks = await queue(storage, [1, 2])
    await put(storage, bump(tasks[0], name="renamed"))
    await put(storage, builders.agent(concurrency=5))
    claims = await claim(storage)
    assert tasks_of(claims) == [task.id for task in tasks]
    assert claims[0].task.name == "renamed"


async def test_F19_of_very_many_lanes_the_most_urgent_goes_first(storage: Storage) -> None:
    """However late its name comes in the alphabet, and however many others are ready."""
    names = [f"a{number:03d}" for number in range(400)] + ["z"]
    await put(storage, *(builders.agent(name) for name in names))
    tasks = {}
    for number, name in enumerate(names):
        waiting = at(-3600) if name == "z" else at(0)
        (tasks[name],) = await queue(
            storage, [number], wanted_agent=name, waiting_since=waiting, priority=5
        )
    assert tasks_of(await claim(storage, 1)) == [tasks["z"].id]
    got = {one for _ in range(3) for one in tasks_of(await claim(storage, 200))}
    assert got == {task.id for name, task in tasks.items() if name != "z"}
