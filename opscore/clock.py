"""Time, as the service sees it."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

# Less than this is the noise of measuring it.
_UNHEARD = 0.01
# A clock that is ahead by no more than this is slowed down; by more, it is set back.
_SLOWED_FOR = 10.0
_SLOWNESS = 0.5


class Clock(Protocol):
    def now(self) -> datetime:
        """The steady time: never jumps, whatever is done to the wall clock. Deadlines use it."""

    def wall(self) -> datetime:
        """The wall clock, for comparing with what other machines say."""

    def agree(self, ahead: timedelta, *, at_once: bool = False) -> None:
        """Others' steady time is ahead of this one by so much: go with theirs from now on."""

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        """Return when the event is set or the steady time reaches `until`."""


class SystemClock:
    """`now` begins at the wall clock's time and is moved by `agree` alone.

    It is set forward at once. If it is ahead by a little, it runs slowly until that is made up
    for, because whoever has read it relies on it not to go back.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._steady = steady
        self._offset = wall() - steady()
        self._slow_since = 0.0
        self._to_lose = 0.0

    def now(self) -> datetime:
        steady = self._steady()
        return datetime.fromtimestamp(steady + self._offset - self._lost(steady), UTC)

    def wall(self) -> datetime:
        return datetime.fromtimestamp(self._wall(), UTC)

    def agree(self, ahead: timedelta, *, at_once: bool = False) -> None:
        seconds, steady = ahead.total_seconds(), self._steady()
        self._offset -= self._lost(steady)
        self._to_lose = 0.0
        if abs(seconds) < _UNHEARD:
            return
        if -_SLOWED_FOR < seconds < 0 and not at_once:
            self._slow_since, self._to_lose = steady, -seconds
        else:
            self._offset += seconds

    def _lost(self, steady: float) -> float:
        return min(self._to_lose, (steady - self._slow_since) * _SLOWNESS)

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        timeout = None if until is None else max(0.0, (until - self.now()).total_seconds())
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return
