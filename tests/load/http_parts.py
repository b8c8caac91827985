"""The few parts of HTTP/1.1 that load clients and stubs need: they must cost next to nothing."""

import asyncio
from collections.abc import Callable

Respond = Callable[[bytes, bytes], bytes]


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
            self._transport.write(self._respond(head, body))


async def serve_stub(port: int, respond: Respond) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Stub(respond), "127.0.0.1", port)
    async with server:
        await server.serve_forever()
