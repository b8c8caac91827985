"""A check that the storage takes writes, at a bounded rate."""

import asyncio
from datetime import datetime, timedelta

from opscore.clock import Clock
from opscore.storage import Storage

_INTERVAL = timedelta(seconds=1)


class StorageCheck:
    """Writes to the storage at most once a second, however many requests ask for it.

    Requests that ask while a write is in flight share its result. Only success is remembered:
    after a failure the next request tries again, so recovery is seen at once.
    """

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._written_at: datetime | None = None
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Raise StorageError if the storage does not take a write."""
        if self._writing is None:
            if self._is_fresh():
                return
            self._writing = asyncio.create_task(self._write(), name="storage check")
            self._writing.add_done_callback(self._finish)
        # A client that disconnects must not cancel the write that others wait for.
        await asyncio.shield(self._writing)

    def _is_fresh(self) -> bool:
        written_at = self._written_at
        return written_at is not None and self._clock.now() < written_at + _INTERVAL

    async def _write(self) -> None:
        await self._storage.ping()
        self._written_at = self._clock.now()

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._writing = None
        if not task.cancelled():
            # Retrieved here too, for all who waited for it may have disconnected.
            task.exception()
