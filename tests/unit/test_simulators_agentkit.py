"""The simulated AgentKit, against a stub of Ops-Core and a stub of an agent."""

import asyncio
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from opscore.simulators.agentkit import SimulatedAgentKit
from tests.unit.waiting import until

SECRET = "whsec_test_0123456789abcdef"
NOTIFY = "http://opscore/v1/opscore/internal/agent/notify"
CARD = {
    "agentName": "a1",
    "capabilities": ["x"],
    "version": "1",
    "contactEndpoint": "http://agent/task",
}
MESSAGE = {
    "senderId": "opscore_system_id",
    "messageType": "workflow_task",
    "payload": {"task_name": "t", "task_parameters": {"n": "é"}, "attempt": 2},
    "task_name": "t",
    "opscore_session_id": "s1",
    "opscore_task_id": "t1",
    "sessionContext": {"sessionId": "s1", "priorMessages": ["p"], "other": 1},
    "attempt": 2,
}


@dataclass
class Stub:
    """Keeps every POST, and answers all of them with `status`."""

    status: int = 200
    requests: list[tuple[str, httpx.Headers, bytes]] = field(default_factory=list)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> JSONResponse:
        headers = httpx.Headers(request.headers.items())
        self.requests.append((request.url.path, headers, await request.body()))
        return JSONResponse({}, self.status)


@dataclass
class World:
    """The simulated AgentKit, and all that it can reach."""

    kit: SimulatedAgentKit
    http: httpx.AsyncClient
    opscore: Stub
    agent: Stub

    async def register(self, **changes: Any) -> str:
        answer = await self.http.post("/v1/agents/register", json={**CARD, **changes})
        assert answer.status_code == 201
        agent_id: str = answer.json()["data"]["agentId"]
        return agent_id

    async def run(self, agent_id: str, message: Any = MESSAGE) -> httpx.Response:
        answer = await self.http.post(f"/v1/agents/{agent_id}/run", json=message)
        await self.kit.background.settle()
        return answer


def reachable(**apps: Any) -> dict[str, httpx.AsyncBaseTransport | None]:
    return {f"http://{name}": httpx.ASGITransport(app) for name, app in apps.items()}


@pytest.fixture
async def world() -> AsyncIterator[World]:
    opscore, agent = Stub(), Stub()
    client = httpx.AsyncClient(mounts=reachable(opscore=opscore.app, agent=agent.app))
    kit = SimulatedAgentKit(webhook_url=NOTIFY, webhook_secret=SECRET, client=client)
    transport = httpx.ASGITransport(kit.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://kit") as http:
        yield World(kit, http, opscore, agent)
    await kit.aclose()


# --- registration ---------------------------------------------------------------------------


async def test_an_agent_is_registered_under_a_new_uuid(world: World) -> None:
    answer = await world.http.post("/v1/agents/register", json=CARD)
    assert answer.status_code == 201
    assert answer.json()["status"] == "success"
    assert answer.json()["error_code"] is None
    agent_id = answer.json()["data"]["agentId"]
    assert agent_id == str(UUID(agent_id))


async def test_a_name_is_taken_once(world: World) -> None:
    await world.register()
    refused = await world.http.post("/v1/agents/register", json=CARD)
    assert refused.status_code == 409
    assert refused.json() == {"detail": "Agent with name 'a1' is already registered."}
    await world.register(agentName="a2")


async def test_an_agent_without_capabilities_is_registered(world: World) -> None:
    card = {key: value for key, value in CARD.items() if key != "capabilities"}
    assert (await world.http.post("/v1/agents/register", json=card)).status_code == 201
    await world.kit.background.settle()
    details = httpx.Response(200, content=world.opscore.requests[0][2]).json()["agent_details"]
    assert details["capabilities"] == []


async def test_the_webhook_is_signed_and_says_all(world: World) -> None:
    agent_id = await world.register()
    await world.kit.background.settle()
    [(path, headers, body)] = world.opscore.requests
    stamp = headers["x-agentkit-timestamp"]
    expected = hmac.new(SECRET.encode(), f"{stamp}.".encode() + body, hashlib.sha256)
    assert path == "/v1/opscore/internal/agent/notify"
    assert stamp.isdigit()
    assert headers["x-agentkit-signature"] == expected.hexdigest()
    webhook = httpx.Response(200, content=body).json()
    time = webhook["agent_details"].pop("registration_time")
    assert time.endswith("Z")
    assert webhook == {
        "event_type": "REGISTER",
        "agent_details": {"agentId": agent_id, **CARD, "metadata": None},
    }


async def test_metadata_goes_along(world: World) -> None:
    await world.register(metadata={"description": "d", "config": {"k": 1}, "more": 2})
    await world.kit.background.settle()
    details = httpx.Response(200, content=world.opscore.requests[0][2]).json()["agent_details"]
    assert details["metadata"] == {"description": "d", "config": {"k": 1}}


async def test_the_webhook_is_not_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.opscore.status = 503
    await world.register()
    await world.kit.background.settle()
    assert len(world.opscore.requests) == 1
    assert "webhook" in caplog.text


async def test_without_a_secret_there_is_no_webhook() -> None:
    opscore = Stub()
    client = httpx.AsyncClient(mounts=reachable(opscore=opscore.app))
    kit = SimulatedAgentKit(webhook_url=NOTIFY, client=client)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(kit.app), base_url="http://kit"
    ) as http:
        await http.post("/v1/agents/register", json=CARD)
        await kit.background.settle()
    await kit.aclose()
    assert opscore.requests == []


# --- running a task -------------------------------------------------------------------------


async def test_a_task_is_accepted_and_forwarded_in_agentkits_own_model(world: World) -> None:
    agent_id = await world.register()
    answer = await world.run(agent_id)
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "success",
        "message": f"Task accepted for agent {agent_id}. Dispatch scheduled.",
        "data": {"agentId": agent_id, "dispatch_status": "scheduled"},
        "error_code": None,
    }
    [(path, _, body)] = world.agent.requests
    kept = {key: value for key, value in MESSAGE.items() if key != "attempt"}
    forwarded = httpx.Response(200, content=body).json()
    assert path == "/task"
    assert datetime.fromisoformat(forwarded.pop("timestamp")).tzinfo is not None
    assert forwarded == {
        **kept,
        "sessionContext": {"sessionId": "s1", "priorMessages": ["p"]},
    }


async def test_an_unknown_agent_is_404(world: World) -> None:
    answer = await world.run("nobody")
    assert answer.status_code == 404
    assert answer.json() == {"detail": "Agent with ID 'nobody' not found."}


@pytest.mark.parametrize("missing", ["senderId", "messageType", "payload"])
async def test_a_message_without_a_required_field_is_422(world: World, missing: str) -> None:
    agent_id = await world.register()
    message = {key: value for key, value in MESSAGE.items() if key != missing}
    answer = await world.run(agent_id, message)
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", missing]
    assert world.agent.requests == []


@pytest.mark.parametrize("message", [[], "text", {**MESSAGE, "payload": "text"}])
async def test_a_message_of_the_wrong_shape_is_422(world: World, message: Any) -> None:
    agent_id = await world.register()
    assert (await world.run(agent_id, message)).status_code == 422


async def test_a_tool_answers_synchronously_with_202(world: World) -> None:
    agent_id = await world.register()
    payload = {"tool_name": "mock_tool", "arguments": {"a": 1, "b": 2}}
    answer = await world.run(
        agent_id, {**MESSAGE, "messageType": "tool_invocation", "payload": payload}
    )
    assert (answer.status_code, answer.json()["data"]) == (202, {"result": 3})
    assert world.agent.requests == []


@pytest.mark.parametrize("arguments", [{"a": 1, "b": 2}, {"x": 1, "y": 2}])
async def test_the_mock_tool_adds_either_pair_of_arguments(
    world: World, arguments: dict[str, int]
) -> None:
    agent_id = await world.register()
    payload = {"tool_name": "mock_tool", "arguments": arguments}
    message = {**MESSAGE, "messageType": "tool_invocation", "payload": payload}
    assert (await world.run(agent_id, message)).json()["data"] == {"result": 3}


@pytest.mark.fault("F125")
@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500])
async def test_a_tools_status_is_handed_on_with_agentkits_text(world: World, status: int) -> None:
    agent_id = await world.register()
    arguments = {"status": status, "response": {"detail": "no"}}
    payload = {"tool_name": "status_tool", "arguments": arguments}
    answer = await world.run(
        agent_id, {**MESSAGE, "messageType": "tool_invocation", "payload": payload}
    )
    assert answer.status_code == status
    assert answer.json() == {
        "detail": f"External tool 'status_tool' returned error: Status {status} - "
        "Response: {'detail': 'no'}"
    }


@pytest.mark.fault("F123")
async def test_a_late_202_comes_after_the_delivery(world: World) -> None:
    agent_id = await world.register()
    world.kit.behaviour.answer_delay = 60
    asking = asyncio.create_task(
        world.http.post(f"/v1/agents/{agent_id}/run", json=MESSAGE), name="run"
    )
    await until(lambda: bool(world.agent.requests))
    assert not asking.done()
    asking.cancel()


async def test_a_late_delivery_comes_after_the_202(world: World) -> None:
    agent_id = await world.register()
    world.kit.behaviour.forward_delay = 60
    answer = await world.http.post(f"/v1/agents/{agent_id}/run", json=MESSAGE)
    assert (answer.status_code, world.agent.requests) == (202, [])


async def test_a_failed_forward_is_only_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    agent_id = await world.register()
    world.agent.status = 500
    assert (await world.run(agent_id)).status_code == 202
    assert len(world.agent.requests) == 1
    assert f"forwarding to agent {agent_id} failed" in caplog.text


async def test_F36_a_losing_agentkit_accepts_and_delivers_nothing_until_it_is_mended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    agent_id = await world.register()
    await world.http.patch("/simulator/behaviour", json={"forwarding": "loses"})
    assert (await world.run(agent_id)).status_code == 202
    assert world.agent.requests == []
    assert "Invalid type for url" in caplog.text
    await world.http.patch("/simulator/behaviour", json={"forwarding": "works"})
    await world.run(agent_id)
    assert len(world.agent.requests) == 1


async def test_F36_a_silent_agentkit_does_not_even_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    agent_id = await world.register()
    world.kit.behaviour.silent = True
    assert (await world.run(agent_id)).status_code == 202
    assert world.agent.requests == []
    assert "forwarding" not in caplog.text


async def test_F26_a_failing_agentkit_answers_the_status_it_was_told(world: World) -> None:
    agent_id = await world.register()
    world.kit.behaviour.change({"failRate": 1, "failStatus": 503, "retryAfter": 2})
    answer = await world.run(agent_id)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert world.agent.requests == []


async def test_a_key_is_required_where_one_is_set() -> None:
    kit = SimulatedAgentKit(required_key="k1")
    transport = httpx.ASGITransport(kit.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://kit") as http:
        refused = await http.post("/v1/agents/register", json=CARD)
        headers = {"Authorization": "Bearer k1"}
        taken = await http.post("/v1/agents/register", json=CARD, headers=headers)
    await kit.aclose()
    assert (refused.status_code, taken.status_code) == (401, 201)


async def test_there_is_no_list_of_agents(world: World) -> None:
    await world.register()
    answer = await world.http.get("/v1/agents")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})
    assert (await world.http.get("/health")).json()["status"] == "ok"


# --- what tests may do ----------------------------------------------------------------------


async def test_F30_an_agent_is_forgotten_as_by_a_restart(world: World) -> None:
    first, second = await world.register(), await world.register(agentName="a2")
    assert (await world.http.post("/simulator/forget", json={"agentId": first})).json() == {
        "forgotten": [first]
    }
    assert (await world.run(first)).status_code == 404
    assert (await world.run(second)).status_code == 202
    await world.http.post("/simulator/forget")
    assert (await world.run(second)).status_code == 404
    assert await world.register() != first


async def test_what_was_received_is_read_with_a_cursor(world: World) -> None:
    agent_id = await world.register()
    await world.run(agent_id)
    everything = (await world.http.get("/simulator/received")).json()
    assert [entry["path"] for entry in everything["items"]] == [
        "/v1/agents/register",
        f"/v1/agents/{agent_id}/run",
    ]
    assert everything["items"][1]["agentId"] == agent_id
    assert everything["items"][1]["body"] == MESSAGE
    rest = (await world.http.get("/simulator/received?after=1")).json()
    assert [entry["n"] for entry in rest["items"]] == [2]
    assert (await world.http.get("/simulator/received?after=2")).json() == {"items": [], "next": 2}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/simulator/received?after=-1", None),
        ("PATCH", "/simulator/behaviour", {"failRate": 2}),
        ("PATCH", "/simulator/behaviour", []),
    ],
)
async def test_a_wrong_wish_is_422(world: World, method: str, path: str, body: Any) -> None:
    answer = await world.http.request(method, path, json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]
