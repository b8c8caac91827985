"""Two replicas on one PostgreSQL, as far as the core goes: what reaches both counts once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from opscore.exceptions import WebhookReplayedError
from opscore.models import (
    EventFilter,
    EventType,
    Registration,
    Retention,
    StateReport,
    TaskStatus,
    WebhookReceipt,
)
from opscore.storage import Storage, open_storage
from tests.acceptance.processes import eventually
from tests.builders import at, step
from tests.fakes import FakeCourier
from tests.service.house import House
from tests.storages import empty_url

pytestmark = pytest.mark.storages("postgres")  # the others have one process at a time

HUNDRED = 100
LISTENING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND query LIKE 'LISTEN %' AND state = 'idle'"""


@pytest.fixture
def couriers() -> list[FakeCourier]:
    return [FakeCourier(), FakeCourier()]


@pytest.fixture
async def houses(storage_kind: str, couriers: list[FakeCourier]) -> AsyncIterator[list[House]]:
    """Two replicas whose dispatchers do not run, and who hear each other's hints."""
    with empty_url(storage_kind) as url:
        stores = [await open_storage(url, Retention()) for _ in couriers]
        houses = [
            House(storage, courier, owner=f"d{number}")
            for number, (storage, courier) in enumerate(zip(stores, couriers, strict=True))
        ]
        await until_listening(url, len(houses))
        yield houses
        for storage in stores:
            await storage.close()


async def until_listening(url: str, count: int) -> None:
    """A hint that is given before is lost."""
    watcher = await asyncpg.connect(url)
    try:
        await eventually(lambda: watcher.fetchval(LISTENING), lambda seen: seen == count)
    finally:
        await watcher.close()


async def events(storage: Storage, kind: EventType) -> list[Any]:
    return list((await storage.events(EventFilter(frozenset({kind})), 0, 1000)).items)


async def test_F44_a_hundred_equal_reports_at_two_replicas_count_once(
    houses: list[House],
) -> None:
    first, second = houses
    await first.register()
    session = await first.trigger(step("one"), step("two"))
    now = first.clock.now()
    (claim,) = await first.storage.claim("d0", now, at(60), 1)
    report = StateReport("a1", "finished", {"task_id": claim.task.id, "result": 7}, now)
    await asyncio.gather(
        *(houses[number % 2].engine.agent_reported(report) for number in range(HUNDRED))
    )
    statuses = {task.step_id: task.status for task in await second.tasks(session.id)}
    assert statuses == {"one": TaskStatus.COMPLETED, "two": TaskStatus.QUEUED}
    assert len(await events(first.storage, EventType.TASK_COMPLETED)) == 1
    candidate = await second.storage.agent("a1")
    assert candidate is not None
    assert candidate.in_flight == 0


async def test_F58_a_webhook_that_reaches_both_is_applied_once(houses: list[House]) -> None:
    registration = Registration("a1", "one", ("research",))
    receipt = WebhookReceipt("signature", at(600))

    async def notify(number: int) -> str:
        try:
            await houses[number % 2].engine.register(registration, receipt)
        except WebhookReplayedError:
            return "duplicate"
        return "applied"

    outcomes = Counter(await asyncio.gather(*map(notify, range(20))))
    assert outcomes == {"applied": 1, "duplicate": 19}
    assert len(await events(houses[0].storage, EventType.AGENT_REGISTERED)) == 1


async def test_a_task_made_ready_at_one_is_taken_by_the_other_at_once(
    houses: list[House], couriers: list[FakeCourier]
) -> None:
    """Though time stands still, and the other looks by itself only when time passes."""
    first, second = houses
    await second.start()
    await first.register()
    session = await first.trigger(step("one"))
    await second.eventually(lambda: bool(couriers[1].sent))
    assert couriers[1].sent[0][1].session.id == session.id
    await second.close()


async def test_F99_equal_triggers_at_two_replicas_start_one_session(houses: list[House]) -> None:
    await houses[0].register()
    started = await asyncio.gather(
        *(house.trigger(key="once", id="flow") for house in houses for _ in range(2)),
        return_exceptions=True,
    )
    sessions = {one.id for one in started if not isinstance(one, BaseException)}
    assert len(sessions) == 1
    assert (await houses[1].storage.counts()).sessions == 1


async def test_wait_at_one_replica_sees_the_end_at_the_other(houses: list[House]) -> None:
    here, there = houses
    await here.register()
    session = await here.trigger()
    wait = asyncio.create_task(here.lifecycle.wait_for_end(session.id, 60))
    task = await here.task(session.id)
    await there.lifecycle.cancel_task(task.id, "elsewhere")
    await here.pass_time(2)
    async with asyncio.timeout(10):
        ended = await wait
    assert ended is not None
    assert ended.status.ended


async def test_retries_at_both_replicas_at_once_reopen_the_session_once(
    houses: list[House],
) -> None:
    here, there = houses
    await here.register()
    session = await here.trigger()
    await here.lifecycle.cancel_task((await here.task(session.id)).id, "not so")
    ends = await asyncio.gather(
        *(house.lifecycle.retry_session(session.id) for house in (here, there) * 5),
        return_exceptions=True,
    )
    assert sum(not isinstance(end, BaseException) for end in ends) == 1
    assert len(await here.events(EventType.SESSION_RESUMED)) == 1
