"""An export on a real connection: what it holds, and how it ends."""

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from opscore.api.moving import ExportResponse
from opscore.middleware import RequestContext
from opscore.models import Retention
from opscore.simulators.running import running
from tests.contract.shelf import one_run, put
from tests.moody import Moody
from tests.storages import Opener

PART_TIMEOUT = 0.3
TASKS = 60
TASK_SIZE = 200_000
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class WatchedStorage(Moody):
    """Knows how many exports it has begun and how many are open."""

    def __init__(self, behind: Any) -> None:
        super().__init__(behind)
        self.open_exports = 0
        self.begun = asyncio.Event()

    async def export(self, *args: Any) -> AsyncGenerator[Any, None]:
        self.open_exports += 1
        self.begun.set()
        try:
            async with aclosing(super().export(*args)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            self.open_exports -= 1


@dataclass
class Exporter:
    storage: WatchedStorage
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    port: int = 0

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        response = ExportResponse(self.storage.storage, "test", self.lock, PART_TIMEOUT)
        await response(scope, receive, send)

    async def until_free(self) -> None:
        async with asyncio.timeout(20), self.lock:
            pass


@asynccontextmanager
async def silent_client(port: int) -> AsyncIterator[socket.socket]:
    """A client that asks and never reads."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, GET)
        yield client


@pytest.fixture
async def exporter(open_empty: Opener) -> AsyncIterator[Exporter]:
    behind = await open_empty(Retention())
    for number in range(TASKS):
        await put(behind, *one_run(number, parameters={"text": "x" * TASK_SIZE}))
    exporter = Exporter(WatchedStorage(behind))
    async with running(RequestContext(exporter.app)) as url:
        exporter.port = int(url.rpartition(":")[2])
        yield exporter
    await behind.close()


async def fetch(exporter: Exporter) -> bytes:
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        return (await http.get(f"http://127.0.0.1:{exporter.port}/")).content


@pytest.mark.fault("F110")
async def test_export_that_nobody_reads_ends_and_frees_its_transaction(exporter: Exporter) -> None:
    async with silent_client(exporter.port):
        await asyncio.wait_for(exporter.storage.begun.wait(), 10)
        assert exporter.lock.locked()
        await exporter.until_free()
        assert exporter.storage.open_exports == 0
        # The silent client is still connected, and the next one gets all of it.
        assert len(await fetch(exporter)) > TASKS * TASK_SIZE


@pytest.mark.fault("F110")
async def test_export_ends_when_its_client_disconnects(exporter: Exporter) -> None:
    async with silent_client(exporter.port):
        await asyncio.wait_for(exporter.storage.begun.wait(), 10)
    await exporter.until_free()
    assert exporter.storage.open_exports == 0


async def test_export_that_is_cancelled_frees_its_transaction(exporter: Exporter) -> None:
    sending = asyncio.Event()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(_: Any) -> None:
        sending.set()
        await asyncio.Event().wait()

    response = ExportResponse(exporter.storage.storage, "test", exporter.lock, 30)
    task = asyncio.create_task(response({}, receive, send))
    await asyncio.wait_for(sending.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (exporter.storage.open_exports, exporter.lock.locked()) == (0, False)
