"""The whole application, run in the test's own loop and spoken to as a client would."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import orjson
from fastapi import FastAPI
from pydantic import SecretStr

from opscore.api.application import create_app
from opscore.api.core import Core
from opscore.logging_config import LogPipeline
from opscore.settings import Settings
from opscore.signature import sign
from tests.api.openapi import OpenApi
from tests.fakes import FakeCourier, ManualClock, settle
from tests.moody import Moody
from tests.storages import Opener

KEY = "the-key-of-these-tests-5e1f"
SECRET = "whsec_test_0123456789abcdef"
API = "/v1/opscore"
NOTIFY = f"{API}/internal/agent/notify"
AUTH = {"Authorization": f"Bearer {KEY}"}
JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"
REQUIRED = {"type", "title", "status", "detail", "code", "requestId"}


@dataclass
class Service:
    """A running service. Paths that do not begin with / stand under /v1/opscore."""

    app: FastAPI
    client: httpx.AsyncClient
    storage: Moody
    clock: ManualClock
    courier: FakeCourier

    @property
    def core(self) -> Core:
        core: Core = self.app.state.core
        return core

    async def call(self, method: str, path: str, **given: Any) -> httpx.Response:
        """Every answer of every test is held against the OpenAPI document."""
        target = path if path.startswith("/") else f"{API}/{path}"
        answer = await self.client.request(method, target, **given)
        contract().check(answer)
        return answer

    async def get(self, path: str, **query: Any) -> httpx.Response:
        return await self.call("GET", path, params=query or None)

    async def post(self, path: str, body: Any = None, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.call("POST", path, json=body, headers=named)

    async def raw(
        self, path: str, body: bytes, content_type: str | None = "application/json", **given: Any
    ) -> httpx.Response:
        headers = {"Content-Type": content_type} if content_type else {}
        return await self.call(given.pop("method", "POST"), path, content=body, headers=headers)

    async def json(self, path: str, **query: Any) -> Any:
        answer = await self.get(path, **query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def pass_time(self, seconds: float) -> None:
        """What was begun before happens before."""
        await settle()
        self.clock.advance(seconds)
        await settle()

    # --- what many tests begin with -------------------------------------------------------

    async def register(self, agent_id: str = "a1", **fields: Any) -> dict[str, Any]:
        body = {
            "agentId": agent_id,
            "agentName": agent_id,
            "capabilities": ["research"],
            "contactEndpoint": "http://127.0.0.1:9100/task",
            **fields,
        }
        answer = await self.post("agents", body)
        assert answer.status_code in (200, 201), answer.text
        agent: dict[str, Any] = answer.json()
        return agent

    async def report(self, agent_id: str = "a1", state: str = "idle", **fields: Any) -> int:
        body = {"agentId": agent_id, "state": state, **fields}
        return (await self.post(f"agent/{agent_id}/state", body)).status_code

    async def trigger(self, *tasks: dict[str, Any], agent_id: str = "a1", **body: Any) -> str:
        """Start the tasks as a workflow of its own; the session's id."""
        given = list(tasks) or [{"taskId": "one"}]
        definition = {"id": "flow", "tasks": given}
        answer = await self.post(
            f"agent/{agent_id}/workflow", {"workflowDefinition": definition, **body}
        )
        assert answer.status_code == 202, answer.text
        await settle()
        return str(answer.json()["sessionId"])

    async def task(self, session_id: str, step: str = "one") -> dict[str, Any]:
        """The session's task of that step."""
        items = (await self.json(f"session/{session_id}/tasks"))["items"]
        task: dict[str, Any] = next(item for item in items if item["stepId"] == step)
        return task

    async def notify(self, body: bytes, **headers: str) -> httpx.Response:
        """Send a webhook as it is, with the headers as they are."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.call(
            "POST", NOTIFY, content=body, headers={"Authorization": "", **JSON, **named}
        )

    async def webhook(
        self, event: str = "REGISTER", skew: float = 0, secret: str = SECRET, **details: Any
    ) -> httpx.Response:
        """Send a webhook as AgentKit does."""
        body = announcement(event, **details)
        return await self.notify(body, **self.signed(body, skew, secret))

    def signed(self, body: bytes, skew: float = 0, secret: str = SECRET) -> dict[str, str]:
        stamp = str(int(self.clock.wall().timestamp() + skew))
        return {
            "X_AgentKit_Timestamp": stamp,
            "X_AgentKit_Signature": sign(secret, stamp, body),
        }


def announcement(event: str = "REGISTER", **details: Any) -> bytes:
    """AgentKit's webhook, to the letter."""
    agent = {
        "agentId": "5f9f43c5-2d88-4173-ba89-9a85aa1ff15f",
        "agentName": "a1",
        "capabilities": ["x"],
        "version": "1",
        "contactEndpoint": "http://127.0.0.1:9102/task",
        "metadata": None,
        "registration_time": "2026-01-01T11:59:59.531120Z",
        **details,
    }
    return orjson.dumps({"event_type": event, "agent_details": agent})


@asynccontextmanager
async def running(
    open_empty: Opener,
    *,
    log: LogPipeline | None = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    given = {"api_key": KEY, "webhook_secret": SECRET, "drain_timeout": 0.2, **settings}
    wanted = Settings(_env_file=None, **given)
    storage = Moody(await open_empty(wanted.retention))
    manual, fake = ManualClock(), FakeCourier()
    app = create_app(
        wanted,
        storage=storage.storage,
        courier=fake,
        clock=manual,
        log=log,
    )
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport, base_url="http://testserver", headers=AUTH
        ) as client,
    ):
        yield Service(app, client, storage, manual, fake)


@cache
def contract() -> OpenApi:
    """Made once: it is the same for every application."""
    return OpenApi(create_app(Settings(_env_file=None, api_key=SecretStr(KEY))).openapi())


def check_problem(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The answer is the one shape of an error, whole and consistent; its content."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = answer.json()
    assert problem.keys() >= REQUIRED
    assert problem["status"] == status
    assert problem["type"] == f"/docs/errors#{problem['code']}"
    assert problem["requestId"] == answer.headers["x-request-id"]
    assert problem["detail"].endswith((".", "?"))
    assert code is None or problem["code"] == code
    for fault in problem.get("errors", ()):
        assert fault.keys() == {"pointer", "message", "code"}
    return problem
