"""The server: what signals do, and how it starts and ends."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.lifespan.on import LifespanOn

from opscore.api.core import Core
from opscore.api.http_server.open_files import limit_accept_errors

ENDED_AT_ONCE = 1

logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """On the first signal the service drains while it still answers; on the second it ends.

    SIGHUP, which a closing terminal sends, only drains: the terminal and the shell may both send
    it.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, flush: Callable[[], object]) -> None:
        super().__init__(config)
        self._app = app
        self._flush_log = flush
        self._starting: asyncio.Task[Any] | None = None
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        handled = [signal.SIGTERM, signal.SIGINT]
        # Under nohup it is ignored, and has to stay so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            handled.append(signal.SIGHUP)
        for number in handled:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)
            # Asyncio leaves a handler that raises; nothing is left now that could be interrupted.
            signal.signal(signal.SIGINT, signal.SIG_DFL)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """A start may wait for a database; a signal meanwhile calls it off."""
        self._starting = asyncio.current_task()
        limit_accept_errors(asyncio.get_running_loop())
        try:
            await super().startup(sockets)
        except asyncio.CancelledError:
            if self._starting is None or not self.should_exit:
                raise
            self._starting.uncancel()
            await self._end_application()

    async def _end_application(self) -> None:
        """Shut the application down if it had started before the server had."""
        lifespan = self.lifespan
        if isinstance(lifespan, LifespanOn) and lifespan.startup_event.is_set():
            await lifespan.shutdown()

    def _on_signal(self, number: signal.Signals) -> None:
        if self.started:
            self._drain_or_end(number)
        elif self._starting is not None and not self.should_exit:
            self.should_exit = True
            self._starting.cancel()
        elif number is not signal.SIGHUP:
            self._end_at_once()

    def _drain_or_end(self, number: signal.Signals) -> None:
        if self._draining is None:
            logger.info("Draining: no new work; a second signal ends the service at once.")
            self._draining = asyncio.create_task(self._drain(), name="drain")
        elif number is not signal.SIGHUP:
            self._end_at_once()

    async def _drain(self) -> None:
        core: Core = self._app.state.core
        try:
            await core.drain()
        finally:
            self.should_exit = True

    def _end_at_once(self) -> None:
        """End as a crash would, which loses nothing that was acknowledged.

        An orderly end of what is at work could take as long as the drain that was not waited for.
        """
        logger.warning("Ended at once by a second signal: leases run out by themselves.")
        self._flush_log()
        os._exit(ENDED_AT_ONCE)
