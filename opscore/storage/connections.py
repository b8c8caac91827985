"""A bounded number of connections to one database, handed out one by one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar

from opscore.exceptions import StorageError


class Connection(Protocol):
    def is_closed(self) -> bool: ...

    def is_in_transaction(self) -> bool: ...

    def terminate(self) -> None: ...


C = TypeVar("C", bound=Connection)


class Connections(Generic[C]):
    """Opened when needed, kept for the next one, and dropped when anything is odd about them."""

    def __init__(self, connect: Callable[[], Awaitable[C]], limit: int, patience: float) -> None:
        self._connect = connect
        self._limit = limit
        self._patience = patience
        self._free = asyncio.Semaphore(limit)
        self._idle: list[C] = []

    @asynccontextmanager
    async def take(self) -> AsyncIterator[C]:
        await self._wait_for_turn()
        try:
            connection = self._kept() or await self._connect()
            try:
                yield connection
            finally:
                self._give_back(connection)
        finally:
            self._free.release()

    def close(self) -> None:
        """Drop those that nobody uses; the others are dropped when they come back."""
        self._limit = 0
        self.drop_idle()

    def drop_idle(self) -> None:
        for connection in self._idle:
            connection.terminate()
        self._idle.clear()

    async def _wait_for_turn(self) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError as error:
            raise StorageError(
                f"All {self._limit} connections to the database are busy; try again shortly.",
                retry_after=1,
            ) from error

    def _kept(self) -> C | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _give_back(self, connection: C) -> None:
        odd = connection.is_closed() or connection.is_in_transaction()
        if odd or not self._limit:
            connection.terminate()
        else:
            self._idle.append(connection)
