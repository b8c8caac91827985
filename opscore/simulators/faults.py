"""Wrong answers of the simulated AgentKit: the ways in which a service on the network fails."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, get_args

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from opscore.simulators.running import TRANSPORT
from opscore.simulators.words import Fault

ALL_FAULTS: tuple[Fault, ...] = get_args(Fault)

# The answer is wrong, and the task may have been forwarded all the same.
IN_DOUBT: frozenset[Fault] = frozenset(
    {"error", "bad_gateway", "reset", "truncated", "broken_json", "html", "empty", "huge", "late"}
)

_HUGE = 2 * 1024 * 1024
_RESET = struct.pack("ii", 1, 0)


class BrokenOff(Response):
    """Ends the connection: with a reset and no answer, or in the middle of one."""

    def __init__(self, *, reset: bool) -> None:
        super().__init__(b'{"status": "success", "message": "Task accep', 202)
        self.headers["content-length"] = "200"
        self._reset = reset

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        transport: asyncio.Transport = scope["extensions"][TRANSPORT]["transport"]
        if self._reset:
            connection = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            transport.abort()
        else:
            await send({"type": "http.response.start", "status": 202, "headers": self.raw_headers})
            await send({"type": "http.response.body", "body": self.body, "more_body": True})
            transport.close()
        # Only one who hears that the connection is gone may leave without a whole answer.
        while (await receive())["type"] != "http.disconnect":
            pass


def wrong_answer(fault: Fault) -> Response:
    """The answer that shows the fault; what is `late` or `silence` looks right."""
    return _ANSWERS[fault]()


def _detail(status: int, **headers: str) -> Response:
    return JSONResponse({"detail": "AgentKit was told to fail."}, status, headers)


def _status_error() -> Response:
    body: dict[str, Any] = {"status": "error", "message": "told to fail", "error_code": "TOLD"}
    return JSONResponse(body, 202)


_ANSWERS: Mapping[Fault, Callable[[], Response]] = {
    "error": lambda: _detail(500),
    "bad_gateway": lambda: _detail(502),
    "unavailable": lambda: _detail(503),
    "throttled": lambda: _detail(429, **{"Retry-After": "1"}),
    "rejected": lambda: _detail(422),
    "redirect": lambda: RedirectResponse("http://169.254.169.254/latest/meta-data", 307),
    "status_error": _status_error,
    "reset": lambda: BrokenOff(reset=True),
    "truncated": lambda: BrokenOff(reset=False),
    "broken_json": lambda: Response(b'{"status": "success", ', 202, media_type="application/json"),
    "html": lambda: HTMLResponse("<h1>Welcome to the proxy</h1>", 200),
    "empty": lambda: Response(b"", 202, media_type="application/json"),
    "huge": lambda: Response(b" " * _HUGE, 202, media_type="application/json"),
}
