"""`opscore serve`: the application behind uvicorn, with an end as orderly as its beginning."""

import gc
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from opscore.api.application import create_app
from opscore.api.core import Core
from opscore.api.http_server import ConnectionCap, ConnectionLimits, guarded_protocol
from opscore.api.http_server.open_files import (
    ACCEPT_BACKLOG,
    max_connections,
    raise_open_file_limit,
    warn_of_low_limit,
)
from opscore.api.refusal import plainly, refusal_of
from opscore.api.server import Server
from opscore.exceptions import ConfigurationError
from opscore.logging_config import configure_logging
from opscore.settings import Settings

# Longer than the pause of clients that report every few seconds, and than the 60 s of nginx.
KEEP_ALIVE = 75

_CONNECTIONS_GRACE = 3
# Connections to PostgreSQL beside the pool: one keeps leases, one listens.
_MORE_STORAGE_CONNECTIONS = 2
# Less often than by default: at full load the young generation fills in milliseconds.
_GC_THRESHOLDS = (200_000, 50, 100)


def run(settings: Settings, imported: Path | None = None) -> int:
    """Serve until a signal; the process's exit status."""
    log = configure_logging(settings)
    try:
        return _serve(settings, create_app(settings, log=log, imported=imported), log.flush)
    finally:
        log.close()


def _serve(settings: Settings, app: FastAPI, flush_log: Callable[[], object]) -> int:
    gc.set_threshold(*_GC_THRESHOLDS)
    server = Server(server_config(settings, plainly(app)), app, flush_log)
    try:
        server.run()
    except SystemExit as error:
        if (refusal := _refusal(server, app, settings)) is not None:
            raise ConfigurationError(refusal) from error
        return int(error.code or 0)
    core: Core | None = getattr(app.state, "core", None)
    return 1 if core is not None and core.failure else 0


def server_config(settings: Settings, app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=guarded_protocol(ConnectionLimits(), _connection_cap(settings)),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=ACCEPT_BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=_CONNECTIONS_GRACE,
    )


def _connection_cap(settings: Settings) -> ConnectionCap:
    open_files = raise_open_file_limit()
    storage = settings.storage_connections + _MORE_STORAGE_CONNECTIONS
    # To AgentKit and to agents, each with a pool of its own, and those that wait for an answer.
    deliveries = 2 * settings.dispatch_concurrency + settings.awaited_answers
    maximum = max_connections(open_files, storage, deliveries)
    warn_of_low_limit(open_files, maximum)
    return ConnectionCap(maximum)


def _refusal(server: Server, app: FastAPI, settings: Settings) -> str | None:
    """Why uvicorn gave up before it began, as a sentence; None where nobody foresaw it."""
    if server.lifespan.should_exit:
        return refusal_of(app)
    return (
        f"OPSCORE_PORT: {settings.host} port {settings.port} cannot be listened on, see the log; "
        "choose another port, or another address with OPSCORE_HOST."
    )
