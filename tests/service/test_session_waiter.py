"""Triggers that wait for the end of their session."""

import asyncio
from typing import Any

from opscore.models import Answered, SessionStatus, TaskResult
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import Switchboard


async def test_wait_returns_the_session_at_its_end_and_not_before(build: Builder) -> None:
    house = await build(board := Switchboard())
    await house.register()
    session = await house.trigger()
    wait = asyncio.create_task(house.lifecycle.wait_for_end(session.id, 60))
    await house.pass_time(30)
    assert not wait.done()
    await board.answer(Answered("x"))
    await settle(50)
    ended = await wait
    assert ended is not None
    assert (ended.status, ended.output) == (SessionStatus.COMPLETED, "x")


async def test_wait_ends_when_its_time_is_over(build: Builder) -> None:
    house = await build(Switchboard())
    await house.register()
    session = await house.trigger()
    wait = asyncio.create_task(house.lifecycle.wait_for_end(session.id, 3))
    await house.pass_time(2)
    assert not wait.done()
    await house.pass_time(2)
    assert await wait is None


async def test_wait_for_what_has_ended_returns_at_once(build: Builder) -> None:
    house = await build(Switchboard(always=Answered(1)))
    await house.register()
    session = await house.trigger()
    await settle(50)
    ended = await house.lifecycle.wait_for_end(session.id, 60)
    assert ended is not None
    assert await house.lifecycle.wait_for_end("01939d3a-0000-7000-8000-00000000ffff", 60) is None


async def test_drain_ends_every_wait(build: Builder) -> None:
    house = await build(Switchboard())
    await house.register()
    session = await house.trigger()
    waits = [asyncio.create_task(house.lifecycle.wait_for_end(session.id, 60)) for _ in range(3)]
    await settle(50)
    house.lifecycle.drain()
    assert await asyncio.gather(*waits) == [None, None, None]
    assert await house.lifecycle.wait_for_end(session.id, 60) is None


async def test_wait_reads_seldom_and_only_where_others_write(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(Switchboard(), storage=storage)
    await house.register()
    session = await house.trigger()
    before = storage.asked["session"]
    wait = asyncio.create_task(house.lifecycle.wait_for_end(session.id, 60))
    await house.pass_time(59)
    reads = storage.asked["session"] - before
    await house.lifecycle.report_result((await house.task()).id, TaskResult(True, 1))
    assert await wait is not None
    assert reads == 1 if house.storage.exclusive else 1 < reads <= 20


class LateAnswers(Moody):
    """Reads sessions at once; while they are `late`, hands them on when the gate opens."""

    late = False

    async def ask(self, method: str, *args: Any, **named: Any) -> Any:
        answer = await super().ask(method, *args, **named)
        if self.late and method == "session":
            await self.gate.wait()
        return answer


async def test_end_that_comes_during_a_read_ends_the_wait(build: Builder) -> None:
    storage = await build.storage(LateAnswers)
    house = await build(Switchboard(), storage=storage)
    await house.register()
    session = await house.trigger()
    storage.late = True
    wait = asyncio.create_task(house.lifecycle.wait_for_end(session.id, 60))
    await settle(50)
    await house.lifecycle.report_result((await house.task()).id, TaskResult(True, 1))
    storage.gate.set()
    await settle(50)
    assert wait.done()
    assert await wait is not None
