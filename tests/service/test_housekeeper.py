"""The housekeeper: forgetting, silent agents, and a blocked event loop."""

import time
from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import StorageError
from opscore.models import (
    Answered,
    Change,
    EventType,
    Policy,
    Retention,
    SessionStatus,
    Standing,
    StateReport,
    TaskResult,
)
from tests import builders
from tests.builders import at
from tests.contract.shelf import put
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import Switchboard

DAY = 86400.0


# --- forgetting -------------------------------------------------------------------------------


async def test_F17_what_ended_long_ago_is_forgotten_and_that_is_told(build: Builder) -> None:
    house = await build(Switchboard(always=Answered(1)))
    await house.register()
    for _ in range(3):
        await house.trigger()
    await house.lifecycle.drain_agent("a1")
    waiting = await house.trigger()
    await house.pass_time(8 * DAY, step=DAY)
    await house.housekeeper.round()
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
    await house.housekeeper.round()
    assert (await house.storage.counts()).sessions == 2
    (event,) = await house.events(EventType.STORAGE_PRUNED)
    assert event.data == house.housekeeper.forgotten == {"sessions": 10, "tasks": 10}


class TakesLong(Moody):
    """Each batch takes a minute, after which somebody else takes up the duty."""

    async def ask(self, method: str, *args: Any, **named: Any) -> Any:
        answer = await super().ask(method, *args, **named)
        if method == "prune":
            now = args[1] + timedelta(minutes=1)
            assert await self.behind.take_duty("retention", "d2", now, now + timedelta(minutes=1))
        return answer


async def test_whoever_has_lost_the_duty_stops_forgetting(build: Builder) -> None:
    retention = Retention(ended_sessions=0, batch=3)
    storage = await build.storage(TakesLong)
    house = await build(Switchboard(always=Answered(1)), storage=storage, retention=retention)
    await house.register()
    for _ in range(8):
        await house.trigger()
    await house.housekeeper.round()
    assert storage.asked["prune"] == 1
    assert (await house.storage.counts()).sessions == 5
    (event,) = await house.events(EventType.STORAGE_PRUNED)
    assert event.data["sessions"] == 3
    await house.housekeeper.round()
    assert storage.asked["prune"] == 1


async def test_nothing_to_forget_is_not_worth_a_word(build: Builder) -> None:
    house = await build()
    await house.register()
    await house.trigger()
    await house.housekeeper.round()
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


# --- silent agents ----------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "standing"), [(None, "registered"), (60, "lost")])
async def test_agents_that_heartbeat_may_be_lost_by_their_silence(
    build: Builder, threshold: float | None, standing: str
) -> None:
    limit = None if threshold is None else timedelta(seconds=threshold)
    house = await build(policy=Policy(silence_threshold=limit))
    await house.register("quiet")
    await house.register("lively")
    await house.pass_time(50, step=10)
    await house.lifecycle.set_state(StateReport("lively", "idle"))
    await house.pass_time(15, step=5)
    await house.housekeeper.round()
    assert (await house.lifecycle.get_agent("quiet")).agent.standing.value == standing
    assert (await house.lifecycle.get_agent("lively")).agent.standing is Standing.REGISTERED
    await house.lifecycle.set_state(StateReport("quiet", "idle"))
    assert (await house.lifecycle.get_agent("quiet")).agent.standing is Standing.REGISTERED


class Damaged(Moody):
    """One agent cannot be read, or its row is locked."""

    raising: Exception = ValueError("cut in t")

    async def agent(self, agent_id: str) -> Any:
        if agent_id == "a1":
            raise self.raising
        return await self.ask("agent", agent_id)


@pytest.mark.parametrize(
    "raising", [ValueError("cut in t"), StorageError("The row is locked.", retry_after=1)]
)
async def test_what_cannot_be_read_or_written_does_not_end_a_round(
    build: Builder, raising: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await build.storage(Damaged)
    storage.raising = raising
    policy, retention = Policy(silence_threshold=timedelta(seconds=60)), Retention(ended_sessions=0)
    courier = Switchboard(always=Answered(1))
    house = await build(courier, policy, storage=storage, retention=retention)
    await house.register("a2")
    await house.trigger(agent_id="a2")
    await put(storage.behind, builders.agent("a1"))
    await house.pass_time(70, step=10)
    running = house.spawn(house.housekeeper.run())
    await house.eventually(lambda: bool(house.housekeeper.forgotten))
    assert not running.done()
    standings = [(await storage.behind.agent(one)) for one in ("a1", "a2")]
    assert [one.agent.standing for one in standings if one] == [Standing.REGISTERED, Standing.LOST]
    if isinstance(raising, StorageError):
        assert "Housekeeping is put off" in caplog.text


# --- the clock --------------------------------------------------------------------------------


async def test_F20_a_clock_that_is_not_the_time_of_deadlines_is_told_of_once(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    house = await build(running=False)
    said: list[int] = []
    for skew in (9, 3600, 3605, 2):
        house.clock.skew = timedelta(seconds=skew)
        await house.housekeeper.round()
        said.append(len(caplog.records))
    assert said == [0, 1, 1, 2]
    assert "clock is 3600 seconds ahead of the time that deadlines go by" in caplog.text
    assert "clock is 2 seconds ahead of the time that deadlines go by" in caplog.text


# --- running ----------------------------------------------------------------------------------


async def test_it_makes_its_rounds_and_outlasts_a_storage_that_is_away(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await build.storage(Moody)
    retention = Retention(ended_sessions=0)
    house = await build(Switchboard(always=Answered(1)), storage=storage, retention=retention)
    await house.register()
    await house.trigger()
    storage.away = True
    running = house.spawn(house.housekeeper.run())
    await house.eventually(lambda: "Housekeeping is put off" in caplog.text)
    storage.away = False
    pruned: list[Change] = []
    house.engine.subscribe(pruned.append)
    await house.eventually(lambda: bool(pruned))
    assert not running.done()
    assert (await house.storage.counts()).sessions == 0


@pytest.mark.storages("memory")
async def test_F16_a_blocked_event_loop_is_measured_and_warned_of(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    house = await build()
    house.spawn(house.housekeeper.run())
    await settle(5)
    began = time.monotonic()
    time.sleep(1.1)  # noqa: ASYNC251 - blocking the loop is what is tested
    await house.eventually(lambda: house.housekeeper.worst_lag > 1)
    assert house.housekeeper.worst_lag <= time.monotonic() - began
    assert f"The event loop was blocked for {house.housekeeper.worst_lag:.1f}" in caplog.text
