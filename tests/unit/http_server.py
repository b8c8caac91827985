"""A real uvicorn server on loopback, and a client that sends raw bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from opscore.api.http_server import ConnectionCap, ConnectionLimits, guarded_protocol

LIMIT = 0.15
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def running(
    app: ASGIApp = hello,
    header_timeout: float = LIMIT,
    *,
    cap: ConnectionCap | None = None,
    write_timeout: float = 30.0,
    drain_timeout: float = 5.0,
) -> AsyncIterator[uvicorn.Server]:
    limits = ConnectionLimits(
        header_timeout=header_timeout,
        max_header_bytes=4096,
        write_timeout=write_timeout,
        drain_timeout=drain_timeout,
    )
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=0,
        http=guarded_protocol(limits, cap),
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_keep_alive=30,
    )
    server = uvicorn.Server(config)
    # Without its signal handlers, which belong to the test run.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server
    finally:
        server.force_exit = True
        await server.shutdown()


@asynccontextmanager
async def serving(
    app: ASGIApp = hello, header_timeout: float = LIMIT, **limits: Any
) -> AsyncIterator[int]:
    """The port of a server with the given limits."""
    async with running(app, header_timeout, **limits) as server:
        yield port_of(server)


def port_of(server: uvicorn.Server) -> int:
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of one answer with a length."""
        async with asyncio.timeout(5):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().splitlines()
                if line.startswith(b"content-length")
            )
            return int(head.split()[1]), head.lower(), await self._reader.readexactly(length)

    async def ends(self) -> bytes:
        """Return the bytes that come until the server closes."""
        async with asyncio.timeout(5):
            return await self._reader.read()

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        client.close()


async def elapse(seconds: float) -> None:
    """Let real time pass where its passing is what is tested."""
    passed = asyncio.get_running_loop().create_future()
    done: Callable[[None], None] = passed.set_result
    asyncio.get_running_loop().call_later(seconds, done, None)
    await passed
