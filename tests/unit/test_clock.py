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


# --- agreeing with others ---------------------------------------------------------------------


class Hands:
    """A machine's clocks, moved by hand."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.clock = SystemClock(lambda: self.time, lambda: self.time)

    def read(self) -> float:
        return self.clock.now().timestamp() - 1_800_000_000.0

    def agree(self, ahead: float, *, at_once: bool = False) -> None:
        self.clock.agree(timedelta(seconds=ahead), at_once=at_once)

    def pass_time(self, seconds: float) -> None:
        self.time += seconds


@pytest.mark.parametrize("ahead", [3600, 0.5, -0.5, -3600])
def test_at_its_start_it_takes_the_others_time_as_it_is(ahead: float) -> None:
    hands = Hands()
    hands.agree(ahead, at_once=True)
    assert hands.read() == pytest.approx(ahead)
    assert hands.clock.wall().timestamp() == hands.time


@pytest.mark.parametrize("ahead", [3600, 0.5, -11, -3600])
def test_it_is_set_if_it_is_late_or_far_off(ahead: float) -> None:
    hands = Hands()
    hands.agree(ahead)
    assert hands.read() == pytest.approx(ahead)


@pytest.mark.parametrize("ahead", [0.009, 0, -0.009])
def test_the_noise_of_measuring_does_not_move_it(ahead: float) -> None:
    hands = Hands()
    hands.agree(ahead)
    assert hands.read() == 0


def test_if_it_is_ahead_it_runs_slowly_and_never_back() -> None:
    hands = Hands()
    hands.agree(-2)
    seen = [hands.read()]
    for _ in range(60):
        hands.pass_time(0.1)
        seen.append(hands.read())
    assert seen == sorted(seen)
    assert seen[20] == pytest.approx(1, abs=0.001)
    assert seen[-1] == pytest.approx(4, abs=0.001)


def test_what_it_has_not_yet_made_up_for_is_measured_anew() -> None:
    hands = Hands()
    hands.agree(-2)
    hands.pass_time(2)
    hands.agree(-1)
    hands.pass_time(10)
    assert hands.read() == pytest.approx(10)
    hands.agree(-4)
    hands.pass_time(2)
    hands.agree(0)
    hands.pass_time(2)
    assert hands.read() == pytest.approx(13)
