import logging
import re

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from opscore.logging_config import LOG_CONTEXT
from opscore.middleware import RequestContext
from tests.unit.asgi import Recorder, call, scope


class Lines:
    """An access log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, int, float, str]] = []

    def access(
        self, method: str, path: str, status: int, milliseconds: float, request_id: str
    ) -> None:
        self.lines.append((method, path, status, milliseconds, request_id))


async def failing(request: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("canary-of-the-inside")


async def failing_late(request: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("too late")


async def leaving(request: Scope, receive: Receive, send: Send) -> None:
    raise ClientDisconnect


async def test_every_request_gets_its_own_id() -> None:
    app = Recorder()
    wrapped = RequestContext(app)
    ids = [(await call(wrapped, scope())).header("x-request-id") for _ in range(3)]
    assert len(set(ids)) == 3
    assert [seen["state"]["request_id"] for seen in app.scopes] == ids


async def test_a_sane_id_of_the_client_is_kept() -> None:
    answer = await call(RequestContext(Recorder()), scope(headers=[(b"x-request-id", b"a.B-9_")]))
    assert answer.header("x-request-id") == "a.B-9_"


@pytest.mark.parametrize("sent", [b"", b"a b", b"a\r\nx: y", b"x" * 65, "é".encode(), b"a\n"])
async def test_F91_an_odd_id_of_the_client_is_replaced(sent: bytes) -> None:
    answer = await call(RequestContext(Recorder()), scope(headers=[(b"x-request-id", sent)]))
    assert re.fullmatch(r"[0-9a-f-]{17}", answer.header("x-request-id") or "")


async def test_the_log_context_holds_the_id_within_and_is_clean_after() -> None:
    seen = []

    async def app(request: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(LOG_CONTEXT.get()))

    await call(RequestContext(app), scope(headers=[(b"x-request-id", b"one")]))
    assert seen == [{"request_id": "one"}]
    assert dict(LOG_CONTEXT.get()) == {}


async def test_what_the_app_sent_is_not_changed() -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}

    async def app(request: Scope, receive: Receive, send: Send) -> None:
        await send(start)

    for _ in range(2):
        await call(RequestContext(app), scope())
    assert start["headers"] == [(b"a", b"b")]


async def test_an_unexpected_error_becomes_one_answer_and_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        answer = await call(RequestContext(failing), scope())
    assert (answer.status, answer.code) == (500, "internal_error")
    assert b"canary" not in answer.body
    assert answer.json["requestId"] == answer.header("x-request-id")
    [record] = caplog.records
    assert record.exc_info
    assert "canary-of-the-inside" in caplog.text


async def test_an_error_after_the_start_is_logged_and_not_answered_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await call(RequestContext(failing_late), scope())
    assert (answer.status, answer.body) == (200, b"")
    assert len(caplog.records) == 1


async def test_a_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    lines = Lines()
    answer = await call(RequestContext(leaving, access_log=lines), scope())
    assert answer.status == 0
    assert not caplog.records
    assert lines.lines[0][2] == 499


@pytest.mark.parametrize(("app", "status"), [(Recorder(), 200), (failing, 500)])
async def test_one_access_line_a_request(app: ASGIApp, status: int) -> None:
    lines = Lines()
    request = scope("PUT", "/some/path?key=canary", [(b"x-request-id", b"r1")])
    await call(RequestContext(app, access_log=lines), request)
    [(method, path, logged, milliseconds, request_id)] = lines.lines
    assert (method, path, logged, request_id) == ("PUT", "/some/path", status, "r1")
    assert 0 <= milliseconds < 10_000


async def test_the_line_names_the_path_that_was_asked_for() -> None:
    class Route:
        path = "/agent/{agent_id}"

    async def app(request: Scope, receive: Receive, send: Send) -> None:
        request["route"] = Route()

    lines = Lines()
    await call(RequestContext(app, access_log=lines), scope(path="/v1/agent/5"))
    assert lines.lines[0][1] == "/v1/agent/5"


@pytest.mark.parametrize(
    "path", ["/a\r\nINJECTED", "/\x1b[31m", "/\u202eabc", "/\u2028x", "/\x00", "/é\ud800"]
)
async def test_F91_the_path_in_the_line_is_printable_ascii(path: str) -> None:
    lines = Lines()
    request = {**scope(), "path": path}
    await call(RequestContext(Recorder(), access_log=lines), request)
    logged = lines.lines[0][1]
    assert logged.isascii()
    assert logged.isprintable()


async def test_F91_a_path_of_10_kB_is_cut() -> None:
    lines = Lines()
    await call(RequestContext(Recorder(), access_log=lines), scope(path="/" + "x" * 10_000))
    assert len(lines.lines[0][1]) == 256


async def test_other_traffic_passes_untouched() -> None:
    seen = []

    async def app(request: Scope, receive: Receive, send: Send) -> None:
        seen.append(request)

    await call(RequestContext(app), {"type": "lifespan"})
    assert seen == [{"type": "lifespan"}]
