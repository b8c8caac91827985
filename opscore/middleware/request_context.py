"""The outermost layer: an id for every request, a log line for it, and an answer in any case."""

import logging
import re
import secrets
import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opscore.exceptions import OpsCoreError
from opscore.logging_config import LOG_CONTEXT
from opscore.middleware.problem import send_problem
from opscore.middleware.security_headers import SECURITY_HEADERS, RawHeaders

CLIENT_GONE = 499
MAX_LOGGED_PATH = 256

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")

logger = logging.getLogger(__name__)


class AccessLog(Protocol):
    def access(
        self, method: str, path: str, status: int, milliseconds: float, request_id: str
    ) -> None:
        """Log one request, without ever waiting."""


class RequestContext:
    """Gives every request an id and an end, and every answer its security headers.

    The id is in `scope["state"]["request_id"]`, in the log context and in the answer's
    `X-Request-ID`. An exception that nobody handled becomes the 500 answer and is logged once.
    Paths below `pages` are answered with `page_headers`, all others with SECURITY_HEADERS.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        access_log: AccessLog | None = None,
        pages: tuple[str, ...] = (),
        page_headers: RawHeaders = (),
    ) -> None:
        self._app = app
        self._access_log = access_log
        self._pages = pages
        self._page_headers = page_headers
        self._new_id = _id_maker()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = _given_id(scope) or self._new_id()
        scope.setdefault("state", {})["request_id"] = request_id
        is_page = scope["path"].startswith(self._pages)
        headers = self._page_headers if is_page else SECURITY_HEADERS
        answer = _Answer(send, request_id, headers)
        token = LOG_CONTEXT.set({"request_id": request_id})
        try:
            await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            answer.status = CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - the last resort, and it is logged
            await _answer_failure(answer, error, request_id)
        finally:
            LOG_CONTEXT.reset(token)
            if self._access_log is not None:
                milliseconds = (time.perf_counter() - started) * 1000
                self._access_log.access(
                    scope["method"], _loggable(scope), answer.status, milliseconds, request_id
                )


class _Answer:
    """Passes the answer on, adds id and security headers to it and remembers its status."""

    __slots__ = ("_headers", "_request_id", "_send", "status")

    def __init__(self, send: Send, request_id: str, headers: RawHeaders) -> None:
        self._send = send
        self._request_id = request_id.encode("ascii")
        self._headers = headers
        self.status = CLIENT_GONE

    @property
    def started(self) -> bool:
        return self.status != CLIENT_GONE

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            # A new message and a new list: the app may use its own again.
            own = (b"x-request-id", self._request_id)
            headers = [*message.get("headers", ()), own, *self._headers]
            message = {**message, "headers": headers}
        await self._send(message)


async def _answer_failure(answer: _Answer, error: Exception, request_id: str) -> None:
    logger.error("the request failed: %s", type(error).__name__, exc_info=error)
    if not answer.started:
        hint = "The service failed; the log has the cause under this request id."
        await send_problem(answer.send, OpsCoreError(hint), request_id)


def _id_maker() -> Callable[[], str]:
    prefix = secrets.token_hex(5)
    numbers = count(1)
    return lambda: f"{prefix}-{next(numbers):06x}"


def _given_id(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return str(value, "ascii")
    return None


def _loggable(scope: Scope) -> str:
    """The path as it came, without its query; bounded, and nothing but printable ASCII."""
    path: str = scope["path"][:MAX_LOGGED_PATH]
    if path.isascii() and path.isprintable():
        return path
    return path.encode("unicode_escape").decode("ascii")
