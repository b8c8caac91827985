"""The service's clock: steady for deadlines, and a wait that an event can end."""

import asyncio
from datetime import UTC, timedelta

import pytest
import time_machine

from opscore.clock import SystemClock

LONG = timedelta(seconds=30)


def test_both_times_are_in_utc_and_agree_at_first() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.wall().tzinfo is UTC
    assert abs(clock.wall() - clock.now()) < timedelta(seconds=1)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)])
def test_F20_a_jump_of_the_wall_clock_leaves_the_steady_time_alone(jump: timedelta) -> None:
    clock = SystemClock()
    before = clock.now()
    with time_machine.travel(clock.wall() + jump, tick=False):
        assert before <= clock.now() < before + timedelta(minutes=1)
        assert abs(clock.wall() - clock.now() - jump) < timedelta(minutes=1)


async def test_a_wait_ends_when_its_moment_comes() -> None:
    clock = SystemClock()
    until = clock.now() + timedelta(milliseconds=20)
    await clock.wait(asyncio.Event(), until)
    assert clock.now() >= until


async def test_a_moment_that_has_passed_is_not_waited_for() -> None:
    clock = SystemClock()
    async with asyncio.timeout(5):
        await clock.wait(asyncio.Event(), clock.now() - LONG)


@pytest.mark.parametrize("until", [None, LONG])
async def test_an_event_ends_the_wait(until: timedelta | None) -> None:
    clock, event = SystemClock(), asyncio.Event()
    wait = asyncio.create_task(clock.wait(event, None if until is None else clock.now() + until))
    await asyncio.sleep(0)
    assert not wait.done()
    event.set()
    async with asyncio.timeout(5):
        await wait


async def test_an_event_that_is_set_already_is_enough() -> None:
    clock, event = SystemClock(), asyncio.Event()
    event.set()
    async with asyncio.timeout(5):
        await clock.wait(event, None)
