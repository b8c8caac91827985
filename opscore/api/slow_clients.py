"""Uvicorn's HTTP protocol with an end to patience: for silent, slow and endless headers."""

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from opscore.exceptions import BadRequestError
from opscore.middleware.problem import Problem, problem

HEADER_TIMEOUT = 15.0
MAX_HEADER_BYTES = 64 * 1024


class PatientProtocol(HttpToolsProtocol):
    """Closes a connection that does not deliver the complete headers of a request in time.

    The time begins with the connection, and for later requests with their first byte; it also runs
    while a body comes in that was answered already. Idle connections stay with uvicorn's own
    keep-alive timeout. A request that arrives whole costs no timer.
    """

    header_timeout: ClassVar[float] = HEADER_TIMEOUT
    max_header_bytes: ClassVar[int] = MAX_HEADER_BYTES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_headers = False
        self._header_bytes = 0
        self._shared_read = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn types it
        super().connection_made(transport)
        self._start_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._shared_read = False
        super().data_received(data)
        if self._in_headers:
            # What an earlier request shares a read with is counted from the next read on.
            self._header_bytes += 0 if self._shared_read else len(data)
            if self._header_bytes > self.max_header_bytes:
                self.send_400_response("The headers are too large.")
        if not self._serving() or self._in_headers:
            self._start_waiting()
        elif self._deadline is not None:
            self._stop_waiting()

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._shared_read = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP in the shape of every other error, and close."""
        if not self.transport.is_closing():
            detail = f"{msg.rstrip('.')}; send a well-formed HTTP/1.1 request."
            self.transport.write(_whole_answer(problem(BadRequestError(detail), "")))
            self.transport.close()

    def _serving(self) -> bool:
        # Before the first request there is no cycle.
        return not getattr(self.cycle, "response_complete", True)

    def _start_waiting(self) -> None:
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self.header_timeout, self._give_up)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._deadline = None
        if self._serving():
            # The next request is slow, but this one is still owed its answer.
            self._start_waiting()
        else:
            self.transport.close()


def patient_protocol(
    header_timeout: float = HEADER_TIMEOUT, max_header_bytes: int = MAX_HEADER_BYTES
) -> type[PatientProtocol]:
    """The protocol with other limits, for `uvicorn.Config(http=...)`."""
    limits = {"header_timeout": header_timeout, "max_header_bytes": max_header_bytes}
    return type("PatientProtocol", (PatientProtocol,), limits)


def _whole_answer(answer: Problem) -> bytes:
    headers = [*answer.headers, (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    return b"HTTP/1.1 400 Bad Request\r\n" + lines + b"\r\n" + answer.body
