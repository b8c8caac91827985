"""The retention loop: what it prunes, which replica does it, and how much of the time it takes."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from opscore.models import Answered, EventType, Retention, SessionStatus, TaskResult
from opscore.storage import Storage
from opscore.storage.interface import Took
from opscore.workflow.retention import Pace
from tests.builders import at
from tests.fakes import ManualClock
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

DAY = 86400.0


async def test_F17_what_ended_long_ago_is_forgotten_and_that_is_told(build: Builder) -> None:
    house = await build(Switchboard(always=Answered(1)))
    await house.register()
    for _ in range(3):
        await house.trigger()
    await house.lifecycle.drain_agent("a1")
    waiting = await house.trigger()
    await house.pass_time(8 * DAY, step=DAY)
    await house.prune()
    counts = await house.storage.counts()
    assert (counts.sessions, counts.tasks, counts.agents) == (1, 1, 1)
    assert (await house.session(waiting.id)).status is SessionStatus.PENDING
    (event,) = await house.events(EventType.STORAGE_PRUNED)
    assert (event.data["sessions"], event.data["tasks"]) == (3, 3)
    assert event.data["events"] > 0


async def test_F17_batch_after_batch_until_the_bound_is_kept(build: Builder) -> None:
    retention = Retention(ended_sessions=2, batch=3)
    house = await build(Switchboard(always=Answered(1)), retention=retention)
    await house.register()
    for _ in range(12):
        await house.trigger()
    await house.prune()
    assert (await house.storage.counts()).sessions == 2
    (event,) = await house.events(EventType.STORAGE_PRUNED)
    assert event.data == house.retention.forgotten == {"sessions": 10, "tasks": 10}


class TakesLong(Moody):
    """Each batch takes a minute, after which somebody else takes up the duty."""

    async def ask(self, method: str, *args: Any, **named: Any) -> Any:
        answer = await super().ask(method, *args, **named)
        if method == "prune":
            now = args[1] + timedelta(minutes=1)
            assert await self.behind.take_duty("retention", "d2", now, now + timedelta(minutes=1))
        return answer


async def test_replica_without_the_role_stops_pruning(build: Builder) -> None:
    retention = Retention(ended_sessions=0, batch=3)
    storage = await build.storage(TakesLong)
    house = await build(Switchboard(always=Answered(1)), storage=storage, retention=retention)
    await house.register()
    for _ in range(8):
        await house.trigger()
    await house.prune()
    assert storage.asked["prune"] == 1
    assert (await house.storage.counts()).sessions == 5
    (event,) = await house.events(EventType.STORAGE_PRUNED)
    assert event.data["sessions"] == 3
    await house.prune()
    assert storage.asked["prune"] == 1


async def test_prune_of_nothing_is_not_logged(build: Builder) -> None:
    house = await build()
    await house.register()
    await house.trigger()
    await house.prune()
    assert await house.events(EventType.STORAGE_PRUNED) == []


class Forgetful(Moody):
    """Everything that has ended is forgotten between the reading of a task and the write."""

    async def task_facts(self, task_id: str) -> Any:
        found = await self.ask("task_facts", task_id)
        await self.behind.prune(Retention(ended_sessions=0), at(0))
        return found


async def test_F17_a_late_result_of_a_session_that_is_being_forgotten_leaves_nothing(
    build: Builder,
) -> None:
    storage = await build.storage(Moody)
    house = await build(Switchboard(always=Answered(1)), storage=storage)
    await house.register()
    await house.trigger()
    task = await house.task()
    forgetful = Forgetful(storage.behind)
    late = await build(storage=forgetful, running=False)
    assert await late.engine.task_reported(task.id, TaskResult(succeeded=True)) is None
    assert forgetful.asked["apply"] == 1
    assert await house.events(EventType.TASK_LATE) == []


# --- its share of the time --------------------------------------------------------------------


class TakesTime(Moody):
    """Each batch takes so many seconds of the clock for each record that it may have."""

    seconds = 0.002

    def __init__(self, behind: Storage) -> None:
        super().__init__(behind)
        self.clock: ManualClock | None = None
        self.busy = 0.0

    async def prune(self, retention: Retention, now: datetime, took: Took) -> dict[str, int]:
        answer: dict[str, int] = await self.ask("prune", retention, now)
        if answer and self.clock is not None:
            taken = self.seconds * retention.batch
            self.clock.advance(taken)
            self.busy += taken
            took(timedelta(seconds=taken))
        return answer


async def _with_ended_sessions(build: Builder, count: int) -> tuple[House, TakesTime]:
    storage, retention = await build.storage(TakesTime), Retention(ended_sessions=0)
    courier = Switchboard(always=Answered(1))
    house = await build(courier, storage=storage, retention=retention)
    await house.register()
    for _ in range(count):
        await house.trigger()
    storage.clock = house.clock
    return house, storage


@pytest.mark.fault("F116")
async def test_retention_that_catches_up_takes_a_fifth_of_the_time(build: Builder) -> None:
    house, storage = await _with_ended_sessions(build, 200)
    house.retention.pace = Pace(20, 20)
    began = house.clock.now()
    pruning = house.spawn(house.retention.prune())
    while not pruning.done():
        await house.pass_time(0.01, step=0.01)
    elapsed = (house.clock.now() - began).total_seconds()
    assert (await house.storage.counts()).sessions == 0
    assert 0.39 <= storage.busy <= 0.2 * elapsed


@pytest.mark.fault("F116")
async def test_batches_that_take_long_become_smaller(build: Builder) -> None:
    house, storage = await _with_ended_sessions(build, 3)
    storage.seconds = 0.01
    for _ in range(8):
        pruning = house.spawn(house.retention.prune())
        await house.pass_time(60, step=1)
        assert pruning.done()
        await house.trigger()
    assert storage.seconds * house.retention.pace.batch <= 0.2


async def test_retention_outlasts_a_storage_that_is_away(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, retention = await build.storage(Moody), Retention(ended_sessions=0)
    courier = Switchboard(always=Answered(1))
    house = await build(courier, storage=storage, retention=retention)
    await house.register()
    await house.trigger()
    house.spawn(house.retention.run())
    storage.away = True
    await house.pass_time(6)
    assert "Retention is put off" in caplog.text
    storage.away = False
    await house.pass_time(6)
    assert (await house.storage.counts()).sessions == 0
