"""Hints between processes on one PostgreSQL: a task may have become ready.

Nothing depends on them. Where the engine has no LISTEN, or a hint is lost, work is found by the
next look.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from asyncpg.connection import Connection

from opscore.ids import new_id

logger = logging.getLogger(__name__)

_CHANNEL = "opscore"
_LEAST_PAUSE = 0.1
_PAUSE_AFTER_TROUBLE = 5.0
_STATEMENT_SECONDS = 5.0
_UNKNOWN_HERE = (asyncpg.FeatureNotSupportedError, asyncpg.PostgresSyntaxError)
_TROUBLE = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)


class Hints:
    """`wake` is called for the hints of others; `give` tells them, at most ten times a second."""

    def __init__(
        self, connect: Callable[[], Awaitable[Connection]], wake: Callable[[], None]
    ) -> None:
        self._connect = connect
        self._wake = wake
        self._id = new_id()
        self._given = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="storage hints")

    def give(self) -> None:
        self._given.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                await self._exchange()
            except _UNKNOWN_HERE as error:
                logger.info("This database gives no hints (%s); work is looked for.", error)
                return
            except _TROUBLE as error:
                logger.debug("Hints are put off: %s", error)
                await asyncio.sleep(_PAUSE_AFTER_TROUBLE)

    async def _exchange(self) -> None:
        """Listen, and pass on what is given, as long as the connection lasts."""
        link = await self._connect()
        try:
            # A connection that ends is noticed by using it.
            link.add_termination_listener(lambda _: self.give())
            async with asyncio.timeout(_STATEMENT_SECONDS):
                await link.add_listener(_CHANNEL, self._heard)
            while True:
                await self._given.wait()
                self._given.clear()
                await link.execute(
                    "SELECT pg_notify($1, $2)", _CHANNEL, self._id, timeout=_STATEMENT_SECONDS
                )
                await asyncio.sleep(_LEAST_PAUSE)
        finally:
            link.terminate()

    def _heard(self, _link: Any, _pid: int, _channel: str, sender: str) -> None:
        if sender != self._id:
            self._wake()
