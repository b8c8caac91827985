"""Uvicorn's HTTP protocol, bounded in what a silent, slow or endless client can hold."""

import asyncio
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from opscore.api.http_server.admission import Admission, ConnectionCap, Rank, Use
from opscore.api.http_server.answering import AnsweringTransport
from opscore.api.http_server.flow import PipelineFlow
from opscore.api.http_server.limits import ConnectionLimits
from opscore.api.http_server.request_head import check_head, headers_too_long
from opscore.api.http_server.write_watch import WriteWatch
from opscore.exceptions import BadRequestError, OpsCoreError, UnavailableError
from opscore.middleware.problem import Problem, problem
from opscore.middleware.security_headers import SECURITY_HEADERS

_HEALTH = b"/health"
# Small enough that the requests of one piece are a bounded queue; most requests are one piece.
_PIECE = 4096
_MALFORMED = "This is not a well-formed HTTP/1.1 request; correct it and send it again."
_FULL = "The service has as many connections as it can hold; try again shortly."


class GuardedProtocol(HttpToolsProtocol):
    """Bounds the time for headers and for reading answers, the headers, and pipelining.

    The header timeout begins with the connection, and for later requests with their first byte; it
    also runs while a body arrives that was answered already. Idle connections are left to
    uvicorn's keep-alive timeout. A request that arrives whole costs no timer.

    A request that is refused before its end is answered, then the connection is closed for
    writing, and what still arrives is discarded for a while: closing at once would make the
    client's kernel throw the answer away.
    """

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    cap: ClassVar[ConnectionCap | None] = None

    flow: PipelineFlow

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_headers = False
        self._header_bytes = 0
        self._opened_at = 0.0
        self._health_only = False
        self._unparsed = b""
        self._refusal: OpsCoreError | None = None
        self._drained: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._answering: AnsweringTransport | None = None
        self._writes: WriteWatch | None = None

    # --- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn types it
        super().connection_made(transport)
        self.flow = PipelineFlow(transport)
        self._opened_at = self.loop.time()
        self._start_header_timer()
        if self.cap is not None:
            admission = self.cap.admit(self)
            self._health_only = admission is Admission.HEALTH_ONLY
            if admission is Admission.REFUSED:
                transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._writes is not None:
            self._writes.stop()
        if self.cap is not None:
            self.cap.forget(self)
        super().connection_lost(exc)

    @property
    def rank(self) -> Rank | None:
        """The place in the order of closing at the cap; None while the service is at work."""
        if self.flow.write_paused or self.transport.is_closing():
            return Rank(Use.ANSWER_UNREAD, self._opened_at)
        if self._is_serving:
            arriving = self.cycle.more_body and not self.pipeline
            return Rank(Use.REQUEST_ARRIVING, self._opened_at) if arriving else None
        if self.timeout_keep_alive_task is not None:
            since = self.timeout_keep_alive_task.when() - self.timeout_keep_alive
            return Rank(Use.KEPT, since)
        return Rank(Use.KEPT if bool(self.cycle) else Use.SILENT, self._opened_at)

    def abort(self) -> None:
        self.transport.abort()

    @property
    def _is_serving(self) -> bool:
        # Before the first request there is no cycle.
        return not getattr(self.cycle, "response_complete", True)

    # --- reading ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._drained is not None:
            self._discard(len(data))
            return
        if self._refusal is not None:
            return
        if self._unparsed or len(data) > _PIECE:
            self._unparsed += data
            self._parse_pieces()
        else:
            self._parse(data)
        self._set_header_timer()

    def _parse_pieces(self) -> None:
        """Parse what was received until a request has to wait for another; keep the rest."""
        data, self._unparsed = memoryview(self._unparsed), b""
        for start in range(0, len(data), _PIECE):
            if self._refusal is not None or self._drained is not None:
                return
            if self.flow.is_held:
                self._unparsed = bytes(data[start:])
                return
            self._parse(data[start : start + _PIECE])

    def _parse(self, piece: bytes | memoryview) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here: this request is answered as the last one.
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, OpsCoreError) else BadRequestError(_MALFORMED))
        if self.pipeline:
            self.flow.hold()
        if self._in_headers and self._refusal is None:
            self._count_headers(len(piece))

    def _count_headers(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > self.limits.max_header_bytes:
            self._refuse(headers_too_long(self.limits.max_header_bytes))

    def on_message_begin(self) -> None:
        self._in_headers = True
        self._header_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        # An exception here stops the parser.
        self._in_headers = False
        has_body = check_head(self.headers, self.parser.get_http_version())
        if self._health_only and not self.url.startswith(_HEALTH):
            raise UnavailableError(_FULL, retry_after=1)
        super().on_headers_complete()
        if has_body:
            if self._answering is None:
                self._answering = AnsweringTransport(self.transport, self._close_after_answer)
            self.cycle.transport = self._answering

    # --- answering --------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writes()

    def on_response_complete(self) -> None:
        if self.transport.get_write_buffer_size():
            self._watch_writes()
        if self._drained is not None:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        if self.flow.is_held and not self.pipeline:
            self.flow.release()
            # Not here: what is parsed would start within the context of this request.
            self.loop.call_soon(self._parse_pieces)
        if self._refusal is not None and not self._is_serving:
            self._answer_refusal(self._refusal)

    def _watch_writes(self) -> None:
        if self._writes is None:
            self._writes = WriteWatch(self.transport, self.loop, self.limits.write_timeout)
        self._writes.start()

    # --- refusing ---------------------------------------------------------------------------

    def _refuse(self, error: OpsCoreError) -> None:
        """Answer what is no request in the shape of every error, after the answers due before."""
        self._refusal = error
        cycle = self.cycle
        if not self._is_serving:
            self._answer_refusal(error)
        elif cycle.more_body:
            # The body of the newest request is broken.
            if self.pipeline or cycle.response_started:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer_refusal(error)

    def _answer_refusal(self, error: OpsCoreError) -> None:
        if not self.transport.is_closing():
            self.transport.write(_whole_answer(problem(error, "")))
            self._drain_and_close()

    def _close_after_answer(self) -> None:
        if self.cycle.more_body and not self.transport.is_closing():
            self._drain_and_close()
        else:
            self.transport.close()

    def _drain_and_close(self) -> None:
        self._drained = 0
        self._unparsed = b""
        self._stop_timer()
        self._unset_keepalive_if_required()
        self.flow.release()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(self.limits.drain_timeout, self.transport.close)

    def _discard(self, size: int) -> None:
        self._drained = (self._drained or 0) + size
        if self._drained > self.limits.max_drained_bytes:
            self.transport.close()

    # --- the header timeout -----------------------------------------------------------------

    def _set_header_timer(self) -> None:
        if self._drained is not None:
            return
        if self._in_headers or not self._is_serving:
            self._start_header_timer()
        else:
            self._stop_timer()

    def _start_header_timer(self) -> None:
        if self._timer is None and not self.transport.is_closing():
            self._timer = self.loop.call_later(self.limits.header_timeout, self._header_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _header_timeout(self) -> None:
        self._timer = None
        if self._is_serving:
            # The next request is slow, but this one is still owed its answer.
            self._start_header_timer()
        else:
            self.transport.close()


def guarded_protocol(
    limits: ConnectionLimits, cap: ConnectionCap | None = None
) -> type[GuardedProtocol]:
    """Return the protocol with other limits, for `uvicorn.Config(http=...)`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"limits": limits, "cap": cap})


def _whole_answer(answer: Problem) -> bytes:
    headers = [*answer.headers, *SECURITY_HEADERS, (b"connection", b"close")]
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    phrase = HTTPStatus(answer.status).phrase.encode()
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (answer.status, phrase, lines, answer.body)
