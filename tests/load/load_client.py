"""A light HTTP load: raw connections, one request at a time on each, for a bounded time."""

import selectors
import socket
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


def load(port: int, make: RequestMaker, connections: int, seconds: float) -> Tally:
    """Keep `connections` requests under way for the given time.

    Plain sockets and one selector: the load must cost less than what it measures.
    """
    tally = Tally()
    selector = selectors.DefaultSelector()
    started = time.perf_counter()
    sent = [0.0] * connections
    for number in range(connections):
        connection = socket.create_connection(("127.0.0.1", port))
        selector.register(connection, selectors.EVENT_READ, number)
        sent[number] = time.perf_counter()
        connection.send(make(number))
    while selector.get_map():
        for key, _ in selector.select(timeout=5):
            ready, number = key.fileobj, key.data
            assert isinstance(ready, socket.socket)
            now = time.perf_counter()
            _count(tally, _answer(ready), now - sent[number])
            if now < started + seconds:
                sent[number] = now
                ready.send(make(number))
            else:
                selector.unregister(ready)
                ready.close()
    tally.seconds = time.perf_counter() - started
    return tally


def _answer(connection: socket.socket) -> bytes:
    """One whole answer; empty if the server closed the connection."""
    answer = connection.recv(65536)
    while answer and not _is_whole(answer):
        more = connection.recv(65536)
        if not more:
            return b""
        answer += more
    return answer


def _is_whole(answer: bytes) -> bool:
    end = answer.find(b"\r\n\r\n")
    return end >= 0 and len(answer) >= end + 4 + _content_length(answer[:end])


def _content_length(head: bytes) -> int:
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    return int(lowered[start + 15 :].partition(b"\r\n")[0]) if start >= 0 else 0


def _count(tally: Tally, answer: bytes, latency: float) -> None:
    tally.latencies.append(latency)
    if answer[9:10] == b"2":
        tally.answered += 1
    else:
        tally.failed += 1
