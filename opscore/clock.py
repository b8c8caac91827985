"""Time, as the service sees it."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The steady time: never jumps, whatever is done to the wall clock. Deadlines use it."""

    def wall(self) -> datetime:
        """The wall clock, for comparing with what other machines say."""

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        """Return when the event is set or the steady time reaches `until`."""


class SystemClock:
    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> datetime:
        return datetime.fromtimestamp(time.monotonic() + self._offset, UTC)

    def wall(self) -> datetime:
        return datetime.now(UTC)

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        timeout = None if until is None else max(0.0, (until - self.now()).total_seconds())
        try:
            async with asyncio.timeout(timeout):
                await event.wait()
        except TimeoutError:
            return
