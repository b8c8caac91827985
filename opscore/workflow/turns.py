"""One at a time for each key: those who come later wait for their turn."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeVar

R = TypeVar("R")


class Turns:
    """A lock for each key, first come first served. Nothing is kept of a free key."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[asyncio.Future[None]] | None] = {}

    async def run(self, key: str, work: Callable[[], Awaitable[R]]) -> R:
        """Run the work while the caller holds the key; return its result."""
        if not self.take(key):
            await self.wait(key)
        try:
            return await work()
        finally:
            self.leave(key)

    def is_free(self, key: str) -> bool:
        return key not in self._queues

    def take(self, key: str) -> bool:
        """Whether nobody held the key; the caller holds it now."""
        if key in self._queues:
            return False
        self._queues[key] = None
        return True

    async def wait(self, key: str) -> None:
        """Return when the caller's turn has come."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._queues[key]
        if queue is None:
            queue = self._queues[key] = deque()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                # The turn came and the caller went at the same moment.
                self.leave(key)
            raise

    def leave(self, key: str) -> None:
        queue = self._queues[key]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._queues[key]
