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

LIVELY = [one for one in TaskStatus if not one.ended]


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
async def test_every_unfinished_task_is_seen_once_with_its_session(
    storage: Storage, limit: int
) -> None:
    sessions = {}
    for number in range(20):
        status = list(TaskStatus)[number % len(TaskStatus)]
        # Some were made at the same moment.
        session, task = one_run(number, status=status, created_at=at(number // 3))
        await put(storage, session, task)
        if task.status in LIVELY:
            sessions[task.id] = session
    seen = await all_of(storage.unfinished_tasks, limit)
    assert Counter(facts.task.id for facts in seen) == dict.fromkeys(sessions, 1)
    assert all(facts.session == sessions[facts.task.id] for facts in seen)


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_a_session_is_idle_if_it_goes_on_but_none_of_its_tasks_does(
    storage: Storage, limit: int
) -> None:
    idle = []
    for number, status in enumerate(SessionStatus):
        for place, task_status in enumerate(TaskStatus):
            session, task = one_run(number * 10 + place, status=task_status)
            ended_at = at(1) if status.ended else None
            await put(storage, replace(session, status=status, ended_at=ended_at), task)
            if task_status.ended and not status.ended:
                idle.append(session.id)
    bare, _ = one_run(999)
    await put(storage, bare)
    assert sorted(await all_of(storage.idle_sessions, limit)) == sorted([*idle, bare.id])


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
