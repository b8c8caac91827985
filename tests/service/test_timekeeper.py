"""The timekeeper: everything happens when it is due, and no clock but the steady one counts."""

from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import StorageError
from opscore.models import (
    Accepted,
    Change,
    DispatchMode,
    EventType,
    Hold,
    HoldReason,
    Policy,
    RetryPolicy,
    SessionStatus,
    StateReport,
    TaskFacts,
    TaskStatus,
)
from opscore.workflow.timekeeper import Timekeeper
from tests import builders
from tests.builders import at, definition, step
from tests.contract.shelf import put, session_id
from tests.fakes import FakeCourier, ManualClock, settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import Switchboard

THROUGH_AGENTKIT = Policy(mode=DispatchMode.AGENTKIT, start_timeout=None)
NEVER = RetryPolicy(max_retries=0)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


# --- at its time ------------------------------------------------------------------------------


async def test_F7_a_delayed_task_runs_when_its_delay_is_over(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    await house.trigger(step("one", delay=seconds(5)))
    assert (await house.task()).status is TaskStatus.DELAYED
    await house.pass_time(4.9, step=0.7)
    assert courier.calls == []
    await house.pass_time(0.1)
    assert len(courier.calls) == 1


DEADLINES: dict[str, tuple[dict[str, Any], float, str]] = {
    "start": ({"start_timeout": seconds(8)}, 8, "start_timeout"),
    "run": ({"timeout": seconds(20)}, 20, "run_timeout"),
    "default run": ({}, 300, "run_timeout"),
}


@pytest.mark.parametrize(("changes", "moment", "code"), DEADLINES.values(), ids=DEADLINES)
async def test_F36_accepted_then_silence_ends_at_the_deadline(
    build: Builder, changes: dict[str, Any], moment: float, code: str
) -> None:
    house = await build(FakeCourier(), THROUGH_AGENTKIT)
    await house.register()
    session = await house.trigger(step("one", retry=NEVER, **changes))
    await house.pass_time(moment - 0.5, step=0.5)
    assert (await house.session(session.id)).status is SessionStatus.RUNNING
    await house.pass_time(0.5)
    ended = await house.session(session.id)
    assert ended.status is SessionStatus.FAILED
    assert ended.error is not None
    assert ended.error["code"] == code
    assert ended.ended_at == at(moment)


async def test_F37_heartbeats_do_not_move_the_run_deadline(build: Builder) -> None:
    house = await build(FakeCourier(), THROUGH_AGENTKIT)
    await house.register()
    session = await house.trigger(step("one", retry=NEVER, timeout=seconds(30)))
    task = await house.task()
    for percent in range(29):
        await house.pass_time(1)
        await house.lifecycle.heartbeat(task.id, {"percent": percent}, None)
    assert (await house.task()).status is TaskStatus.RUNNING
    await house.pass_time(1)
    assert (await house.task()).status is TaskStatus.TIMED_OUT
    assert (await house.session(session.id)).status is SessionStatus.FAILED


async def test_a_session_ends_at_its_deadline_with_all_its_tasks(build: Builder) -> None:
    courier = Switchboard(always=Accepted())
    house = await build(courier)
    await house.register()
    session = await house.trigger(timeout=seconds(6))
    waiting = await house.trigger(timeout=seconds(6))
    await house.pass_time(6)
    for one in (session, waiting):
        ended = await house.session(one.id)
        assert (ended.status, ended.ended_at) == (SessionStatus.TIMED_OUT, at(6))
        assert (await house.task(one.id)).status is TaskStatus.CANCELLED
    # The other one may have been sent in the moment between the two ends; then it is told too.
    told = [task_id for task_id, _, _ in courier.cancelled]
    assert told[0] == (await house.task(session.id)).id
    assert told[1:] in ([], [(await house.task(waiting.id)).id])


async def test_a_hold_ends_by_itself(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    await house.lifecycle.set_state(StateReport("a1", "busy"))
    await house.trigger()
    await house.pass_time(59, step=10)
    assert courier.calls == []
    await house.pass_time(11)
    assert len(courier.calls) == 1
    assert len(await house.events(EventType.AGENT_RELEASED)) == 1


async def test_a_task_gives_up_waiting_at_its_queue_deadline(build: Builder) -> None:
    house = await build()
    await house.register()
    await house.lifecycle.drain_agent("a1")
    session = await house.trigger(step("one", queue_timeout=seconds(3)))
    await house.pass_time(3)
    ended = await house.session(session.id)
    assert ended.error is not None
    assert (ended.status, ended.error["code"]) == (SessionStatus.FAILED, "queue_timeout")


async def test_more_than_one_batch_is_due_at_once(build: Builder) -> None:
    house = await build(running=False)
    for number in range(450):
        late = definition(step("one", delay=seconds(5)))
        await house.engine.start_session(session_id(number), late, 1, "a1", {})
    house.clock.advance(5)
    assert await house.timekeeper.process_due() == 450
    assert await house.timekeeper.process_due() == 0
    assert (await house.storage.counts()).by_status == {"queued": 450}


async def test_nothing_is_due_before_its_time(build: Builder) -> None:
    house = await build(running=False)
    agent = builders.agent(hold=Hold(HoldReason.REPORTED_ACTIVE, at(0), at(10)))
    await put(house.storage, agent)
    house.clock.advance(9.999)
    assert await house.timekeeper.process_due() == 0
    house.clock.advance(0.001)
    assert await house.timekeeper.process_due() == 1
    assert (await house.lifecycle.get_agent("a1")).agent.hold is None


# --- which clock ------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [1, -1])
async def test_F20_a_wall_clock_that_jumps_expires_nothing(build: Builder, hours: int) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    await house.register(concurrency=2)
    session = await house.trigger(timeout=seconds(600))
    await courier.answer()
    await house.trigger(step("one", delay=seconds(60)))
    before = await house.tasks()
    house.clock.skew = timedelta(hours=hours)
    await house.pass_time(5)
    assert await house.tasks() == before
    assert courier.cancelled == []
    await house.pass_time(55)
    assert len(courier.calls) == 2
    await house.pass_time(240, step=10)
    assert (await house.task(session.id)).retries == 1


# --- when others are slow, quick or gone ------------------------------------------------------


@pytest.mark.parametrize("another", [True, False])
async def test_a_timer_that_nobody_spoke_of_is_found(build: Builder, another: bool) -> None:
    house = await build(running=False)
    house.spawn(house.timekeeper.run())
    await house.register()
    session = await house.trigger()
    if another:
        await house.trigger(step("one", delay=timedelta(hours=1)))
    await settle(50)
    now = house.clock.now()
    await house.storage.claim("dead", now, now + seconds(5), 1)
    await house.pass_time(7, step=0.5)
    task = await house.task(session.id)
    assert (task.status, task.lost_leases) == (TaskStatus.QUEUED, 1)


async def test_an_idle_timekeeper_looks_only_now_and_then(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage)
    before = storage.asked["due"]
    await house.pass_time(60, step=0.5)
    assert storage.asked["due"] - before <= 30


async def test_timers_go_on_when_the_storage_is_back(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    await house.trigger(step("one", delay=seconds(5)))
    storage.away = True
    await house.pass_time(10)
    assert "Timers are put off: The storage does not answer" in caplog.text
    assert courier.calls == []
    storage.away = False
    await house.pass_time(3)
    assert len(courier.calls) == 1


async def test_timers_go_on_after_losing_every_race(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    await house.trigger(step("one", delay=seconds(5)))
    storage.conflicts = 10_000
    await house.pass_time(5)
    await house.eventually(lambda: "put off: The record was changed" in caplog.text)
    storage.conflicts = 0
    await house.pass_time(1)
    assert len(courier.calls) == 1


class Refusing(Moody):
    """Takes no change of these sessions' tasks, and says so after so many seconds."""

    refused: frozenset[str] = frozenset()
    after = 0.0
    clock = ManualClock()

    async def apply(self, change: Change) -> None:
        if any(task.session_id in self.refused for task in change.tasks):
            self.clock.advance(self.after)
            raise StorageError("The row is locked.", retry_after=1)
        await self.ask("apply", change)


async def test_F67_a_record_that_cannot_be_written_holds_up_no_other(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, courier = await build.storage(Refusing), Switchboard()
    house = await build(courier, storage=storage)
    await house.register(concurrency=2)
    stuck = await house.trigger(step("one", delay=seconds(1)))
    other = await house.trigger(step("one", delay=seconds(2)))
    storage.refused = frozenset({stuck.id})
    await house.pass_time(2.2, step=0.1)
    assert [call.claim.task.session_id for call in courier.calls] == [other.id]
    await house.pass_time(20, step=0.5)
    assert 3 <= caplog.text.count("put off: The row is locked") <= 5
    storage.refused = frozenset()
    await house.pass_time(6, step=0.5)
    assert [call.claim.task.session_id for call in courier.calls] == [other.id, stuck.id]


@pytest.mark.parametrize("lost", ["race", "write"])
async def test_those_behind_a_batch_that_stays_as_it_is_are_reached(
    build: Builder, lost: str
) -> None:
    class Unchanging(Refusing):
        async def task_facts(self, task_id: str) -> TaskFacts | None:
            facts: TaskFacts | None = await self.ask("task_facts", task_id)
            taken = lost == "race" and facts and facts.session.id in self.refused
            return None if taken else facts

    storage = await build.storage(Unchanging)
    house = await build(storage=storage, running=False)
    for number in range(430):
        late = definition(step("one", delay=seconds(5 + number / 1000)))
        await house.engine.start_session(session_id(number), late, 1, "a1", {})
    storage.refused = frozenset(map(session_id, range(410)))
    house.clock.advance(6)
    assert await house.timekeeper.process_due() == 20
    assert (await house.storage.counts()).by_status == {"queued": 20, "delayed": 410}


async def test_a_silence_lets_holders_of_leases_go_first(build: Builder) -> None:
    storage = await build.storage(Refusing)
    house = await build(storage=storage, running=False)
    await house.register()
    sessions = [await house.trigger(step("one", delay=seconds(one))) for one in (1, 2)]
    storage.refused, storage.clock = frozenset({sessions[0].id}), house.clock
    storage.after = 7
    house.clock.advance(3)
    with pytest.raises(StorageError):
        await house.timekeeper.process_due()
    assert (await house.task(sessions[1].id)).status is TaskStatus.DELAYED
    assert await house.timekeeper.process_due() == 1


async def test_what_stays_due_for_long_costs_little(build: Builder) -> None:
    storage = await build.storage(Refusing)
    house = await build(storage=storage)
    await house.register()
    session = await house.trigger(step("one", delay=seconds(1)))
    storage.refused = frozenset({session.id})
    await house.pass_time(2, step=0.1)
    before = storage.asked["next_due"]
    await house.pass_time(10, step=0.05)
    assert storage.asked["next_due"] - before <= 45


async def test_what_is_due_and_changes_nothing_is_no_tight_loop(build: Builder) -> None:
    """Someone else was quicker with the change, but this storage does not know it yet."""

    class Stale(Moody):
        async def task_facts(self, task_id: str) -> None:
            return None

    storage = await build.storage(Stale)
    house = await build(storage=storage, running=False)
    await house.register()
    await house.trigger(step("one", delay=seconds(1)))
    timekeeper = Timekeeper(house.engine)
    house.spawn(timekeeper.run())
    await house.pass_time(1)
    before = storage.asked["due"]
    await settle(500)
    assert storage.asked["due"] == before
    await house.pass_time(0.05, step=0.01)
    assert before < storage.asked["due"] <= before + 6


async def test_only_changes_of_interest_wake_it(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage)
    await house.register()
    await settle(50)
    before = storage.asked["due"]
    await house.engine.apply(Change(may_ready=True))
    await settle(50)
    assert storage.asked["due"] == before
    await house.trigger(step("one", delay=seconds(5)))
    assert storage.asked["due"] > before
