"""The server around its application: a signal between the start of one and of the other."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from fastapi import FastAPI

from opscore.api.server import Server


@pytest.fixture(autouse=True)
def _interrupts() -> Iterator[None]:
    """The server leaves the interrupt's default behind."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.fault("F120")
async def test_interrupt_after_the_application_started_and_before_the_server_ends_it_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        seen.append("started")
        # It arrives while the server opens its socket.
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        yield
        seen.append("ended")

    app = FastAPI(lifespan=lifespan)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None)
    server = Server(config, app, flush=lambda: None)
    async with asyncio.timeout(10):
        await server.serve()
    assert seen == ["started", "ended"]
    assert not server.started
    assert "Traceback" not in caplog.text
