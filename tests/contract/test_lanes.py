"""The queue a task stands in, and how much there is of everything."""

from typing import Any

import pytest

from opscore.models import Candidate, Counts, Event, LaneFacts, Retention, Standing, TaskStatus
from opscore.storage import Storage
from opscore.storage.sql import SqlStorage
from opscore.storage.sql.program import Execute, Program
from tests import builders
from tests.builders import at
from tests.contract.conftest import Opener
from tests.contract.shelf import bump, claim, ended, one_run, put, queue


async def test_a_lane_names_who_could_serve_it_and_how_many_stand_before(
    storage: Storage,
) -> None:
    agents = [
        builders.agent("b", standing=Standing.LOST),
        builders.agent("a"),
        builders.agent("c", capabilities=()),
        builders.agent("d", standing=Standing.DEREGISTERED),
    ]
    await put(storage, *agents)
    capability: dict[str, Any] = {"wanted_agent": None, "wanted_capability": "research"}
    await queue(storage, [1], **capability)
    await claim(storage)
    (low,) = await queue(storage, [2], priority=3, **capability)
    (high,) = await queue(storage, [3], priority=7, **capability)
    both = (Candidate(agents[1], 1), Candidate(agents[0], 0))
    assert await storage.lane(low, 10) == LaneFacts(both, 2, ahead=1, waiting=2)
    assert await storage.lane(high, 10) == LaneFacts(both, 2, ahead=0, waiting=2)
    assert await storage.lane(low, 1) == LaneFacts(both[:1], 2, ahead=1, waiting=2)
    assert (await storage.lane(ended(low), 10)).ahead is None


async def test_the_places_in_a_queue_are_the_order_of_claiming(storage: Storage) -> None:
    tasks = [
        *await queue(storage, range(3), workflow_id="flood"),
        *await queue(storage, range(3, 5), workflow_id="small"),
        *await queue(storage, [5], priority=6),
    ]
    places = {task.id: (await storage.lane(task, 1)).ahead for task in tasks}
    assert {*places.values()} == {*range(6)}
    await put(storage, builders.agent(concurrency=99))
    assert [places[one.task.id] for one in await claim(storage)] == [*range(6)]


async def test_a_lane_of_an_agent_that_was_never_registered(storage: Storage) -> None:
    await put(storage, builders.agent("other"))
    session, task = one_run(1, wanted_agent="nobody")
    assert await storage.lane(task, 10) == LaneFacts()
    await put(storage, session, task)
    assert await storage.lane(task, 10) == LaneFacts((), 0, ahead=0, waiting=1)


async def test_a_lane_follows_what_its_agents_can_do(storage: Storage) -> None:
    agent = builders.agent(capabilities=("x", "research"))
    await put(storage, agent, builders.agent("a2"))
    (task,) = await queue(storage, [1], wanted_agent=None, wanted_capability="research")
    assert (await storage.lane(task, 10)).candidate_count == 2
    forgetful = bump(agent, capabilities=("x",))
    await put(storage, forgetful)
    names = [one.agent.id for one in (await storage.lane(task, 10)).candidates]
    assert names == ["a2"]
    await put(storage, bump(forgetful, capabilities=("research",)))
    assert (await storage.lane(task, 10)).candidate_count == 2


# --- counts -----------------------------------------------------------------------------------


async def test_counts(storage: Storage) -> None:
    assert await storage.counts() == Counts()
    await put(storage, builders.agent(concurrency=2))
    tasks = await queue(storage, range(5))
    await queue(storage, [5], status=TaskStatus.DELAYED, delayed_until=at(9))
    claims = await claim(storage)
    await put(storage, bump(claims[0].task, status=TaskStatus.RUNNING))
    await put(storage, ended(tasks[4]))
    assert await storage.counts() == Counts(
        agents=1,
        sessions=6,
        tasks=6,
        waiting=3,
        in_flight=2,
        events=2,
        by_status={"queued": 2, "delayed": 1, "dispatched": 1, "running": 1, "completed": 1},
    )


async def waiting_bytes(storage: Storage) -> int:
    return (await storage.counts()).waiting_bytes


async def test_waiting_bytes_are_those_of_queued_and_delayed_tasks(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=9))
    first, second, third = await queue(storage, [1, 2, 3], queue_bytes=100)
    assert await waiting_bytes(storage) == 300
    await put(storage, bump(second, status=TaskStatus.DELAYED, delayed_until=at(99)))
    assert await waiting_bytes(storage) == 300
    claimed = (await claim(storage, 1))[0].task
    assert await waiting_bytes(storage) == 200
    await put(storage, bump(claimed, status=TaskStatus.QUEUED, queue_bytes=250, agent_id=None))
    assert await waiting_bytes(storage) == 450
    await put(storage, bump(third, status=TaskStatus.CANCELLED, ended_at=at(1)))
    assert await waiting_bytes(storage) == 350
    assert claimed.id == first.id


async def test_waiting_bytes_move_with_an_export(open_with: Opener) -> None:
    source, target = await open_with(Retention()), await open_with(Retention())
    tasks = await queue(source, [1, 2, 3], queue_bytes=100)
    await put(source, bump(tasks[0], status=TaskStatus.CANCELLED, ended_at=at(1)))
    await target.load(source.export())
    assert await waiting_bytes(target) == 200


@pytest.mark.storages("sqlite", "postgres")
async def test_waiting_bytes_that_differ_are_repaired(storage: Storage) -> None:
    await queue(storage, [1, 2], queue_bytes=100)
    assert isinstance(storage, SqlStorage)
    await storage._driver.write(_forge_waiting_bytes)
    assert await waiting_bytes(storage) == 7
    cursor: str | None = None
    found: list[Event] = []
    while True:
        page = await storage.mend(cursor, 100, at(5))
        found += page.items
        if (cursor := page.next_cursor) is None:
            break
    assert [one.data["name"] for one in found] == ["bytes.waiting"]
    assert await waiting_bytes(storage) == 200


def _forge_waiting_bytes() -> Program[None]:
    yield Execute("UPDATE tallies SET value = 7 WHERE name = 'bytes.waiting'")
