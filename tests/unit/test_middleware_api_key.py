import pytest
from starlette.types import Message, Receive, Scope

from opscore.middleware import ApiKeyGate
from tests.unit.asgi import Answer, RawHeaders, Recorder, call, scope

KEY = "the-key-0123456789"


async def untouchable() -> Message:
    raise AssertionError("the body was read before the key was known")


def gate(app: Recorder, *keys: str) -> ApiKeyGate:
    return ApiKeyGate(
        app, keys=keys or (KEY,), public_paths=["/health"], public_prefixes=("/docs/",)
    )


async def ask(
    headers: RawHeaders, path: str = "/v1/x", receive: Receive = untouchable
) -> tuple[Answer, Recorder]:
    app = Recorder()
    return await call(gate(app), scope("POST", path, headers), receive), app


WRONG: dict[str, RawHeaders] = {
    "missing": [],
    "empty": [(b"authorization", b"")],
    "no key": [(b"authorization", b"Bearer")],
    "empty key": [(b"authorization", b"Bearer ")],
    "wrong scheme": [(b"authorization", b"Basic " + KEY.encode())],
    "no scheme": [(b"authorization", KEY.encode())],
    "one byte off": [(b"authorization", b"Bearer the-key-0123456788")],
    "one byte short": [(b"authorization", b"Bearer the-key-012345678")],
    "one byte more": [(b"authorization", b"Bearer the-key-01234567899")],
    "two spaces": [(b"authorization", b"Bearer  " + KEY.encode())],
    "non-ASCII": [(b"authorization", b"Bearer \xff\xfe\xc3\xa9")],
    "doubled": [(b"authorization", b"Bearer " + KEY.encode())] * 2,
    "doubled, one empty": [
        (b"authorization", b""),
        (b"authorization", b"Bearer " + KEY.encode()),
    ],
    "another header": [(b"x-api-key", KEY.encode())],
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
async def test_F93_every_wrong_key_gets_the_same_401(headers: RawHeaders) -> None:
    answer, app = await ask(headers)
    expected, _ = await ask([])
    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.header("www-authenticate") == "Bearer"
    assert (answer.body, answer.headers) == (expected.body, expected.headers)
    assert not app.scopes


@pytest.mark.parametrize("scheme", [b"Bearer", b"bearer", b"BEARER"])
async def test_the_key_opens_every_path(scheme: bytes) -> None:
    app = Recorder()
    request = scope(path="/anything", headers=[(b"authorization", scheme + b" " + KEY.encode())])
    answer = await call(gate(app), request)
    assert answer.status == 200
    assert app.state["principal"] == "operator"


@pytest.mark.parametrize("key", ["first-key-1", "second-key-2", "dritter-schlüssel"])
async def test_any_of_several_keys_opens(key: str) -> None:
    app = gate(Recorder(), "first-key-1", "second-key-2", "dritter-schlüssel")
    request = scope(headers=[(b"authorization", b"Bearer " + key.encode())])
    assert (await call(app, request)).status == 200


@pytest.mark.parametrize("path", ["/health", "/docs/static/x.js"])
async def test_public_paths_need_no_key(path: str) -> None:
    app = Recorder()
    answer = await call(gate(app), scope(path=path))
    assert answer.status == 200
    assert "principal" not in app.state


@pytest.mark.parametrize(
    "path", ["/", "/healthy", "/health/", "/HEALTH", "/docs", "/x/docs/", "//health", "/metrics"]
)
async def test_F93_everything_else_is_denied(path: str) -> None:
    answer, _ = await ask([], path)
    assert answer.status == 401


@pytest.mark.parametrize("keys", [[], [""]])
async def test_without_a_key_nothing_opens(keys: list[str]) -> None:
    app = ApiKeyGate(Recorder(), keys=keys)
    for value in (b"Bearer ", b"Bearer x"):
        answer = await call(app, scope(headers=[(b"authorization", value)]))
        assert answer.status == 401


@pytest.mark.parametrize(
    ("headers", "closes"),
    [
        ([], False),
        ([(b"content-length", b"100")], False),
        ([(b"content-length", b"70000")], True),
        ([(b"transfer-encoding", b"chunked")], True),
        ([(b"content-length", b"100"), (b"expect", b"100-continue")], True),
        ([(b"content-length", b"1e3")], True),
        ([(b"content-encoding", b"gzip"), (b"content-length", b"5")], True),
    ],
)
async def test_a_401_closes_only_where_the_unread_body_would_harm(
    headers: RawHeaders, closes: bool
) -> None:
    answer, _ = await ask(headers)
    assert answer.status == 401
    assert answer.header("connection") == ("close" if closes else None)


async def test_a_websocket_without_key_is_closed() -> None:
    sent = []

    async def send(message: Message) -> None:
        sent.append(message)

    request: Scope = {**scope(), "type": "websocket"}
    app = Recorder()
    await gate(app)(request, untouchable, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]
    assert not app.scopes
