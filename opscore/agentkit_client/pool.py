"""Connections kept open for the next message."""

import httpcore

from opscore.agentkit_client.guarded_stream import Connection


class IdleConnections:
    """The newest connection of an origin is used again first, so that what is too many expires."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._closed = False
        # The origin used longest ago stands first, and its oldest connection in front.
        self._idle: dict[tuple[bytes, bytes, int], list[Connection]] = {}

    async def take(self, origin: httpcore.Origin) -> Connection | None:
        """A connection that is still good, or None."""
        key = _key(origin)
        while key in self._idle:
            connection = self._pop(key, -1)
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return None

    async def give_back(self, origin: httpcore.Origin, connection: Connection) -> None:
        if self._closed:
            await connection.aclose()
        if not connection.is_idle():
            return
        key = _key(origin)
        stack = self._idle.pop(key, [])
        stack.append(connection)
        self._idle[key] = stack
        self._count += 1
        await self._drop_stale()

    async def close(self) -> None:
        self._closed = True
        while self._idle:
            await self._pop(next(iter(self._idle)), -1).aclose()

    async def _drop_stale(self) -> None:
        while self._idle:
            first = next(iter(self._idle))
            if self._count <= self._limit and not self._idle[first][0].has_expired():
                return
            await self._pop(first, 0).aclose()

    def _pop(self, key: tuple[bytes, bytes, int], position: int) -> Connection:
        stack = self._idle[key]
        connection = stack.pop(position)
        self._count -= 1
        if not stack:
            del self._idle[key]
        return connection


def _key(origin: httpcore.Origin) -> tuple[bytes, bytes, int]:
    return origin.scheme, origin.host, origin.port
