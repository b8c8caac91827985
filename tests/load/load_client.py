"""A light HTTP load: raw connections, one request at a time on each, for a bounded time."""

import selectors
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle

from tests.load.http_parts import content_length

RequestMaker = Callable[[int], bytes]


@dataclass(frozen=True)
class Bound:
    """Whichever comes first ends the load."""

    seconds: float
    requests: int = sys.maxsize


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


def load(ports: Sequence[int], make: RequestMaker, connections: int, bound: Bound) -> Tally:
    """Keep `connections` requests under way, spread over the ports, until the bound is reached.

    Plain sockets and one selector: the load must cost less than what it measures.
    """
    tally = Tally()
    selector = selectors.DefaultSelector()
    started = time.perf_counter()
    sent = [0.0] * connections
    total = 0
    for number, port in zip(range(connections), cycle(ports), strict=False):
        connection = socket.create_connection(("127.0.0.1", port))
        selector.register(connection, selectors.EVENT_READ, number)
        sent[number] = time.perf_counter()
        connection.send(make(number))
        total += 1
    while selector.get_map():
        for key, _ in selector.select(timeout=5):
            ready, number = key.fileobj, key.data
            assert isinstance(ready, socket.socket)
            now = time.perf_counter()
            _count(tally, _answer(ready), now - sent[number])
            if now - started < bound.seconds and total < bound.requests:
                sent[number] = now
                ready.send(make(number))
                total += 1
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
    return end >= 0 and len(answer) >= end + 4 + content_length(answer[:end])


def _count(tally: Tally, answer: bytes, latency: float) -> None:
    tally.latencies.append(latency)
    if answer[9:10] == b"2":
        tally.answered += 1
    else:
        tally.failed += 1
