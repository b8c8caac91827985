"""Forgetting: what has ended and is too old or too much, and nothing else."""

from datetime import timedelta
from typing import Any

import pytest

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
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at
from tests.contract.conftest import Opener
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


async def _read(storage: Storage) -> Any:
    after = 0
    while got := (await storage.events(_ALL, after, 300)).items:
        for event in got:
            yield event
        after = got[-1].seq


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
