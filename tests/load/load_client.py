"""A light HTTP load: raw connections, one request at a time on each, for a bounded time."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

RequestMaker = Callable[[int], bytes]


def post(path: str, body: bytes, key: str) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Tally:
    """How many requests were answered well, how many were not, and how long each took."""

    answered: int = 0
    failed: int = 0
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.answered / self.seconds

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last one is complete."""

    def __init__(self, number: int, make: RequestMaker, tally: Tally, until: float) -> None:
        self._number = number
        self._make = make
        self._tally = tally
        self._until = until
        self._buffer = b""
        self._sent = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return
        self._buffer = b""
        now = time.perf_counter()
        self._tally.latencies.append(now - self._sent)
        if head[9:10] == b"2":
            self._tally.answered += 1
        else:
            self._tally.failed += 1
        if now < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._tally.failed += 1
        if not self.closed.done():
            self.closed.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._make(self._number))


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    return int(lowered[start + 15 :].partition(b"\r\n")[0]) if start >= 0 else 0


async def load(port: int, make: RequestMaker, connections: int, seconds: float) -> Tally:
    """Keep `connections` requests under way for the given time."""
    tally = Tally()
    started = time.perf_counter()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(
            lambda number=number: _Connection(number, make, tally, started + seconds),  # type: ignore[misc] # the default binds the number
            "127.0.0.1",
            port,
        )
        for number in range(connections)
    ]
    await asyncio.gather(*(protocol.closed for _, protocol in made))
    tally.seconds = time.perf_counter() - started
    return tally
