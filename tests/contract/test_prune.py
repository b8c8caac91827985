"""Forgetting: what has ended and is too old or too much, and nothing else."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import VersionConflictError
from opscore.models import (
    Change,
    Event,
    EventFilter,
    EventType,
    IdempotencyRecord,
    Retention,
    SessionFilter,
    SessionStatus,
    Standing,
    TaskFilter,
    TaskStatus,
    WebhookReceipt,
    WorkflowRevision,
)
from opscore.storage import Storage
from opscore.storage.sql import SqlStorage
from opscore.storage.sql.program import Execute, Fetch, Program
from opscore.storage.sqlite import SqliteDriver
from tests import builders
from tests.builders import at
from tests.contract.conftest import Opener, Replicas
from tests.contract.shelf import bump, claim, ended, events, one_run, put, queue, session_id

WEEK = 7 * 86400.0
_ALL = EventFilter()


async def end(storage: Storage, number: int, moment: float) -> None:
    """A session with one task and one event, all over at the moment."""
    session, task = one_run(number)
    await put(storage, session, task)
    done = bump(session, status=SessionStatus.COMPLETED, ended_at=at(moment))
    event = Event(EventType.SESSION_COMPLETED, at(moment), None, session.id)
    await storage.apply(Change(sessions=(done,), tasks=(ended(task),), events=(event,)))


async def kept(storage: Storage) -> list[int]:
    page = await storage.sessions(SessionFilter(), None, 1000)
    return sorted(int(session.id[-12:]) for session in page.items)


async def prune_all(storage: Storage, retention: Retention, now: float) -> dict[str, int]:
    total: dict[str, int] = {}
    for _ in range(1000):
        counts = await storage.prune(retention, at(now))
        if not counts:
            return total
        for kind, count in counts.items():
            assert count > 0
            total[kind] = total.get(kind, 0) + count
    raise AssertionError("pruning never comes to an end")


# --- sessions ---------------------------------------------------------------------------------


async def test_F17_ended_sessions_are_kept_up_to_a_number_the_newest_ones(
    open_with: Opener,
) -> None:
    retention = Retention(ended_sessions=3)
    storage = await open_with(retention)
    for number in range(10):
        await end(storage, number, moment=number)
    counts = await prune_all(storage, retention, 10)
    assert (counts["sessions"], counts["tasks"]) == (7, 7)
    assert await kept(storage) == [7, 8, 9]
    tasks = await storage.tasks(TaskFilter(), None, 100)
    assert {task.session_id for task in tasks.items} == {session_id(one) for one in (7, 8, 9)}
    total = await storage.counts()
    assert (total.sessions, total.tasks, total.by_status) == (3, 3, {"completed": 3})


@pytest.mark.parametrize(
    ("now", "remaining"), [(WEEK + 5, [5, 6, 7]), (WEEK + 5.001, [6, 7]), (3 * WEEK, [])]
)
async def test_ended_sessions_are_kept_for_a_time(
    storage: Storage, now: float, remaining: list[int]
) -> None:
    for number in range(3, 8):
        await end(storage, number, moment=number)
    await prune_all(storage, Retention(), now)
    assert await kept(storage) == remaining


async def test_F17_of_those_that_ended_at_one_moment_as_many_are_kept(open_with: Opener) -> None:
    retention = Retention(ended_sessions=2, gone_agents=2)
    storage = await open_with(retention)
    for number in range(12):
        await end(storage, number, moment=5)
    await put(storage, *(gone(f"a{number}", 5) for number in range(6)))
    counts = await prune_all(storage, retention, 10)
    assert (counts["sessions"], counts["agents"]) == (10, 4)
    assert len(await kept(storage)) == 2


async def test_F17_nothing_unfinished_is_ever_forgotten(open_with: Opener) -> None:
    retention = Retention(ended_sessions=0, events=1000, agent_history=1, gone_agents=0)
    storage = await open_with(retention)
    await put(storage, builders.agent(concurrency=1))
    tasks = await queue(storage, range(5))
    await storage.apply(
        Change(events=(Event(EventType.SESSION_STARTED, at(0), None, session_id(1)),))
    )
    await claim(storage)
    await end(storage, 9, moment=0)
    await prune_all(storage, retention, 100 * WEEK)
    assert await kept(storage) == [0, 1, 2, 3, 4]
    counts = await storage.counts()
    assert (counts.agents, counts.waiting, counts.in_flight, counts.tasks) == (1, 4, 1, 5)
    assert [event.type for event in await events(storage, session_id=session_id(1))] == [
        EventType.SESSION_STARTED
    ]
    assert (await storage.task_facts(tasks[4].id)) is not None


async def test_a_forgotten_session_is_gone_from_everywhere(open_with: Opener) -> None:
    storage = await open_with(Retention())
    await put(storage, builders.agent())
    await end(storage, 1, moment=0)
    task_id = one_run(1)[1].id
    await prune_all(storage, Retention(), 2 * WEEK)
    assert await storage.session(session_id(1)) is None
    assert await storage.session_facts(session_id(1)) is None
    assert await storage.task_facts(task_id) is None
    facts = await storage.agent_facts("a1", task_id)
    assert facts is not None
    assert facts.named is None
    assert (await storage.tasks(TaskFilter(session_id=session_id(1)), None, 9)).items == ()
    assert await events(storage, session_id=session_id(1)) == ()
    assert await storage.next_due() is None


@pytest.mark.timeout(300)
async def test_lists_go_on_after_much_was_forgotten(open_with: Opener) -> None:
    retention = Retention(ended_sessions=2)
    storage = await open_with(retention)
    for number in range(1200):
        await end(storage, number, moment=number / 1000)
    page = await storage.sessions(SessionFilter(), None, 1)
    await prune_all(storage, retention, 2)
    assert await kept(storage) == [1198, 1199]
    rest = await storage.sessions(SessionFilter(), page.next_cursor, 10)
    assert [one.id for one in rest.items] == [session_id(1198)]
    assert rest.next_cursor is None


async def test_a_batch_is_bounded(open_with: Opener) -> None:
    retention = Retention(ended_sessions=0, batch=4)
    storage = await open_with(retention)
    for number in range(10):
        await end(storage, number, moment=number)
    batches = [await storage.prune(retention, at(10)) for _ in range(4)]
    assert [batch.get("sessions", 0) for batch in batches] == [4, 4, 2, 0]
    assert batches[3] == {}


# --- events -----------------------------------------------------------------------------------


async def test_old_events_are_forgotten_batch_by_batch(open_with: Opener) -> None:
    retention = Retention(batch=4)
    storage = await open_with(retention)
    for number in range(10):
        await storage.apply(Change(events=(Event(EventType.AGENT_LOST, at(number), "a1"),)))
    now = at(7) + retention.event_age
    batches = [(await storage.prune(retention, now)).get("events", 0) for _ in range(3)]
    assert batches == [4, 3, 0]
    assert [event.at for event in await events(storage)] == [at(7), at(8), at(9)]
    assert (await storage.counts()).events == 3


async def test_F17_events_are_bounded_in_number_the_newest_stay(open_with: Opener) -> None:
    retention = Retention(events=1000)
    storage = await open_with(retention)
    given = [Event(EventType.AGENT_LOST, at(number), "a1") for number in range(50)]
    for _ in range(60):
        await storage.apply(Change(events=tuple(given)))
    await prune_all(storage, retention, 60)
    count = (await storage.counts()).events
    assert 1000 <= count <= 1100
    remaining = [event async for event in _read(storage)]
    assert len(remaining) == count
    assert remaining[-1].seq - remaining[0].seq == count - 1
    assert remaining[-1].at == at(49)


async def _read(storage: Storage, where: EventFilter = _ALL) -> Any:
    after = 0
    while got := (await storage.events(where, after, 300)).items:
        for event in got:
            yield event
        after = got[-1].seq


async def retried(storage: Storage, number: int, times: int) -> None:
    """Another session that goes on, and so many events of it."""
    await put(storage, *one_run(number))
    given = [
        Event(EventType.TASK_RETRY, at(0), None, session_id(number), data={"n": n})
        for n in range(times)
    ]
    for start in range(0, times, 100):
        await storage.apply(Change(events=tuple(given[start : start + 100])))


async def of_session(storage: Storage, number: int) -> list[int]:
    where = EventFilter(session_id=session_id(number))
    return [event.data["n"] async for event in _read(storage, where)]


async def test_F17_events_of_a_session_that_never_ends_are_bounded(open_with: Opener) -> None:
    retention = Retention(events=1000, batch=400)
    storage = await open_with(retention)
    await retried(storage, 1, 2700)
    await retried(storage, 2, 50)
    await retried(storage, 3, 1150)
    foreseen = await storage.prunable(retention, at(9))
    assert max(foreseen.values(), default=0) <= 1850
    assert await prune_all(storage, retention, 9) == foreseen
    for number, times in ((1, 2700), (2, 50), (3, 1150)):
        left = await of_session(storage, number)
        assert min(times, 1000) <= len(left) < 2000
        assert left == list(range(times))[-len(left) :]
    assert (await storage.counts()).events <= 2050


async def test_events_of_a_session_that_goes_on_stay_while_there_is_room(
    open_with: Opener,
) -> None:
    retention = Retention(events=4000)
    storage = await open_with(retention)
    await retried(storage, 1, 1900)
    await retried(storage, 2, 1500)
    assert await storage.prunable(retention, at(9)) == await prune_all(storage, retention, 9) == {}
    assert [len(await of_session(storage, number)) for number in (1, 2)] == [1900, 1500]


@pytest.mark.storages("sqlite", "postgres")
async def test_no_more_of_them_go_than_there_are_too_many(open_with: Opener) -> None:
    retention = Retention(events=2000, batch=100)
    storage = await open_with(retention)
    await retried(storage, 1, 1900)
    await end(storage, 2, moment=0)
    await retried(storage, 3, 500)
    foreseen = await storage.prunable(retention, at(9))
    assert foreseen == await prune_all(storage, retention, 9) == {"events": 401}
    assert (await storage.counts()).events == 2000


@pytest.mark.storages("sqlite", "postgres")
async def test_F17_long_sessions_are_found_however_many_go_on(open_with: Opener) -> None:
    retention = Retention(events=1000)
    storage = await open_with(retention)
    for number in range(10, 1210):
        await put(storage, one_run(number)[0])
    await retried(storage, 9000, 1500)
    foreseen = await storage.prunable(retention, at(9))
    looks = [await storage.prune(retention, at(9)) for _ in range(6)]
    assert [one for one in looks if one] == [foreseen] == [{"events": 500}]
    assert await of_session(storage, 9000) == list(range(500, 1500))


@pytest.mark.storages("sqlite", "postgres")
async def test_an_event_whose_time_is_out_of_order_stays_until_that_time(storage: Storage) -> None:
    for moment in (0, 3 * WEEK, 1, 2, 2 * WEEK):
        await storage.apply(Change(events=(Event(EventType.AGENT_LOST, at(moment), "a1"),)))
    await prune_all(storage, Retention(), 2 * WEEK)
    assert {at(3 * WEEK), at(2 * WEEK)} <= {event.at for event in await events(storage)}
    await prune_all(storage, Retention(), 5 * WEEK)
    assert await events(storage) == ()


async def steps_of_a_prune(storage: Storage, retention: Retention) -> int:
    """How many hundred steps SQLite takes for one that has nothing to do."""
    driver, steps = _sql(storage)._driver, 0
    assert isinstance(driver, SqliteDriver)

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    driver._written.set_progress_handler(count, 100)
    assert await storage.prune(retention, at(1)) == {}
    driver._written.set_progress_handler(None, 0)
    return steps


@pytest.mark.storages("sqlite")
async def test_F17_to_forget_nothing_costs_the_same_however_much_there_is(
    open_with: Opener,
) -> None:
    retention = Retention(events=100_000)
    empty, full = await open_with(retention), await open_with(retention)
    await put(full, *one_run(1))
    for number in range(100):
        loose = [Event(EventType.AGENT_STATE, at(0), f"a{number}") for _ in range(100)]
        theirs = [Event(EventType.TASK_RETRY, at(0), None, session_id(1)) for _ in range(100)]
        record = IdempotencyRecord(f"k{number}", "f", session_id(1), at(100))
        receipt = WebhookReceipt(f"{number:064}", at(100))
        await full.apply(Change(events=(*loose, *theirs), idempotency=record, receipt=receipt))
    assert (await full.counts()).events == 20_000
    least = await steps_of_a_prune(empty, retention)
    assert await steps_of_a_prune(full, retention) < least + 30


async def test_old_state_reports_are_forgotten_but_never_the_newest(storage: Storage) -> None:
    retention = Retention()
    for moment in range(5):
        for agent_id in ("a1", "a2"):
            event = Event(EventType.AGENT_STATE, at(moment), agent_id, data={"moment": moment})
            await storage.apply(Change(events=(event,)))
    counts = await prune_all(storage, retention, 3 + WEEK)
    assert counts["history"] == 6
    history = await storage.agent_history("a1", None, 10)
    assert [event.data["moment"] for event in history.items] == [4, 3]
    await prune_all(storage, retention, 99 * WEEK)
    history = await storage.agent_history("a2", None, 10)
    assert [event.data["moment"] for event in history.items] == [4]


# --- keys, receipts, early reports ------------------------------------------------------------


async def test_what_has_expired_is_forgotten_and_counted(storage: Storage) -> None:
    for number in range(3):
        record = IdempotencyRecord(f"k{number}", "f", session_id(number), at(100 + number))
        receipt = WebhookReceipt(f"{number:064}", at(100 + number))
        await storage.apply(Change(receipt=receipt, idempotency=record))
        await storage.keep_early_report(builders.report(agent_id=f"a{number}"), at(number))
    assert await storage.prune(Retention(), at(60)) == {}
    assert await prune_all(storage, Retention(), 62) == {"earlyReports": 2}
    assert await prune_all(storage, Retention(), 101) == {
        "idempotencyKeys": 2,
        "receipts": 2,
        "earlyReports": 1,
    }
    assert await storage.idempotency("k2", at(101)) is not None


# --- several at once --------------------------------------------------------------------------


async def test_idempotency_keys_are_bounded_in_number_but_stay_while_their_session_runs(
    open_with: Opener,
) -> None:
    retention = Retention(idempotency_keys=2)
    storage = await open_with(retention)
    running, task = one_run(1)
    await put(storage, running, task)
    over, last = one_run(2)
    await put(storage, over, last)
    await put(storage, bump(over, status=SessionStatus.COMPLETED, ended_at=at(1)), ended(last))
    owners = {"k0": running.id, "k1": over.id, "k2": "pruned", "k3": over.id, "k4": over.id}
    for number, (key, session) in enumerate(owners.items()):
        record = IdempotencyRecord(key, "f", session, at(100 + number), "flow")
        await storage.apply(Change(idempotency=record))
    assert await storage.prunable(retention, at(2)) == {"idempotencyKeys": 2}
    assert await storage.prune(retention, at(2)) == {"idempotencyKeys": 2}
    kept = [key for key in owners if await storage.idempotency(key, at(2))]
    assert kept == ["k0", "k3", "k4"]
    assert await storage.prune(retention, at(2)) == {}


async def test_two_who_forget_at_once_count_everything_once(replicas: Replicas) -> None:
    stores = await replicas(2)
    first, retention = stores[0], Retention(batch=7)
    for number in range(40):
        await end(first, number, moment=0)
        await put(first, gone(f"a{number}", 0))
        reports = [Event(EventType.AGENT_STATE, at(0), f"b{number}") for _ in range(2)]
        lost = Event(EventType.AGENT_LOST, at(0), f"a{number}")
        receipt = WebhookReceipt(f"{number:064}", at(1))
        await first.apply(Change(events=(*reports, lost), receipt=receipt))
        await first.keep_early_report(builders.report(agent_id=f"c{number}"), at(0))
    foreseen = await first.prunable(retention, at(2 * WEEK))
    counts = await asyncio.gather(*(prune_all(one, retention, 2 * WEEK) for one in stores))
    assert sum(map(Counter, counts), Counter()) == foreseen
    total = await first.counts()
    remaining = [event async for event in _read(first)]
    assert (total.agents, total.sessions, total.tasks) == (0, 0, 0)
    # In memory the log of all and the last reports are kept apart.
    assert total.events == len(remaining) <= 40


async def test_F17_no_event_outlives_its_session(replicas: Replicas) -> None:
    stores, retention = await replicas(4), Retention(batch=3)
    for number in range(40):
        await end(stores[0], number, moment=0)

    async def tell(storage: Storage, number: int) -> bool:
        late = Event(EventType.TASK_LATE, at(1), "a1", session_id(number))
        try:
            await storage.apply(Change(events=(late,)))
        except VersionConflictError:
            return False
        return True

    await asyncio.gather(
        prune_all(stores[0], retention, 2 * WEEK),
        *(tell(stores[2 + number % 2], number) for number in range(40)),
        prune_all(stores[1], retention, 2 * WEEK),
    )
    await prune_all(stores[0], retention, 2 * WEEK)
    assert await kept(stores[0]) == []
    assert not await tell(stores[1], 1)
    assert [event async for event in _read(stores[0])] == []
    assert (await stores[0].counts()).events == 0


# --- what nothing refers to -------------------------------------------------------------------


def _sql(storage: Storage) -> SqlStorage:
    assert isinstance(storage, SqlStorage)
    return storage


async def number_of(storage: Storage, table: str) -> int:
    def program() -> Program[int]:
        rows = yield Fetch(f"SELECT count(*) FROM {table}")
        return int(rows[0][0])

    return await _sql(storage)._driver.read(program())


@pytest.mark.storages("sqlite", "postgres")
async def test_turns_go_with_the_agents_that_took_them(open_with: Opener) -> None:
    retention = Retention(gone_agents=0)
    storage = await open_with(retention)
    agents = [builders.agent(f"a{number}", capabilities=("write",)) for number in range(5)]
    await put(storage, *agents)
    for number, agent in enumerate(agents):
        await queue(storage, [number], wanted_agent=agent.id)
    await queue(storage, [9], wanted_agent=None, wanted_capability="write")
    served = await claim(storage)
    assert await number_of(storage, "turns") == len(served) > 4
    leaving = {"standing": Standing.DEREGISTERED, "standing_since": at(1)}
    await put(storage, *(ended(one.task) for one in served))
    await put(storage, *(bump(agent, **leaving) for agent in agents[1:]))
    await prune_all(storage, retention, 2)
    # Those of the agent that stays, and of the capability that it serves.
    assert await number_of(storage, "turns") == len(served) - 4
    await put(storage, bump(agents[0], **leaving))
    await prune_all(storage, retention, 2)
    assert await number_of(storage, "turns") == 0


@pytest.mark.storages("sqlite", "postgres")
async def test_definitions_that_nothing_uses_are_forgotten(storage: Storage) -> None:
    for number in range(30):
        definition = builders.definition(id=f"flow-{number}", description=f"no. {number}")
        await storage.apply(Change(workflow=WorkflowRevision(definition, 1, at(0))))
    await put(storage, *one_run(1, workflow_id="in-use"))
    assert await number_of(storage, "definitions") == 31
    for number in range(29):
        await storage.apply(Change(deleted_workflow=f"flow-{number}"))
    await storage.prune(Retention(), at(1))
    assert await number_of(storage, "definitions") == 2
    assert await storage.workflow("flow-29") is not None
    assert await storage.session(session_id(1)) is not None


@pytest.mark.storages("postgres")
async def test_what_writers_noted_long_ago_is_forgotten(storage: Storage) -> None:
    await put(storage, builders.agent())
    now = await storage.time()
    assert now is not None

    def older() -> Program[None]:
        yield Execute("INSERT INTO commits (writer, number, at) VALUES (?, ?, ?)", [("x", 1, 0)])

    await _sql(storage)._driver.write(older)
    assert await number_of(storage, "commits") == 2
    await storage.prune(Retention(), now)
    assert await number_of(storage, "commits WHERE writer <> 'x'") == 1
    assert await number_of(storage, "commits") == 1


# --- agents -----------------------------------------------------------------------------------


async def known(storage: Storage) -> int:
    return (await storage.counts()).agents


def gone(agent_id: str, since: float, **changes: Any) -> Any:
    standing = {"standing": Standing.DEREGISTERED, "standing_since": at(since)}
    return builders.agent(agent_id, **standing | changes)


@pytest.mark.parametrize(("now", "remaining"), [(WEEK + 5, 3), (WEEK + 6.5, 1), (2 * WEEK, 0)])
async def test_deregistered_agents_are_kept_for_a_time(
    storage: Storage, now: float, remaining: int
) -> None:
    await put(storage, gone("a5", 5), gone("a6", 6), gone("a7", 7))
    await prune_all(storage, Retention(), now)
    assert await known(storage) == remaining


async def test_F17_deregistered_agents_are_bounded_in_number(open_with: Opener) -> None:
    retention = Retention(gone_agents=2)
    storage = await open_with(retention)
    await put(storage, *(gone(f"a{number}", number) for number in range(6)))
    await put(storage, builders.agent("here"))
    counts = await prune_all(storage, retention, 9)
    assert counts["agents"] == 4
    assert await storage.agent("a3") is None
    assert [await storage.agent(one) is not None for one in ("a4", "a5", "here")] == [True] * 3


async def test_a_gone_agent_that_goes_on_reporting_crowds_nobody_out(open_with: Opener) -> None:
    retention = Retention(gone_agents=2)
    storage = await open_with(retention)
    agent = gone("noisy", 1)
    await put(storage, gone("quiet", 0), agent)
    for moment in range(10):
        agent = bump(agent, last_seen_at=at(moment))
        await put(storage, agent)
    await prune_all(storage, retention, 20)
    assert await known(storage) == 2


async def test_the_time_counts_from_the_last_deregistration(storage: Storage) -> None:
    agent = gone("a1", 0)
    await put(storage, agent)
    back = bump(agent, standing=Standing.REGISTERED, standing_since=at(10))
    await put(storage, back)
    await prune_all(storage, Retention(), 2 * WEEK)
    assert await known(storage) == 1
    await put(storage, bump(back, standing=Standing.DEREGISTERED, standing_since=at(2 * WEEK)))
    await prune_all(storage, Retention(), 3 * WEEK - 1)
    assert await known(storage) == 1
    await prune_all(storage, Retention(), 3 * WEEK + 1)
    assert await known(storage) == 0


@pytest.mark.parametrize("in_flight", [True, False])
async def test_F62_a_gone_agent_is_known_until_its_last_task_ended(
    storage: Storage, in_flight: bool
) -> None:
    agent = builders.agent()
    await put(storage, agent)
    (task,) = await queue(storage, [1])
    if in_flight:
        task = (await claim(storage))[0].task
    await put(storage, bump(agent, standing=Standing.DEREGISTERED, standing_since=at(0)))
    await prune_all(storage, Retention(), 2 * WEEK)
    assert await known(storage) == 1
    await put(storage, bump(task, status=TaskStatus.FAILED, ended_at=at(9)))
    await prune_all(storage, Retention(), 2 * WEEK)
    assert await known(storage) == 0


async def test_a_forgotten_agent_may_register_anew(storage: Storage) -> None:
    await put(storage, gone("a1", 0))
    event = Event(EventType.AGENT_STATE, at(0), "a1")
    await storage.apply(Change(events=(event,)))
    await prune_all(storage, Retention(event_age=timedelta(weeks=9)), 2 * WEEK)
    assert (await storage.agent_history("a1", None, 9)).items == ()
    assert await storage.agent_facts("a1") is None
    await put(storage, builders.agent("a1"))
    (task,) = await queue(storage, [1])
    assert [one.task.id for one in await claim(storage)] == [task.id]


# --- foreseen ---------------------------------------------------------------------------------


@pytest.mark.parametrize("now", [0.0, 62.0, 101.0, WEEK + 4, 3 * WEEK])
async def test_what_would_be_forgotten_is_what_is_forgotten(open_with: Opener, now: float) -> None:
    retention = Retention(ended_sessions=6, gone_agents=2, batch=3)
    storage = await open_with(retention)
    for number in range(8):
        await end(storage, number, moment=number)
        await put(storage, gone(f"a{number}", number))
        report = Event(EventType.AGENT_STATE, at(number), f"b{number % 2}")
        await storage.apply(Change(events=(report, Event(EventType.AGENT_LOST, at(number), "b1"))))
    record = IdempotencyRecord("k", "f", session_id(1), at(100))
    await storage.apply(Change(receipt=WebhookReceipt("r", at(100)), idempotency=record))
    await storage.keep_early_report(builders.report(agent_id="early"), at(1))
    before = await storage.counts()
    foreseen = await storage.prunable(retention, at(now))
    assert await storage.counts() == before
    assert await prune_all(storage, retention, now) == foreseen
    assert foreseen["sessions"] >= 2
    assert await storage.prunable(retention, at(now)) == {}


async def test_reopened_session_is_not_pruned_until_it_ends_again(storage: Storage) -> None:
    session, task = one_run(1)
    await put(storage, session, task)
    failed = bump(session, status=SessionStatus.FAILED, ended_at=at(0))
    lost = bump(task, status=TaskStatus.FAILED, ended_at=at(0))
    await put(storage, failed, lost)
    open_again = bump(failed, status=SessionStatus.WAITING, ended_at=None)
    queued = bump(lost, status=TaskStatus.QUEUED, ended_at=None)
    await put(storage, open_again, queued)
    assert await storage.prunable(Retention(), at(2 * WEEK)) == {}
    assert await prune_all(storage, Retention(), 2 * WEEK) == {}
    counts = await storage.counts()
    assert (counts.sessions, counts.by_status) == (1, {"queued": 1})
    await put(
        storage,
        bump(open_again, status=SessionStatus.COMPLETED, ended_at=at(WEEK)),
        bump(queued, status=TaskStatus.COMPLETED, ended_at=at(WEEK)),
    )
    assert await prune_all(storage, Retention(), WEEK + 60) == {}
    assert await prune_all(storage, Retention(), 3 * WEEK) == {"sessions": 1, "tasks": 1}
    assert (await storage.counts()).by_status == {}


async def test_reopened_task_is_claimed_again_with_the_next_attempt(storage: Storage) -> None:
    await put(storage, builders.agent())
    session, task = one_run(1)
    await put(storage, session, task)
    [first] = await claim(storage)
    failed = bump(first.session, status=SessionStatus.FAILED, ended_at=at(1))
    lost = bump(first.task, status=TaskStatus.FAILED, ended_at=at(1), owner=None, lease_until=None)
    await put(storage, failed, lost)
    await put(
        storage,
        bump(failed, status=SessionStatus.WAITING, ended_at=None),
        bump(lost, status=TaskStatus.QUEUED, ended_at=None),
    )
    [again] = await claim(storage, after=2)
    assert (again.task.id, again.task.attempt) == (task.id, first.task.attempt + 1)
    page = await storage.odd_sessions(None, 100)
    assert page.items == ()
