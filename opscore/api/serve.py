"""`opscore serve`: the application behind uvicorn, with an end as orderly as its beginning."""

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from opscore.api.application import create_app
from opscore.api.core import Core
from opscore.api.refusal import plainly, refusal_of
from opscore.api.slow_clients import PatientProtocol
from opscore.exceptions import ConfigurationError
from opscore.logging_config import configure_logging
from opscore.settings import Settings

logger = logging.getLogger(__name__)

_CONNECTIONS_GRACE = 3
# Less often than by default: at full load the young generation fills in milliseconds.
_GC_THRESHOLDS = (200_000, 50, 100)


class Server(uvicorn.Server):
    """On the first signal the service drains while it still answers; on the second it ends."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self._starting: asyncio.Task[Any] | None = None
        self._draining: asyncio.Task[None] | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """A start may wait for a database; a signal meanwhile calls it off."""
        self._starting = asyncio.current_task()
        try:
            await super().startup(sockets)
        except asyncio.CancelledError:
            if self._starting is None or not self.should_exit:
                raise
            self._starting.uncancel()

    def _on_signal(self) -> None:
        if self._starting is not None and not self.started and not self.should_exit:
            self.should_exit = True
            self._starting.cancel()
            return
        if self._draining is None and self.started:
            logger.info("Draining: no new work; a second signal ends the service at once.")
            self._draining = asyncio.create_task(self._drain(), name="drain")
            return
        self.force_exit = True
        self.should_exit = True

    async def _drain(self) -> None:
        core: Core = self._app.state.core
        try:
            await core.drain()
        finally:
            self.should_exit = True


def run(settings: Settings, imported: Path | None = None) -> int:
    """Serve until a signal; the process's exit status."""
    log = configure_logging(settings)
    try:
        return _serve(settings, create_app(settings, log=log, imported=imported))
    finally:
        log.close()


def _serve(settings: Settings, app: FastAPI) -> int:
    gc.set_threshold(*_GC_THRESHOLDS)
    config = uvicorn.Config(
        plainly(app),
        host=settings.host,
        port=settings.port,
        http=PatientProtocol,
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_CONNECTIONS_GRACE,
    )
    server = Server(config, app)
    try:
        server.run()
    except SystemExit as error:
        if (refusal := _refusal(server, app, settings)) is not None:
            raise ConfigurationError(refusal) from error
        return int(error.code or 0)
    if server.force_exit:
        return 1
    core: Core | None = getattr(app.state, "core", None)
    return 1 if core is not None and core.failure else 0


def _refusal(server: Server, app: FastAPI, settings: Settings) -> str | None:
    """Why uvicorn gave up before it began, as a sentence; None where nobody foresaw it."""
    if server.lifespan.should_exit:
        return refusal_of(app)
    return (
        f"OPSCORE_PORT: {settings.host} port {settings.port} cannot be listened on, see the log; "
        "choose another port, or another address with OPSCORE_HOST."
    )
