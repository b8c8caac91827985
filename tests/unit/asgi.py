"""Drives an ASGI app by hand: what a client library would not send, these tests must."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RawHeaders = list[tuple[bytes, bytes]]


@dataclass
class Answer:
    status: int = 0
    headers: RawHeaders = field(default_factory=list)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["code"])

    def header(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name.encode()]
        assert len(values) <= 1, f"{name} is there twice"
        return values[0].decode() if values else None


def scope(method: str = "GET", path: str = "/", headers: RawHeaders | None = None) -> Scope:
    """What a server makes of a request line; the path may be percent-encoded and have a query."""
    raw_path, _, query = path.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": unquote(raw_path),
        "raw_path": raw_path.encode("utf-8", "surrogateescape"),
        "query_string": query.encode(),
        "headers": headers or [],
        "http_version": "1.1",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("127.0.0.1", 1234),
        "root_path": "",
    }


def receiving(messages: Iterable[Message]) -> Receive:
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting, {"type": "http.disconnect"})

    return receive


def chunks(*parts: bytes) -> list[Message]:
    last = len(parts) - 1
    return [
        {"type": "http.request", "body": part, "more_body": number < last}
        for number, part in enumerate(parts)
    ]


async def call(app: ASGIApp, request: Scope, receive: Receive | None = None) -> Answer:
    answer = Answer()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = list(message["headers"])
        else:
            answer.body += message.get("body", b"")

    await app(request, receive or receiving([]), send)
    return answer


async def post(app: ASGIApp, body: bytes, path: str = "/", **headers: str | None) -> Answer:
    """A POST whose whole body is there. `None` takes a header away; names write - as _."""
    given: dict[str, str | None] = {
        "content_length": str(len(body)),
        "content_type": "application/json",
        **headers,
    }
    raw = [
        (name.replace("_", "-").encode(), value.encode())
        for name, value in given.items()
        if value is not None
    ]
    return await call(app, scope("POST", path, raw), receiving(chunks(body)))


class Recorder:
    """An app that remembers what reached it, and answers 200."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.bodies: list[bytes] = []

    async def __call__(self, request: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(request)
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.scopes[-1].get("state", {})
        return state
