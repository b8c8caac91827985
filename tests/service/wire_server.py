"""A server on loopback that answers exactly the bytes it is told to, good HTTP or not."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Request:
    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


Reply = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: Any = b"", *headers: str) -> bytes:
    """A whole answer as bytes; a body that is not bytes is written as JSON."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(raw)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + raw


def replying(raw: bytes, *, close: bool = False) -> Reply:
    """Answers every request with the same bytes, and then closes if told to."""

    async def reply(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if close:
            writer.close()

    return reply


@dataclass
class WireServer:
    reply: Reply
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    opened: int = 0
    open: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until(self, reached: Callable[["WireServer"], bool]) -> None:
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(lambda: reached(self))

    async def drop_connections(self) -> None:
        """Close every open connection, as a server does with idle ones."""
        for writer in list(self.writers):
            writer.close()
        await self.until(lambda server: server.open == 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        await self._count(1)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    request = await _read(reader)
                    self.requests.append(request)
                    await self._count(0)
                    await self.reply(request, writer)
        finally:
            self.writers.discard(writer)
            await self._count(-1)

    async def _count(self, step: int) -> None:
        async with self.changed:
            self.open += step
            self.opened += step > 0
            self.changed.notify_all()


@asynccontextmanager
async def wire_server(reply: Reply, tls: ssl.SSLContext | None = None) -> AsyncIterator[WireServer]:
    wire = WireServer(reply)
    async with raw_server(wire.serve, tls) as port:
        wire.port = port
        yield wire


@asynccontextmanager
async def raw_server(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Serves connections on a free port, and ends every one of them at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve_to_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(serve_to_the_end(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert [item for item in ended if isinstance(item, Exception)] == []


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode("ascii").rstrip().split("\r\n")
    pairs = (item.split(": ", 1) for item in fields)
    headers = {name.lower(): value for name, value in pairs}
    return Request(line, headers, await reader.readexactly(int(headers["content-length"])))
