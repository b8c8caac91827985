"""The stream under one connection: what it may still send, and what an answer may cost."""

import asyncio
import re
import ssl
import time
from typing import Any, Protocol

import httpcore

from opscore.agentkit_client.errors import ExchangeError
from opscore.models import FailureCode

MAX_RAW_ANSWER = 2 * 1024 * 1024
MAX_INTERIM_ANSWERS = 20

_LARGEST_READ = 64 * 1024
_FIRST_READ = 4096
_SMALLEST_READ = 256
_STATUS_LINE = re.compile(rb"(?:\A|\n)HTTP/1\.[01] ([0-9])[0-9][0-9]")
# So much of a status line may end one read without being seen; the next read begins with it.
_STATUS_LINE_REST = 11


class SendControl(Protocol):
    """The sender's side of one message."""

    def may_send(self) -> bool:
        """Return whether bytes of the message may still go out."""

    def mark_sent(self) -> None:
        """Note that the whole message is out, and only its answer is awaited."""


class NoControl:
    """The control of a message that is sent under no lease."""

    def may_send(self) -> bool:
        return True

    def mark_sent(self) -> None:
        """Nothing waits for it."""


class SlowLane:
    """Lets answers that take long to parse share a fifth of the time, however many they are.

    The data of one read is parsed without a pause, and a chunk of one byte costs as much as one of
    64 KiB: a million of them would stop everything else for a minute.
    """

    LONG = 0.002
    REST = 4

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def rest_after(self, seconds: float) -> None:
        async with self._turn:
            await asyncio.sleep(seconds * self.REST)


class GuardedStream(httpcore.AsyncNetworkStream):
    """Raises ExchangeError for what must not be sent, and for an answer over its bounds."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, slow_lane: SlowLane) -> None:
        self._stream = stream
        self._slow_lane = slow_lane
        self.begin(NoControl())

    def begin(self, control: SendControl) -> None:
        """Start another exchange on this connection."""
        self._control = control
        self._raw = 0
        self._interim = 0
        self._is_final = False
        self._rest = b""
        self._read_size = _FIRST_READ
        self._read_at: float | None = None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - of httpcore
        if not self._control.may_send():
            raise ExchangeError(
                FailureCode.NOT_SENT,
                "The lease of the task ran out before its message was sent; it was not sent.",
            )
        await self._stream.write(buffer, timeout)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - of httpcore
        # httpcore reads only once it has written the whole request.
        self._control.mark_sent()
        if self._read_at is not None:
            await self._pace(time.monotonic() - self._read_at)
        data = await self._stream.read(min(max_bytes, self._read_size), timeout)
        self._raw += len(data)
        if self._raw > MAX_RAW_ANSWER:
            limit = MAX_RAW_ANSWER // 1024
            raise _over_limit(f"its answer takes more than {limit} KiB on the wire")
        if not self._is_final:
            self._count_interim_answers(data)
        self._read_at = time.monotonic()
        return data

    async def _pace(self, parsed_for: float) -> None:
        """Choose how much to read at once by how long it took to parse what was read last."""
        if parsed_for <= SlowLane.LONG:
            self._read_size = min(self._read_size * 2, _LARGEST_READ)
            return
        self._read_size = max(self._read_size // 2, _SMALLEST_READ)
        await self._slow_lane.rest_after(parsed_for)

    def _count_interim_answers(self, data: bytes) -> None:
        """Count the answers before the final one (1xx). After its status line comes anything."""
        seen = self._rest + data
        for line in _STATUS_LINE.finditer(seen):
            if line[1] != b"1":
                self._is_final = True
                return
            self._interim += 1
            if self._interim > MAX_INTERIM_ANSWERS:
                raise _over_limit(f"it sent more than {MAX_INTERIM_ANSWERS} interim answers")
        self._rest = seen[-_STATUS_LINE_REST:]

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - of httpcore
    ) -> httpcore.AsyncNetworkStream:
        return await self._stream.start_tls(ssl_context, server_hostname, timeout)


class Connection(httpcore.AsyncHTTP11Connection):
    """An HTTP connection over a guarded stream."""

    def __init__(
        self,
        origin: httpcore.Origin,
        stream: httpcore.AsyncNetworkStream,
        keep_alive: float,
        slow_lane: SlowLane,
    ) -> None:
        self.guard = GuardedStream(stream, slow_lane)
        super().__init__(origin, self.guard, keep_alive)


def _over_limit(reason: str) -> ExchangeError:
    return ExchangeError(FailureCode.OUTCOME_UNKNOWN, reason)
