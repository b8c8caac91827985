"""Looking through what is unfinished, a stretch at a time."""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from opscore.models import Page, SessionStatus, TaskStatus
from opscore.storage import Storage
from opscore.storage.sql import SqlStorage
from opscore.storage.sql.counting import Tallies
from tests.builders import at
from tests.contract.shelf import one_run, put

TIMED = (TaskStatus.DISPATCHED, TaskStatus.RUNNING, TaskStatus.DELAYED)


async def all_of(look: Callable[[str | None, int], Awaitable[Page[Any]]], limit: int) -> list[Any]:
    found: list[Any] = []
    cursor: str | None = None
    for _ in range(1000):
        page = await look(cursor, limit)
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("it never comes to an end")


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_every_task_that_is_delayed_or_in_flight_is_seen_once_with_its_session(
    storage: Storage, limit: int
) -> None:
    sessions = {}
    for number in range(20):
        status = list(TaskStatus)[number % len(TaskStatus)]
        # Some were made at the same moment.
        session, task = one_run(number, status=status, created_at=at(number // 3))
        await put(storage, session, task)
        if task.status in TIMED:
            sessions[task.id] = session
    seen = await all_of(storage.timed_tasks, limit)
    assert Counter(facts.task.id for facts in seen) == dict.fromkeys(sessions, 1)
    assert all(facts.session == sessions[facts.task.id] for facts in seen)


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_a_session_goes_on_as_long_as_a_task_of_it_or_is_at_odds_with_it(
    storage: Storage, limit: int
) -> None:
    odd = []
    for number, status in enumerate(SessionStatus):
        for place, task_status in enumerate(TaskStatus):
            session, task = one_run(number * 10 + place, status=task_status)
            ended_at = at(1) if status.ended else None
            await put(storage, replace(session, status=status, ended_at=ended_at), task)
            if task_status.ended is not status.ended:
                odd.append(session.id)
    bare, _ = one_run(999)
    over, _ = one_run(998)
    await put(storage, bare, replace(over, status=SessionStatus.FAILED, ended_at=at(1)))
    assert sorted(await all_of(storage.odd_sessions, limit)) == sorted([*odd, bare.id])


@pytest.mark.parametrize("limit", [1, 1000])
async def test_what_is_sound_needs_no_mending(storage: Storage, limit: int) -> None:
    for number in range(3):
        await put(storage, *one_run(number))

    async def mend(cursor: str | None, limit: int) -> Page[Any]:
        return await storage.mend(cursor, limit, at(0))

    assert await all_of(mend, limit) == []


@pytest.mark.storages("sqlite", "postgres")
async def test_a_number_that_was_mended_meanwhile_is_left_alone(storage: Storage) -> None:
    assert isinstance(storage, SqlStorage)
    await put(storage, *one_run(1))
    before = await storage.counts()
    found = await storage._driver.write(lambda: Tallies().mend(["sessions"], at(0)))
    assert found == []
    assert await storage.counts() == before
