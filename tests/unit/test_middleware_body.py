import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.types import Message, Scope

from opscore.middleware import BodyGuard, parse_json
from opscore.middleware.body import read_body, replay
from tests.unit.asgi import Answer, RawHeaders, Recorder, call, chunks, post, receiving, scope

CHUNKED = [(b"transfer-encoding", b"chunked"), (b"content-type", b"application/json")]
WEBHOOK = "/notify"


def guard(app: Recorder, **options: float) -> BodyGuard:
    return BodyGuard(
        app,
        limit=1000,
        path_limits={WEBHOOK: 100},
        unparsed_paths=[WEBHOOK],
        yaml_prefixes=("/workflow",),
        timeout=options.get("timeout", 20.0),
    )


async def send_parts(parts: list[bytes], path: str = "/") -> tuple[Answer, Recorder]:
    app = Recorder()
    request = scope("POST", path, list(CHUNKED))
    return await call(guard(app), request, receiving(chunks(*parts))), app


async def test_json_is_read_once_and_kept() -> None:
    app = Recorder()
    answer = await post(guard(app), b'{"a":[1,"\xc3\xa9"]}')
    assert answer.status == 200
    assert app.state["json"] == {"a": [1, "é"]}
    assert app.state["body"] == app.bodies[0] == b'{"a":[1,"\xc3\xa9"]}'


async def test_a_body_in_parts_is_put_together() -> None:
    _, app = await send_parts([b'{"a"', b":", b"", b"1}"])
    assert app.state["json"] == {"a": 1}
    assert app.bodies == [b'{"a":1}']


async def test_without_a_body_nothing_is_read() -> None:
    async def receive() -> Message:
        raise AssertionError("there is nothing to read")

    async def app(request: Scope, receive_: object, send: object) -> None:
        assert receive_ is receive

    for headers in ([], [(b"content-length", b"0")]):
        await call(BodyGuard(app), scope("GET", "/", headers), receive)


async def test_after_the_body_comes_what_the_client_does_next() -> None:
    receive = replay(b"x", receiving([{"type": "http.disconnect"}]))
    assert await receive() == {"type": "http.request", "body": b"x", "more_body": False}
    assert await receive() == {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("content_type", "path", "status"),
    [
        ("application/json", "/", 200),
        ("application/json; charset=UTF-8", "/", 200),
        ('application/json;charset="utf-8"', "/", 200),
        ("application/vnd.api+json", "/", 200),
        (None, "/", 200),
        ("application/yaml", "/workflows", 200),
        ("application/x-yaml", "/workflow/x", 200),
        ("text/yaml; charset=utf-8", "/workflows", 200),
        ("application/yaml", "/agents", 415),
        ("application/x-www-form-urlencoded", "/", 415),
        ("multipart/form-data; boundary=x", "/", 415),
        ("text/plain", "/", 415),
        ("json", "/", 415),
        ("", "/", 415),
    ],
)
async def test_content_types(content_type: str | None, path: str, status: int) -> None:
    app = Recorder()
    answer = await post(guard(app), b'{"a":1}', path, content_type=content_type)
    assert answer.status == status
    assert bool(app.scopes) == (status == 200)


async def test_a_body_without_content_type_counts_as_json_for_everybody() -> None:
    app = Recorder()
    await post(guard(app), b'{"a":1}', content_type=None)
    assert (b"content-type", b"application/json") in app.scopes[0]["headers"]
    assert app.state["json"] == {"a": 1}


async def test_yaml_is_kept_as_it_came() -> None:
    app = Recorder()
    await post(guard(app), b"a: &x [1]", "/workflows", content_type="application/yaml")
    assert app.state["body"] == b"a: &x [1]"
    assert "json" not in app.state


@pytest.mark.parametrize("content_type", ["application/json", "application/yaml"])
@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf{}", '{"a":1}'.encode("utf-16"), b'{"a":"\xff"}'], ids=range(3)
)
async def test_F84_bom_utf16_and_broken_utf8_are_400(content_type: str, body: bytes) -> None:
    answer = await post(guard(Recorder()), body, "/workflows", content_type=content_type)
    assert (answer.status, answer.code) == (400, "bad_request")


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "x-unknown", "'utf-8'", ""])
async def test_F84_other_charsets_are_415(charset: str) -> None:
    content_type = f"application/json; charset={charset}"
    answer = await post(guard(Recorder()), b"{}", content_type=content_type)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, identity"])
@pytest.mark.parametrize("path", ["/", WEBHOOK])
async def test_F57_encoded_bodies_are_415(encoding: str, path: str) -> None:
    answer = await post(guard(Recorder()), b"{}", path, content_encoding=encoding)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")


async def test_identity_is_no_encoding() -> None:
    assert (await post(guard(Recorder()), b"{}", content_encoding="identity")).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":NaN}', b'{"a":1e999}', rb'{"a":"\ud800"}', rb'{"a":"\u0000"}',
        b"[" * 65 + b"]" * 65, b"[9007199254740993]", b'{"a":1,"a":1}', b'{"canary":', b"oops",
    ],
)  # fmt: skip
async def test_F76_to_F83_bad_json_is_422_and_never_echoed(body: bytes) -> None:
    app = Recorder()
    answer = await post(guard(app), body)
    assert (answer.status, answer.code) == (422, "validation_error")
    assert answer.json["errors"]
    assert body not in answer.body
    assert not app.scopes


@pytest.mark.parametrize(("path", "limit"), [("/", 1000), (WEBHOOK, 100)])
async def test_F85_a_declared_length_over_the_limit_is_refused_unread(
    path: str, limit: int
) -> None:
    async def receive() -> Message:
        raise AssertionError("too much was announced to read any of it")

    headers = [(b"content-length", str(limit + 1).encode())]
    answer = await call(guard(Recorder()), scope("POST", path, headers), receive)
    assert (answer.status, answer.code) == (413, "payload_too_large")


@pytest.mark.parametrize(("path", "limit"), [("/", 1000), (WEBHOOK, 100)])
async def test_F85_a_counted_length_over_the_limit_is_refused(path: str, limit: int) -> None:
    for parts in ([b"x" * (limit + 1)], [b"x" * limit, b"x"], [b"x"] * (limit + 1)):
        answer, app = await send_parts(parts, path)
        assert (answer.status, answer.code) == (413, "payload_too_large")
        assert answer.header("connection") == "close"
        assert not app.scopes


async def test_F85_a_body_at_the_limit_passes() -> None:
    answer, _ = await send_parts([b'"' + b"x" * 998 + b'"'])
    assert answer.status == 200


@pytest.mark.parametrize("sent", [[], chunks(b"{", b"")[:1]])
async def test_F86_a_body_that_does_not_arrive_is_408(sent: list[Message]) -> None:
    waiting = iter(sent)

    async def receive() -> Message:
        for message in waiting:
            return message
        return await asyncio.Future()

    request = scope("POST", "/", [(b"content-length", b"10")])
    answer = await call(guard(Recorder(), timeout=0.01), request, receive)
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert answer.header("connection") == "close"


async def test_a_body_that_comes_late_but_in_time_is_read() -> None:
    arrived = asyncio.Event()

    async def receive() -> Message:
        await arrived.wait()
        return chunks(b"[1]")[0]

    asyncio.get_running_loop().call_soon(arrived.set)
    assert await read_body(receive, 100, 20) == b"[1]"


async def test_a_reader_that_is_cancelled_ends_the_waiting() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        begun.set()
        try:
            return await asyncio.Future()
        finally:
            ended.set()

    task = asyncio.create_task(read_body(receive, 100, 20))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_client_that_leaves_gets_no_answer() -> None:
    request = scope("POST", "/", [(b"content-length", b"10")])
    for messages in ([], chunks(b"{", b"")[:1]):
        app = Recorder()
        answer = await call(guard(app), dict(request), receiving(messages))
        assert answer.status == 0
        assert not app.scopes


async def test_the_webhook_keeps_its_body_until_the_signature_is_checked() -> None:
    app = Recorder()
    answer = await post(guard(app), b'{"a":1,"a":2}', WEBHOOK)
    assert answer.status == 200
    assert "json" not in app.state
    assert app.state["body"] == b'{"a":1,"a":2}'


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-length", b"x")], 400),
        ([(b"content-length", b"-1")], 400),
        ([(b"content-length", b"9" * 20)], 400),
        ([(b"content-type", b"application/json"), (b"content-type", b"text/plain")], 400),
    ],
)
async def test_headers_that_contradict_are_refused(headers: RawHeaders, status: int) -> None:
    assert (await call(guard(Recorder()), scope("POST", "/", headers))).status == status


BAD_TARGETS = [
    "/agent/%2e%2e/x", "/agent/%2E", "/agent/a%2fb", "/agent/a%5Cb", "/agent/%0d%0aX", "/agent/%00",
    "/agent/%1b[31m", "/agent/%7f", "/agent/../x", "/agent/.", "/agent/./x", "/agent/" + "x" * 256,
    "/agent/" + "x" * 10_000, "/agent/%e2%80%ae", "/agent/%E2%80%A8", "/agent/%c2%85",
    "/agents?q=%0a", "/agents?q=%00", "/agents?q=%1B",
]  # fmt: skip


@pytest.mark.parametrize("target", BAD_TARGETS, ids=lambda target: target[:20])
async def test_F91_odd_targets_are_422(target: str) -> None:
    app = Recorder()
    answer = await call(guard(app), scope(path=target))
    assert (answer.status, answer.code) == (422, "validation_error")
    assert target.encode() not in answer.body
    assert not app.scopes


@pytest.mark.parametrize(
    "target",
    ["/", "/agent/a.b", "/agent/.hidden", "/agent/a%20b", "/agent/%C3%A9", "/agents?q=a%20b%2Fc&x",
     "/agent/" + "x" * 255, "/agents?q=" + "y" * 3000],
    ids=lambda target: target[:20],
)  # fmt: skip
async def test_ordinary_targets_pass(target: str) -> None:
    assert (await call(guard(Recorder()), scope(path=target))).status == 200


async def test_a_query_of_10_kB_is_400() -> None:
    answer = await call(guard(Recorder()), scope(path="/agents?q=" + "y" * 10_000))
    assert (answer.status, answer.code) == (400, "bad_request")


async def test_httpx_streams_pass_too() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"a":'
        yield b"1}"

    app = Recorder()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(guard(app)), base_url="http://test"
    ) as client:
        answer = await client.post("/", content=parts())
    assert answer.status_code == 200
    assert app.state["json"] == parse_json(b'{"a":1}')
