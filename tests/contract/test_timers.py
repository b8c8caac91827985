"""Leases, deadlines, and tasks that nobody is left to do."""

from collections.abc import Sequence
from typing import Any

import pytest

from opscore.exceptions import VersionConflictError
from opscore.models import Hold, HoldReason, SessionStatus, Standing, Task, TaskStatus
from opscore.storage import DueItems, Storage
from tests import builders
from tests.builders import at, dispatched
from tests.contract.shelf import bump, claim, ended, one_run, put, queue, session_id, stored

GONE: dict[str, Any] = {"standing": Standing.DEREGISTERED, "standing_since": at(0)}

# --- leases -----------------------------------------------------------------------------------


async def test_F16_a_lease_is_prolonged_for_its_owner_alone(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=3))
    await queue(storage, range(3))
    mine = [one.task for one in await claim(storage, 2, owner="d1")]
    (other,) = [one.task for one in await claim(storage, 1, owner="d2")]
    ids = [mine[0].id, other.id, "no such task"]
    assert await storage.renew("d1", ids, at(40)) == {mine[0].id}
    assert (await stored(storage, mine[0])).lease_until == at(40)
    assert await stored(storage, mine[1]) == mine[1]
    assert await stored(storage, other) == other
    assert set((await storage.due(at(39), 10)).tasks) == {mine[1].id, other.id}


async def test_renewing_is_a_write_that_others_notice(storage: Storage) -> None:
    await put(storage, builders.agent())
    await queue(storage, [1])
    (one,) = await claim(storage)
    await storage.renew("d1", [one.task.id], at(40))
    with pytest.raises(VersionConflictError):
        await put(storage, ended(one.task))
    await put(storage, ended(await stored(storage, one.task)))


@pytest.mark.parametrize("status", [TaskStatus.QUEUED, TaskStatus.DELAYED, TaskStatus.COMPLETED])
async def test_F10_a_lease_that_was_taken_away_is_not_prolonged(
    storage: Storage, status: TaskStatus
) -> None:
    await put(storage, builders.agent())
    await queue(storage, [1])
    (one,) = await claim(storage)
    taken = bump(one.task, status=status, lease_until=None, delayed_until=None)
    await put(storage, taken)
    assert await storage.renew("d1", [one.task.id], at(40)) == frozenset()
    assert await stored(storage, one.task) == taken


async def test_an_accepted_task_gets_no_lease_again(storage: Storage) -> None:
    await put(storage, builders.agent())
    await queue(storage, [1])
    (one,) = await claim(storage)
    accepted = bump(one.task, lease_until=None, run_deadline=at(300))
    await put(storage, accepted)
    await storage.renew("d1", [one.task.id], at(40))
    assert (await stored(storage, one.task)).lease_until is None


# --- what is due ------------------------------------------------------------------------------

DUE_AT_TEN: dict[str, dict[str, Any]] = {
    "delay": {"status": TaskStatus.DELAYED, "delayed_until": at(10)},
    "delay before the queue's deadline": {
        "status": TaskStatus.DELAYED,
        "delayed_until": at(10),
        "queue_deadline": at(11),
    },
    "queue deadline": {"queue_deadline": at(10)},
    "queue deadline before the delay": {
        "status": TaskStatus.DELAYED,
        "delayed_until": at(11),
        "queue_deadline": at(10),
    },
    "lease": {"status": TaskStatus.DISPATCHED, "agent_id": "a1", "lease_until": at(10)},
    "start deadline": {
        "status": TaskStatus.DISPATCHED,
        "agent_id": "a1",
        "start_deadline": at(10),
        "run_deadline": at(20),
    },
    "run deadline": {"status": TaskStatus.RUNNING, "agent_id": "a1", "run_deadline": at(10)},
}


@pytest.mark.parametrize("changes", DUE_AT_TEN.values(), ids=DUE_AT_TEN)
async def test_a_task_is_due_when_its_moment_comes(
    storage: Storage, changes: dict[str, Any]
) -> None:
    (task,) = await queue(storage, [1], **changes)
    assert await storage.next_due() == at(10)
    assert not await storage.due(at(9.999), 10)
    assert await storage.due(at(10), 10) == DueItems(tasks=(task.id,))
    assert await storage.due(at(999), 10) == DueItems(tasks=(task.id,))


async def test_sessions_and_agents_are_due_too(storage: Storage) -> None:
    session = builders.session(deadline_at=at(5))
    agent = builders.agent(hold=Hold(HoldReason.REPORTED_ACTIVE, at(0), at(7)))
    await put(storage, session, agent)
    (task,) = await queue(storage, [2], queue_deadline=at(6))
    assert await storage.next_due() == at(5)
    assert await storage.due(at(5), 10) == DueItems(sessions=(session.id,))
    assert await storage.due(at(6), 10) == DueItems((task.id,), (session.id,))
    assert await storage.due(at(7), 10) == DueItems((task.id,), (session.id,), (agent.id,))
    await put(storage, bump(session, status=SessionStatus.CANCELLED, ended_at=at(5)))
    assert await storage.next_due() == at(6)
    await put(storage, ended(task))
    assert await storage.due(at(99), 10) == DueItems(agents=(agent.id,))
    await put(storage, bump(agent, hold=None))
    assert await storage.next_due() is None
    assert await storage.due(at(99), 10) == DueItems()


async def test_the_earliest_come_first_up_to_the_limit(storage: Storage) -> None:
    moments = [5, 3, 9, 1, 7]
    tasks = [
        (await queue(storage, [number], queue_deadline=at(moment)))[0]
        for number, moment in enumerate(moments)
    ]
    by_moment = [task.id for _, task in sorted(zip(moments, tasks, strict=True), key=_first)]
    assert (await storage.due(at(10), 3)).tasks == tuple(by_moment[:3])
    assert (await storage.due(at(10), 3)).tasks == tuple(by_moment[:3])
    assert (await storage.due(at(7), 10)).tasks == tuple(by_moment[:4])
    assert await storage.next_due() == at(1)


def _first(pair: tuple[int, Task]) -> int:
    return pair[0]


async def test_of_equal_moments_all_come(storage: Storage) -> None:
    tasks = await queue(storage, range(9), queue_deadline=at(5))
    assert set((await storage.due(at(5), 9)).tasks) == {task.id for task in tasks}
    some = (await storage.due(at(5), 4)).tasks
    assert len(set(some)) == 4
    for task in tasks:
        if task.id in some:
            await put(storage, ended(task))
    rest = (await storage.due(at(5), 9)).tasks
    assert set(rest) == {task.id for task in tasks} - set(some)


async def test_a_moment_that_moves(storage: Storage) -> None:
    (task,) = await queue(storage, [1], queue_deadline=at(5))
    for moment in (9, 5, 3, 5, 9):
        task = bump(task, queue_deadline=at(moment))
        await put(storage, task)
        assert await storage.next_due() == at(moment)
        assert not await storage.due(at(moment - 1), 10)
        assert await storage.due(at(moment), 10) == DueItems(tasks=(task.id,))
    task = bump(task, queue_deadline=None)
    await put(storage, task)
    assert await storage.next_due() is None
    await put(storage, bump(task, queue_deadline=at(9)))
    assert await storage.due(at(9), 10) == DueItems(tasks=(task.id,))


async def test_F13_a_claim_sets_a_timer_that_anyone_finds(storage: Storage) -> None:
    await put(storage, builders.agent())
    (task,) = await queue(storage, [1])
    assert await storage.next_due() is None
    await claim(storage, owner="a process that never speaks again")
    assert await storage.next_due() == at(15)
    assert await storage.due(at(15), 1) == DueItems(tasks=(task.id,))


# --- stranded ---------------------------------------------------------------------------------


async def stranded(storage: Storage, limit: int = 100) -> Sequence[str]:
    return await storage.stranded(limit)


async def test_F62_waiting_tasks_of_a_deregistered_agent_are_stranded(storage: Storage) -> None:
    agent = builders.agent()
    await put(storage, agent)
    (queued,) = await queue(storage, [1])
    (delayed,) = await queue(storage, [2], status=TaskStatus.DELAYED, delayed_until=at(600))
    assert await stranded(storage) == []
    await put(storage, bump(agent, **GONE))
    assert set(await stranded(storage)) == {queued.id, delayed.id}
    assert len(await stranded(storage, 1)) == 1
    await put(storage, ended(queued))
    assert await stranded(storage) == [delayed.id]
    await put(storage, ended(delayed))
    assert await stranded(storage) == []


async def test_F62_others_tasks_and_running_ones_are_not_stranded(storage: Storage) -> None:
    gone = builders.agent("gone", **GONE)
    await put(storage, gone, builders.agent("a1", standing=Standing.DRAINING))
    session, in_flight = one_run(1)
    running = dispatched(
        id=in_flight.id, session_id=session.id, wanted_agent="gone", agent_id="gone", rev=1
    )
    await put(storage, session, running)
    await queue(storage, [2], wanted_agent="a1")
    await queue(storage, [3], wanted_agent="never registered")
    await queue(storage, [4], wanted_agent=None, wanted_capability="research")
    assert await stranded(storage) == []
    (waiting,) = await queue(storage, [5], wanted_agent="gone")
    assert await stranded(storage) == [waiting.id]
    await put(storage, bump(running, status=TaskStatus.QUEUED, lease_until=None))
    assert set(await stranded(storage)) == {waiting.id, running.id}


async def test_F62_an_agent_that_comes_back_takes_its_tasks(storage: Storage) -> None:
    agent = builders.agent(**GONE)
    await put(storage, agent)
    (task,) = await queue(storage, [1])
    assert await stranded(storage) == [task.id]
    await put(storage, bump(agent, standing=Standing.REGISTERED))
    assert await stranded(storage) == []
    assert [one.task.id for one in await claim(storage)] == [task.id]
    assert (await storage.session(session_id(1))) is not None
