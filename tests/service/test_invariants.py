"""The invariant checker: each kind of damage is found, repaired and told; health is left alone."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import VersionConflictError
from opscore.models import (
    Answered,
    Change,
    Event,
    EventType,
    Page,
    SessionStatus,
    Task,
    TaskStatus,
    WorkflowSession,
)
from opscore.session_starter import Trigger
from opscore.storage import Storage
from opscore.storage.damage import tell_once
from opscore.storage.sql import SqlStorage
from opscore.storage.sql.program import Execute, Program
from opscore.workflow.dispatcher import LEASE
from opscore.workflow.invariants import INTERVAL, Checker
from opscore.workflow.journal import log_events
from tests.builders import definition, step
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

HOUR = timedelta(hours=1)
COMPLETED, FAILED = SessionStatus.COMPLETED, SessionStatus.FAILED
STEPS = step("one"), step("two")


async def begun(build: Builder, *steps: Any, **changes: Any) -> tuple[House, WorkflowSession]:
    """A session whose first task waits; nothing runs yet, and whatever will is answered."""
    house = await build(Switchboard(always=Answered(1)), running=False)
    await house.register()
    session = await house.trigger(*(steps or STEPS), **changes)
    assert await check(house) == []
    return house, session


async def check(house: House) -> Sequence[Event]:
    """What is found and repaired, which is exactly what stands in the log."""
    before = await house.events(EventType.STORAGE_REPAIRED)
    repaired = await Checker(house.engine, "d1").round()
    told = (await house.events(EventType.STORAGE_REPAIRED))[len(before) :]
    assert [one.data for one in told] == [one.data for one in repaired]
    assert all(one.data["message"].endswith(".") for one in told)
    return told


async def claimed(house: House) -> Task:
    """The waiting task, in the hands of a dispatcher that will not be heard of again."""
    now = house.clock.now()
    (claim,) = await house.storage.claim("ghost", now, now + LEASE, 1)
    return claim.task


async def put(house: House, record: Task | WorkflowSession, **changes: Any) -> None:
    """Store what no decision would have made of the record."""
    after: Any = replace(record, rev=record.rev + 1, **changes)
    is_task = isinstance(record, Task)
    await house.storage.apply(Change(tasks=(after,)) if is_task else Change(sessions=(after,)))


async def goes_on(house: House, session: WorkflowSession, status: SessionStatus) -> None:
    """Once it is repaired there is nothing more to repair, and the session ends."""
    assert await check(house) == []
    await house.start()
    await house.pass_time(400, step=20)
    assert (await house.session(session.id)).status is status
    assert all(task.status.ended for task in await house.tasks(session.id))
    assert await check(house) == []


# --- what decisions left undone ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        (TaskStatus.COMPLETED, COMPLETED),
        (TaskStatus.FAILED, FAILED),
        (TaskStatus.TIMED_OUT, FAILED),
        (TaskStatus.CANCELLED, SessionStatus.CANCELLED),
    ],
)
@pytest.mark.parametrize("steps", [STEPS, STEPS[:1]])
async def test_a_session_with_nothing_pending_goes_on(
    build: Builder, steps: Any, status: TaskStatus, ends: SessionStatus
) -> None:
    house, session = await begun(build, *steps)
    task = await claimed(house)
    await put(house, task, status=status, lease_until=None, ended_at=house.clock.now())
    (event,) = await check(house)
    assert (event.data["found"], event.session_id) == ("nothing_pending", session.id)
    await goes_on(house, session, ends)


async def test_a_session_without_any_task_begins(build: Builder) -> None:
    house, session = await begun(build)
    lost = replace(session, id="01939d3a-0000-7000-8000-000000000077", rev=1)
    await house.storage.apply(Change(sessions=(lost,)))
    (event,) = await check(house)
    assert (event.data["found"], event.session_id) == ("nothing_pending", lost.id)
    await goes_on(house, lost, COMPLETED)


@pytest.mark.parametrize("in_flight", [False, True])
async def test_a_task_that_outlived_its_session_is_cancelled(
    build: Builder, in_flight: bool
) -> None:
    house, session = await begun(build)
    task = await claimed(house) if in_flight else await house.task()
    await put(house, session, status=FAILED, ended_at=house.clock.now())
    (event,) = await check(house)
    assert (event.data["found"], event.task_id) == ("task_outlived_session", task.id)
    assert (await house.task()).status is TaskStatus.CANCELLED
    await goes_on(house, session, FAILED)


@pytest.mark.parametrize("missing", ["owner", "lease_until"])
async def test_a_task_that_no_dispatcher_has_is_taken_back(build: Builder, missing: str) -> None:
    house, session = await begun(build)
    task = await claimed(house)
    await put(house, task, **{missing: None})
    (event,) = await check(house)
    assert (event.data["found"], event.task_id) == ("lease_lost", task.id)
    await goes_on(house, session, COMPLETED)


async def test_an_accepted_task_without_a_deadline_gets_one(build: Builder) -> None:
    house, session = await begun(build)
    task = await claimed(house)
    await put(house, task, lease_until=None, accepted_at=house.clock.now())
    (event,) = await check(house)
    assert (event.data["found"], event.task_id) == ("timer_lost", task.id)
    await goes_on(house, session, COMPLETED)
    assert (await house.task(session.id)).attempt == 2


async def test_a_delay_without_an_end_ends(build: Builder) -> None:
    house, session = await begun(build, step("one", delay=HOUR))
    await put(house, await house.task(), delayed_until=None)
    (event,) = await check(house)
    assert event.data["found"] == "timer_lost"
    await goes_on(house, session, COMPLETED)


# --- what is kept beside the records ----------------------------------------------------------

SQL = pytest.mark.storages("sqlite", "postgres")


async def damage(house: House, sql: str) -> None:
    storage = house.storage
    behind = storage.behind if isinstance(storage, Moody) else storage
    assert isinstance(behind, SqlStorage)

    def program() -> Program[None]:
        yield Execute(sql)

    await behind._driver.write(program)


@SQL
@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("UPDATE tasks SET due_at = NULL", ["due_at"]),
        ("UPDATE tasks SET due_at = due_at + 3600000000", ["due_at"]),
        ("UPDATE tasks SET lane = 'agent:nobody'", ["lane"]),
        ("UPDATE tasks SET level = 'agent:nobody/05', flow = 'x'", ["level", "flow"]),
        ("UPDATE tasks SET rev = rev + 7", ["rev"]),
        ("UPDATE tasks SET status = 'queued'", ["status"]),
    ],
)
async def test_a_tasks_columns_are_made_from_it_again(
    build: Builder, sql: str, columns: list[str]
) -> None:
    house, session = await begun(build, step("one", delay=timedelta(seconds=30)))
    await damage(house, sql)
    found = {one.data["found"]: one for one in await check(house)}
    event = found.pop("columns_differ")
    assert list(event.data["columns"]) == columns
    assert event.task_id == (await house.task()).id
    assert not found
    await goes_on(house, session, COMPLETED)


@SQL
async def test_a_queued_task_is_found_in_its_lane_again(build: Builder) -> None:
    house, session = await begun(build)
    await damage(house, "UPDATE tasks SET level = 'agent:nobody/05', flow = 'x', turn = 99")
    (event,) = await check(house)
    assert list(event.data["columns"]) == ["level", "flow"]
    await goes_on(house, session, COMPLETED)


@SQL
async def test_a_sessions_deadline_is_kept(build: Builder) -> None:
    house, session = await begun(build, timeout=timedelta(seconds=60))
    await house.lifecycle.drain_agent("a1")
    await damage(house, "UPDATE sessions SET due_at = NULL, search = ''")
    (event,) = await check(house)
    assert list(event.data["columns"]) == ["due_at", "search"]
    assert event.session_id == session.id
    await goes_on(house, session, SessionStatus.TIMED_OUT)


@SQL
@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("UPDATE agents SET in_flight = 3", "slots_leaked"),
        ("UPDATE agents SET slots = 0", "columns_differ"),
        ("UPDATE agents SET due_at = 1", "columns_differ"),
        ("DELETE FROM agent_lanes", "lanes_differ"),
        ("UPDATE agent_lanes SET lane = lane || 'x'", "lanes_differ"),
    ],
)
async def test_an_agent_has_its_slots_and_lanes_again(build: Builder, sql: str, found: str) -> None:
    house, session = await begun(build)
    await damage(house, sql)
    (event,) = await check(house)
    assert (event.data["found"], event.agent_id) == (found, "a1")
    await goes_on(house, session, COMPLETED)


@SQL
async def test_slots_that_are_missing_are_counted_again(build: Builder) -> None:
    house, session = await begun(build)
    await claimed(house)
    await damage(house, "UPDATE agents SET in_flight = 0")
    (event,) = await check(house)
    assert (event.data["stored"], event.data["counted"]) == (0, 1)
    await goes_on(house, session, COMPLETED)


@SQL
@pytest.mark.parametrize("name", ["agents", "sessions", "events", "tasks.queued", "tasks.failed"])
async def test_numbers_of_records_are_counted_again(build: Builder, name: str) -> None:
    house, session = await begun(build)
    before = await house.storage.counts()
    await damage(
        house,
        f"INSERT INTO tallies (name, value) VALUES ('{name}', 5) "
        "ON CONFLICT (name) DO UPDATE SET value = tallies.value + 5",
    )
    assert await house.storage.counts() != before
    (event,) = await check(house)
    assert (event.data["found"], event.data["name"]) == ("tally_differs", name)
    after = await house.storage.counts()
    assert replace(after, events=0) == replace(before, events=0)
    assert after.events == before.events + 1
    await goes_on(house, session, COMPLETED)


# --- health -----------------------------------------------------------------------------------


ENDED = {"completed": 80}


async def test_under_load_it_finds_nothing(build: Builder) -> None:
    storage = await build.storage(Moody)
    houses = [
        await build(Switchboard(always=Answered(1)), storage=storage, owner=owner)
        for owner in ("d1", "d2")
    ]
    first = houses[0]
    for number in range(4):
        await first.register(f"a{number}", concurrency=3)
    triggers = [Trigger(f"a{i % 4}", {}, definition=definition(*STEPS)) for i in range(40)]
    checkers = [Checker(house.engine, "x") for house in houses]
    work = asyncio.gather(*(first.lifecycle.start_session(one) for one in triggers))
    rounds = 0
    while not work.done() or (await first.storage.counts()).by_status != ENDED:
        found = await asyncio.gather(*(checker.round() for checker in checkers))
        assert found == [[], []]
        rounds += 1
        first.clock.advance(0.1)
        await asyncio.sleep(0)
    assert rounds > 1
    assert await first.events(EventType.STORAGE_REPAIRED) == []


async def test_what_recovers_before_it_is_repaired_is_left_alone(build: Builder) -> None:
    house, session = await begun(build)
    for change in (
        await house.engine.repair_session(session.id),
        await house.engine.repair_task((await house.task()).id),
    ):
        assert change == Change()
    assert await house.engine.repair_task("unheard-of") is None


# --- running ----------------------------------------------------------------------------------


async def test_one_replica_checks_now_and_then_and_tells(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await build.storage(Moody)
    houses = [await build(storage=storage, owner=owner, running=False) for owner in ("d1", "d2")]
    for house in houses:
        house.engine.subscribe(log_events)
        house.spawn(Checker(house.engine, house.dispatcher._owner).run())
    await houses[0].register()
    await houses[0].trigger(*STEPS)
    task = await claimed(houses[0])
    await put(houses[0], task, lease_until=None)
    await settle()
    assert storage.asked["timed_tasks"] == 0
    for house in houses:
        await house.pass_time(INTERVAL.total_seconds(), step=30)
    asked = storage.asked["timed_tasks"]
    assert asked > 0
    assert caplog.text.count("storage.repaired") == 1
    assert [one.task_id for one in await houses[0].events(EventType.STORAGE_REPAIRED)] == [task.id]
    # The other one was refused the duty, and is again.
    await houses[1].pass_time(1, step=1)
    assert storage.asked["timed_tasks"] == asked


@SQL
@pytest.mark.parametrize("doc", ["{}", "[1]", "cut in t"])
@pytest.mark.parametrize("table", ["tasks", "sessions", "agents"])
async def test_a_record_that_cannot_be_read_is_told_of_once_and_passed_over(
    build: Builder, caplog: pytest.LogCaptureFixture, table: str, doc: str
) -> None:
    house, session = await begun(build)
    await house.register("a2")
    lost = await house.trigger(agent_id="a2")
    damaged = {"tasks": (await house.task(session.id)).id, "sessions": session.id, "agents": "a1"}
    tell_once.cache_clear()
    await damage(house, f"UPDATE {table} SET doc = '{doc}' WHERE id = '{damaged[table]}'")
    await damage(house, "UPDATE agents SET in_flight = 7 WHERE id = 'a2'")
    await damage(house, f"DELETE FROM tasks WHERE session_id = '{lost.id}'")
    found = await check(house)
    about = {(one.data["found"], one.session_id or one.agent_id) for one in found}
    assert {("slots_leaked", "a2"), ("nothing_pending", lost.id)} <= about
    assert await check(house) == []
    assert caplog.text.count(f"Record {damaged[table]} in {table} cannot be read") == 1
    assert "beyond repair" not in caplog.text


@SQL
@pytest.mark.parametrize("in_flight", [True, False])
@pytest.mark.parametrize("table", ["tasks", "sessions", "agents"])
async def test_whatever_cannot_be_read_the_service_goes_on_with_the_rest(
    build: Builder, caplog: pytest.LogCaptureFixture, table: str, in_flight: bool
) -> None:
    research = step("one", agent_capability="research", timeout=timedelta(seconds=20))
    house, session = await begun(build, research)
    task = await claimed(house) if in_flight else await house.task()
    await house.register("a2")
    others = [await house.trigger(research) for _ in range(3)]
    damaged = {"tasks": task.id, "sessions": session.id, "agents": "a1"}[table]
    tell_once.cache_clear()
    await damage(house, f"UPDATE {table} SET doc = '[' || doc WHERE id = '{damaged}'")
    await house.start()
    house.spawn(house.housekeeper.run())
    await house.pass_time(60, step=2)
    for one in others:
        assert (await house.session(one.id)).status is COMPLETED
    assert "cannot be read" in caplog.text
    assert caplog.text.count(f"Record {damaged} in {table}") <= 1
    await damage(house, f"UPDATE {table} SET doc = substr(doc, 2) WHERE id = '{damaged}'")
    await check(house)
    await house.pass_time(200, step=5)
    assert (await house.session(session.id)).status is COMPLETED
    assert await check(house) == []


class Endless(Moody):
    """There is always more to look at."""

    def __init__(self, behind: Storage) -> None:
        super().__init__(behind)
        self.cursors: list[str | None] = []

    async def ask(self, method: str, *args: Any, **named: Any) -> Any:
        if method != "mend":
            return await super().ask(method, *args, **named)
        self.cursors.append(args[0])
        return Page((), str(len(self.cursors)))


@pytest.mark.storages("memory")
async def test_a_round_takes_its_time_and_the_next_one_goes_on(build: Builder) -> None:
    storage = await build.storage(Endless)
    house = await build(storage=storage, running=False)
    for seconds, least in ((0, 20), (0.2, 21)):
        checker, first = Checker(house.engine, "d1", seconds), len(storage.cursors)
        for _ in range(2):
            before, looks = time.monotonic(), len(storage.cursors)
            assert await checker.round() == []
            assert time.monotonic() - before >= seconds
            assert len(storage.cursors) - looks >= least
        expected = [None, *(str(number) for number in range(first + 1, len(storage.cursors)))]
        assert storage.cursors[first:] == expected


class Cut(Moody):
    """Something is the matter with one look."""

    raising: type[Exception] = ValueError

    async def ask(self, method: str, *args: Any, **named: Any) -> Any:
        if method == "mend":
            raise self.raising("nobody thought of this")
        return await super().ask(method, *args, **named)


@pytest.mark.parametrize(
    ("raising", "said"),
    [(ValueError, "damaged beyond repair"), (VersionConflictError, "is put off")],
)
async def test_one_look_that_fails_does_not_end_the_others(
    build: Builder, caplog: pytest.LogCaptureFixture, raising: type[Exception], said: str
) -> None:
    storage = await build.storage(Cut)
    storage.raising = raising
    house = await build(storage=storage, running=False)
    await house.register()
    await house.trigger(*STEPS)
    task = await claimed(house)
    await put(house, task, lease_until=None)
    running = house.spawn(Checker(house.engine, "d1").run())
    await settle()
    await house.pass_time(INTERVAL.total_seconds(), step=30)
    assert said in caplog.text
    assert not running.done()
    (event,) = await house.events(EventType.STORAGE_REPAIRED)
    assert event.task_id == task.id
