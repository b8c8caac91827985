"""The few parts of HTTP/1.1 that load clients and stubs need: they must cost next to nothing."""

import asyncio
from collections.abc import Callable, Coroutine

Answer = bytes | Coroutine[None, None, bytes]
Respond = Callable[[bytes, bytes], Answer]


def request(method: str, path: str, body: bytes, key: str) -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def answer(status: bytes, body: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % (status, len(body)) + body


def content_length(head: bytes) -> int:
    """The length that a head names, however it is spelled; 0 if it names none."""
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    return int(lowered[start + 15 :].partition(b"\r\n")[0]) if start >= 0 else 0


class Stub(asyncio.Protocol):
    """Answers each request with what `respond` makes of its head and its body."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._buffer = b""
        self._tasks: set[asyncio.Task[bytes]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            until = end + 4 + content_length(head)
            if len(self._buffer) < until:
                return
            body, self._buffer = self._buffer[end + 4 : until], self._buffer[until:]
            answered = self._respond(head, body)
            if isinstance(answered, bytes):
                self._transport.write(answered)
            else:
                self._later(answered)

    def _later(self, answer: Coroutine[None, None, bytes]) -> None:
        task = asyncio.get_running_loop().create_task(answer)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[bytes]") -> None:
        self._tasks.discard(task)
        self._transport.write(task.result())


async def serve_stub(port: int, respond: Respond) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(respond), "127.0.0.1", port)
    async with server:
        await server.serve_forever()
