"""Replicas on one storage: their time, their heartbeats, and what they leave behind."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from opscore.clock import SystemClock
from opscore.exceptions import StorageError
from opscore.models import (
    Accepted,
    Answered,
    Change,
    Delivery,
    EventType,
    Policy,
    Replica,
    Retention,
    SessionStatus,
    TaskStatus,
)
from opscore.storage import Storage, open_storage
from opscore.storage.memory import MemoryStorage
from opscore.workflow.dispatcher import LEASE
from opscore.workflow.engine import Engine
from opscore.workflow.replicas import BEAT, Presence, share_time
from opscore.workflow.timekeeper import Timekeeper
from tests import builders
from tests.databases import migrated_database
from tests.fakes import ManualClock, settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

HOUR = 3600.0


def replica(id: str = "r1", now: datetime = builders.NOW) -> Replica:
    return Replica(id, "host", 1, "1.0", now, now)


# --- what dies without a word -----------------------------------------------------------------


async def test_F13_leases_of_a_replica_that_never_beat_are_taken_back(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(Switchboard(always=Answered(1)), storage=storage, running=False)
    await house.register()
    session = await house.trigger()
    now = house.clock.now()
    (claim,) = await storage.storage.claim("ghost", now, now + LEASE, 1)
    assert claim.task.owner == "ghost"
    assert "ghost" not in [one.id for one in await storage.storage.replicas()]
    await house.start()
    await house.pass_time(LEASE.total_seconds() + 2)
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED
    assert (await house.task()).attempt == 2


# --- duties -----------------------------------------------------------------------------------


async def test_of_two_replicas_one_forgets_what_is_old(build: Builder) -> None:
    retention = Retention(ended_sessions=0)
    storage = await build.storage(Moody, retention)
    first, second = [
        await build(
            Switchboard(always=Answered(1)),
            storage=storage,
            owner=owner,
            retention=retention,
            running=owner == "d1",
        )
        for owner in ("d1", "d2")
    ]
    await first.register()
    await first.prune()
    await first.trigger()
    await second.prune()
    assert (await first.storage.counts()).sessions == 1
    await first.prune()
    assert (await first.storage.counts()).sessions == 0
    await _another_takes_over(first, second)


async def _another_takes_over(first: House, second: House) -> None:
    await first.trigger()
    second.clock.advance(31)
    await second.prune()
    assert (await second.storage.counts()).sessions == 0
    assert len(await second.events(EventType.STORAGE_PRUNED)) == 2


# --- heartbeats -------------------------------------------------------------------------------


async def test_it_beats_while_it_lives_and_outlasts_a_storage_that_is_away(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    house = await build(running=False)
    presence = Presence(house.storage, house.clock, replica())
    await presence.join()
    beats = [(await house.storage.replicas())[0].beat_at]
    house.spawn(presence.run())
    await settle()
    await house.pass_time(BEAT.total_seconds(), BEAT.total_seconds())
    beats.append((await house.storage.replicas())[0].beat_at)
    assert beats[1] - beats[0] == BEAT
    await presence.leave()
    assert list(await house.storage.replicas()) == []
    assert caplog.records == []


class Shared(MemoryStorage):
    """A storage with a clock of its own, and away when it is told to."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(Retention())
        self.clock = clock
        self.away = False

    async def time(self) -> datetime | None:
        if self.away:
            raise StorageError("The storage does not answer; try again shortly.")
        return self.clock()


async def test_a_beat_that_fails_is_told_and_the_next_one_tried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    storage = Shared(clock.now)
    presence = Presence(storage, clock, replica())
    await presence.join()
    storage.away = True
    await presence.leave()
    async with _run(presence):
        await settle()
        clock.advance(BEAT.total_seconds())
        await settle()
        assert "could not say that it lives" in caplog.text
        storage.away = False
        clock.advance(BEAT.total_seconds())
        await settle()
    assert [one.beat_at for one in await storage.replicas()] == [clock.now()]


# --- the shared time --------------------------------------------------------------------------


class Machine:
    """A machine whose clock is off by so much."""

    def __init__(self, off: float = 0) -> None:
        self.off = off
        self.steady = 1000.0
        self.clock = SystemClock(lambda: self.steady + self.off, lambda: self.steady)

    def advance(self, seconds: float) -> None:
        self.steady += seconds


async def test_the_storages_time_counts_from_the_start_and_is_followed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database, machine = Machine(), Machine(off=-HOUR)
    storage = Shared(database.clock.now)
    await share_time(storage, machine.clock, at_once=True)
    assert machine.clock.now() == database.clock.now()
    assert "3600.0 s ahead of this one" in caplog.text
    caplog.clear()
    for beat in range(10):
        machine.advance(5.005)
        database.advance(5)
        before = machine.clock.now()
        await share_time(storage, machine.clock)
        assert machine.clock.now() == before, "it does not go back"
        assert machine.clock.now() - database.clock.now() < timedelta(seconds=0.02), beat
    assert caplog.records == []


async def test_what_the_way_of_the_message_may_explain_is_no_difference() -> None:
    machine = Machine()

    class Slow(Shared):
        async def time(self) -> datetime | None:
            machine.advance(1)
            told = await super().time()
            machine.advance(3)
            return told

    storage = Slow(machine.clock.now)
    await share_time(storage, machine.clock, at_once=True)
    assert machine.clock.now().timestamp() == 1004


class Cluster:
    """Replicas on one storage whose clock may be set; all other time passes alike."""

    def __init__(self) -> None:
        self.database = Machine()
        self.set_by = timedelta()
        self.storage = Shared(lambda: self.database.clock.now() + self.set_by)
        self.machines: list[Machine] = []
        self.members: list[Presence] = []

    async def start(self) -> Machine:
        machine = Machine(off=HOUR * len(self.machines))
        machine.advance(self.database.steady - machine.steady)
        self.machines.append(machine)
        self.members.append(
            Presence(self.storage, machine.clock, replica(f"r{len(self.machines)}"))
        )
        await self.members[-1].join()
        return machine

    async def beat(self, times: int = 1) -> None:
        for _ in range(times):
            for machine in (self.database, *self.machines):
                machine.advance(BEAT.total_seconds())
            for member in self.members:
                await member.beat()

    def ahead(self) -> list[float]:
        """How far each replica is ahead of what the database's clock was before it was set."""
        now = self.database.clock.now()
        return [round((one.clock.now() - now).total_seconds()) for one in self.machines]


@pytest.mark.parametrize("step", [HOUR, -HOUR, 61, -61])
async def test_F20_a_step_of_the_storages_clock_leaves_deadlines_alone(
    step: float, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = Cluster()
    for _ in range(2):
        await cluster.start()
    caplog.clear()
    cluster.set_by = timedelta(seconds=step)
    await cluster.beat(5)
    assert cluster.ahead() == [0, 0]
    warning = f"The storage's clock was set by {step:.0f} s"
    assert [warning in record.getMessage() for record in caplog.records] == [True, True]
    cluster.set_by = timedelta()
    await cluster.beat()
    assert cluster.ahead() == [0, 0]
    assert len(caplog.records) == 2


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_F20_all_have_one_time_again_once_a_replica_starts_after_the_step(
    step: float,
) -> None:
    cluster = Cluster()
    for _ in range(2):
        await cluster.start()
    cluster.set_by = timedelta(seconds=step)
    await cluster.beat(2)
    await cluster.start()
    assert cluster.ahead() == [0, 0, step]
    await cluster.beat()
    assert cluster.ahead() == [step, step, step]


@pytest.mark.parametrize("step", [16, 40, 59, -40])
async def test_F20_a_small_step_is_followed_before_any_lease_runs_out(step: float) -> None:
    cluster = Cluster()
    for _ in range(2):
        await cluster.start()
    cluster.set_by = timedelta(seconds=step)
    places = [cluster.ahead()]
    while places[-1] != [step, step]:
        assert len(places) < 60
        await cluster.beat()
        places.append(cluster.ahead())
    strides = [here - there for two in pairwise(places) for there, here in zip(*two, strict=True)]
    # A lease is prolonged every third of its time; twice that must not be over before.
    assert max(map(abs, strides)) <= (LEASE / 6).total_seconds()
    assert max(abs(one - another) for one, another in places) <= BEAT.total_seconds()


@pytest.mark.parametrize("seconds", [20, 40])
async def test_a_machine_that_stood_still_for_less_goes_with_the_others_at_once(
    seconds: float,
) -> None:
    cluster = Cluster()
    for _ in range(2):
        await cluster.start()
    for machine in (cluster.database, cluster.machines[0]):
        machine.advance(seconds)
    await cluster.beat()
    assert cluster.ahead() == [0, 0]


@pytest.mark.parametrize(("others", "left_behind"), [(0, HOUR), (1, 0)])
async def test_a_machine_that_stood_still_goes_with_the_others(
    others: int, left_behind: float
) -> None:
    cluster = Cluster()
    for _ in range(1 + others):
        await cluster.start()
    stopped, stopped_member = cluster.machines.pop(0), cluster.members.pop(0)
    for machine in (cluster.database, *cluster.machines):
        machine.advance(HOUR)
    await cluster.beat()
    cluster.machines.append(stopped)
    cluster.members.append(stopped_member)
    stopped.advance(BEAT.total_seconds())
    await cluster.beat()
    assert cluster.ahead() == [0] * others + [-left_behind]


@asynccontextmanager
async def _run(presence: Presence) -> AsyncIterator[None]:
    task = asyncio.create_task(presence.run())
    yield
    task.cancel()


# --- machines with different clocks on one PostgreSQL -----------------------------------------


class Process:
    """An engine on a machine whose clock is off by so much."""

    def __init__(self, storage: Storage, off: float) -> None:
        self.storage = storage
        self.clock = SystemClock(wall=lambda: time.time() + off)
        self.engine = Engine(storage, self.clock, Policy())
        self.timekeeper = Timekeeper(self.engine)


@asynccontextmanager
async def two_processes() -> AsyncIterator[tuple[Process, Process]]:
    with migrated_database() as url:
        storages = [await open_storage(url, Retention()) for _ in range(2)]
        yield Process(storages[0], 0), Process(storages[1], HOUR)
        for storage in storages:
            await storage.close()


@pytest.mark.parametrize("agreed", [False, True])
async def test_replicas_an_hour_apart_agree_on_leases_and_due_times(
    agreed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    async with two_processes() as (here, there):
        for process in (here, there) if agreed else ():
            await share_time(process.storage, process.clock, at_once=True)
        now = here.clock.now()
        session, task = builders.session(), builders.task(waiting_since=now)
        later = builders.session(id="01939d3a-0000-7000-8000-000000000002")
        delayed = builders.task(
            session_id=later.id, status=TaskStatus.DELAYED, delayed_until=now + LEASE
        )
        await here.storage.apply(
            Change(agents=(builders.agent(),), sessions=(session, later), tasks=(task, delayed))
        )
        (claim,) = await here.storage.claim("here", now, now + LEASE, 1)
        # Only without agreement does the other one take what is not yet its due.
        assert await there.timekeeper.process_due() == (0 if agreed else 2)
        await here.engine.task_outcome(claim, Delivery.DIRECT, Accepted())
        facts = await there.storage.task_facts(task.id)
        assert facts is not None
        assert (facts.task.accepted_at is not None) == agreed
