import logging
from collections.abc import AsyncIterator
from typing import Annotated, Literal

import httpx
import orjson
import pytest
from fastapi import FastAPI, HTTPException, Path, Query
from pydantic import BaseModel, Field
from pydantic import ValidationError as PydanticError

from opscore import exceptions
from opscore.api.errors import install_error_handlers
from opscore.api.validation import validation_error
from opscore.exceptions import (
    AgentNotFoundError,
    Fault,
    OpsCoreError,
    QueueFullError,
    UnauthorizedError,
    ValidationError,
)
from opscore.middleware import ApiKeyGate, BodyGuard, RequestContext, problem

KNOWN = [
    kind
    for kind in vars(exceptions).values()
    if isinstance(kind, type) and issubclass(kind, OpsCoreError)
]
MEMBERS = {"type", "title", "status", "detail", "code", "requestId"}


# --- rendering --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KNOWN)
def test_every_error_has_the_one_shape(kind: type[OpsCoreError]) -> None:
    answer = problem(kind("What to do."), "r-1")
    body = orjson.loads(answer.body)
    assert body == {
        "type": f"/docs/errors#{kind.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": "What to do.",
        "code": kind.code,
        "requestId": "r-1",
    }
    headers = dict(answer.headers)
    assert answer.status == kind.status
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == str(len(answer.body)).encode()


def test_the_codes_are_unique() -> None:
    codes = [kind.code for kind in KNOWN]
    assert len(set(codes)) == len(codes)


def test_faults_become_errors() -> None:
    error = ValidationError("No.", faults=[Fault("/a/0", "Too long.", "too_long")])
    assert orjson.loads(problem(error, "r").body)["errors"] == [
        {"pointer": "/a/0", "message": "Too long.", "code": "too_long"}
    ]


def test_extra_members_are_added_and_replace_nothing() -> None:
    error = AgentNotFoundError("No.", extra={"agentId": "a", "status": 200})
    body = orjson.loads(problem(error, "r").body)
    assert (body["agentId"], body["status"]) == ("a", 404)


@pytest.mark.parametrize(
    ("seconds", "header"), [(None, None), (0.2, b"1"), (5, b"5"), (5.1, b"6"), (0, b"1")]
)
def test_retry_after_is_whole_seconds(seconds: float | None, header: bytes | None) -> None:
    headers = dict(problem(QueueFullError("Wait.", retry_after=seconds), "r").headers)
    assert headers.get(b"retry-after") == header


def test_only_a_401_asks_for_a_key() -> None:
    asked = dict(problem(UnauthorizedError("No."), "r").headers)
    assert asked[b"www-authenticate"] == b"Bearer"
    assert b"www-authenticate" not in dict(problem(AgentNotFoundError("No."), "r").headers)


@pytest.mark.parametrize("odd", ["\ud800", 2**80, object()], ids=["surrogate", "huge", "object"])
def test_F76_an_error_can_always_be_written(odd: object) -> None:
    error = ValidationError("No.", extra={"odd": odd})
    assert orjson.loads(problem(error, "r").body.replace(b"\\ud800", b""))["status"] == 422


# --- the application's handlers ---------------------------------------------------------------


class Item(BaseModel):
    number: int
    word: Literal["a", "b"] = "a"
    names: list[Annotated[str, Field(max_length=3)]] = []


def make_app() -> FastAPI:
    app = FastAPI()

    @app.get("/boom")
    async def boom() -> None:
        raise RuntimeError("canary")

    @app.get("/known")
    async def known() -> None:
        raise QueueFullError("Wait.", retry_after=3)

    @app.get("/http/{status}")
    async def http(status: int) -> None:
        raise HTTPException(status, "canary", {"X-Extra": "1"})

    @app.post("/items/{item_id}")
    async def items(
        item: Item, item_id: Annotated[int, Path()], limit: Annotated[int, Query(le=10)] = 1
    ) -> None:
        return None

    install_error_handlers(app)
    app.add_middleware(BodyGuard)
    app.add_middleware(ApiKeyGate, keys=["key-123"], public_paths=["/open"])
    app.add_middleware(RequestContext)
    return app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test", headers={"Authorization": "Bearer key-123"}
    ) as client:
        yield client


ERRORS = [
    ("GET", "/nothing", 404, "not_found"),
    ("GET", "/items/1", 405, "method_not_allowed"),
    ("DELETE", "/known", 405, "method_not_allowed"),
    ("GET", "/known", 503, "queue_full"),
    ("GET", "/boom", 500, "internal_error"),
    ("GET", "/http/400", 400, "bad_request"),
    ("GET", "/http/418", 418, "http_418"),
    ("GET", "/http/500", 500, "http_500"),
    ("POST", "/items/x", 422, "validation_error"),
]


@pytest.mark.parametrize(("method", "path", "status", "code"), ERRORS)
async def test_every_failure_has_the_one_shape(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert body["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(body) - {"errors"} == MEMBERS
    assert body["requestId"] == answer.headers["x-request-id"]
    assert "canary" not in answer.text


async def test_a_405_names_the_methods(client: httpx.AsyncClient) -> None:
    assert (await client.get("/items/1")).headers["allow"] == "POST"


async def test_headers_of_an_http_exception_are_kept(client: httpx.AsyncClient) -> None:
    answer = await client.get("/http/429")
    assert answer.headers["x-extra"] == "1"
    assert answer.headers.get_list("content-type") == ["application/problem+json"]


async def test_F93_no_key_is_answered_in_the_same_shape(client: httpx.AsyncClient) -> None:
    answer = await client.get("/known", headers={"Authorization": ""})
    assert answer.status_code == 401
    assert set(answer.json()) == MEMBERS


async def test_an_unexpected_error_is_logged_once_with_its_request(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        await client.get("/boom")
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_F76_invalid_bodies_are_pointed_at_without_echo(client: httpx.AsyncClient) -> None:
    sent = {"number": "canary-1", "word": "canary-2", "names": ["ok", "canary-3"]}
    answer = await client.post("/items/1?limit=99", json=sent)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [
        "/query/limit",
        "/number",
        "/word",
        "/names/1",
    ]
    assert all(fault["message"].endswith(".") for fault in answer.json()["errors"])
    assert "canary" not in answer.text


def test_pointers_are_escaped_and_cut() -> None:
    error = {"type": "missing", "loc": ("body", "a/b~c", 0, "x" * 500), "msg": "Field required"}
    [fault] = validation_error([error]).faults
    assert fault.pointer.startswith("/a~1b~0c/0/xxx")
    assert len(fault.pointer) == 200


def test_at_most_50_faults_are_listed() -> None:
    errors = [{"type": "missing", "loc": ("body", n), "msg": "Field required"} for n in range(60)]
    error = validation_error(errors)
    assert len(error.faults) == 50
    assert "10 more" in error.detail


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Pet(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


def test_messages_that_quote_the_input_are_replaced() -> None:
    with pytest.raises(PydanticError) as caught:
        Pet.model_validate({"pet": {"kind": "canary"}})
    [fault] = validation_error(caught.value.errors()).faults
    assert "canary" not in fault.message
