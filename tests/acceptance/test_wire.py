"""The wire that AgentKit, its agents and other clients rely on, to the letter, on a real server."""

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.processes import OnStorage, Service, service_on_each_storage
from tests.acceptance.world import API, World, echo_step, sent_to, world_around

pytestmark = pytest.mark.acceptance

SECRET = "whsec_test_0123456789abcdef"
NOTIFY = f"{API}/internal/agent/notify"


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory, kit_port: int) -> Iterator[OnStorage]:
    settings = {
        "OPSCORE_WEBHOOK_SECRET": f"{SECRET}, the-next-webhook-secret",
        # As it is often configured; the service takes the /v1 off.
        "AGENTKIT_API_URL": f"http://127.0.0.1:{kit_port}/v1",
        "OPSCORE_DISPATCH_MODE": "agentkit",
    }
    with service_on_each_storage(tmp_path_factory.mktemp("wire"), settings) as on:
        yield on


@pytest.fixture
def opscore(services: OnStorage, storage_kind: str) -> Service:
    running = services(storage_kind)
    running.secret = SECRET
    return running


@pytest.fixture
async def world(opscore: Service, kit_port: int) -> AsyncIterator[World]:
    async with world_around(opscore, kit_port) as world:
        yield world


@pytest.fixture
def http(world: World) -> httpx.AsyncClient:
    return world.http


def signed(body: bytes, timestamp: str | None = None, secret: str = SECRET) -> dict[str, str]:
    """The headers that AgentKit sends with a webhook."""
    stamp = timestamp or str(int(time.time()))
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "X-AgentKit-Timestamp": stamp,
        "X-AgentKit-Signature": digest.hexdigest(),
    }


async def announce(http: httpx.AsyncClient, document: Any, **how: str) -> httpx.Response:
    body = json.dumps(document).encode()
    return await http.post(
        NOTIFY, content=body, headers=signed(body, **how) | {"Authorization": ""}
    )


def register_event(agent_id: str, **more: Any) -> dict[str, Any]:
    """Names are unique, as AgentKit's are: a known one under another id retires the agent."""
    name = f"agent {agent_id}"
    details = {"agentId": agent_id, "agentName": name, "capabilities": ["x"], "version": "1"}
    return {"event_type": "REGISTER", "agent_details": details | more}


async def registered(http: httpx.AsyncClient) -> str:
    agent_id = str(uuid4())
    endpoint = {"contactEndpoint": "http://127.0.0.1:9/task"}
    assert (await announce(http, register_event(agent_id, **endpoint))).status_code == 200
    return agent_id


async def report(http: httpx.AsyncClient, agent_id: str, **body: Any) -> httpx.Response:
    document = {"agentId": agent_id, "timestamp": datetime.now(UTC).isoformat(), **body}
    return await http.post(f"{API}/agent/{agent_id}/state", json=document)


def assert_is_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert isinstance(problem["detail"], str)
    assert problem["detail"]


# --- the webhook ---------------------------------------------------------------------------------


async def test_the_announcement_of_a_running_agentkit_is_taken(http: httpx.AsyncClient) -> None:
    agent_id = str(uuid4())
    body = (
        b'{"event_type":"REGISTER","agent_details":{"agentId":"%s","agentName":"a1",'
        b'"capabilities":["x"],"version":"1","contactEndpoint":"http://127.0.0.1:9102/task",'
        b'"metadata":null,"registration_time":"2026-11-21T06:27:44.531120Z"}}'
    ) % agent_id.encode()
    headers = signed(body) | {"Authorization": ""}
    answer = await http.post(NOTIFY, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"status", "message"}
    assert answer.json()["status"] == "success"
    agent = (await http.get(f"{API}/agent/{agent_id}")).json()
    assert agent["agentName"] == "a1"
    assert agent["capabilities"] == ["x"]
    assert agent["version"] == "1"
    assert agent["contactEndpoint"] == "http://127.0.0.1:9102/task"
    assert agent["metadata"] is None


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"description": "an agent", "config": {"depth": 3}}},
        {"metadata": {"description": None, "config": None}},
        {"registrationTime": "2026-11-21T06:27:44.531120Z"},
        {"registration_time": "2026-11-21T06:27:44.531120"},
        {"somethingNew": {"a": [1]}, "status": "online"},
    ],
)
async def test_every_form_of_the_details_is_taken(
    http: httpx.AsyncClient, more: dict[str, Any]
) -> None:
    agent_id = str(uuid4())
    document = {**register_event(agent_id, **more), "event_id": "unknown fields are passed over"}
    answer = await announce(http, document)
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    agent = (await http.get(f"{API}/agent/{agent_id}")).json()
    assert agent["metadata"] == more.get("metadata")


async def test_an_agent_announced_again_is_taken_as_well(http: httpx.AsyncClient) -> None:
    agent_id = await registered(http)
    answer = await announce(http, register_event(agent_id, version="2"))
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    assert (await http.get(f"{API}/agent/{agent_id}")).json()["version"] == "2"


async def test_an_agent_is_deregistered_as_the_documents_of_agentkit_say(
    http: httpx.AsyncClient,
) -> None:
    agent_id = await registered(http)
    document = {"event_type": "DEREGISTER", "agent_details": {"agentId": agent_id}}
    answer = await announce(http, document)
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    agent = (await http.get(f"{API}/agent/{agent_id}")).json()
    assert agent["availability"] == "deregistered"


@pytest.mark.parametrize(
    "document",
    [
        {"event_type": "RENAME", "agent_details": {"agentId": "a1"}},
        {"agent_details": {"agentId": "a1"}},
        {"event_type": "REGISTER", "agent_details": {"agentName": "a1"}},
        {"event_type": "REGISTER", "agent_details": {"agentId": None}},
        {"event_type": "REGISTER"},
    ],
)
async def test_F63_an_event_that_is_none_is_refused(
    http: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    assert_is_problem(await announce(http, document), 400)


@pytest.mark.parametrize(
    ("body", "signature"),
    [
        (b"", "814e706027d44b6013448b27b12c76ad281f72d11fcf05d71e1ef85b69465064"),
        (
            '{"n":"é"}'.encode(),
            "6878d5318e03d56ae8da78b2867b2013a286c01b3a1d9d0b2658a320d63798e9",
        ),
    ],
)
async def test_the_vectors_of_the_signature(
    http: httpx.AsyncClient, body: bytes, signature: str
) -> None:
    """The signature is looked at before the time: a right one is told that it is too old."""
    headers = signed(body, "1700000000")
    assert headers["X-AgentKit-Signature"] == signature
    old = await http.post(NOTIFY, content=body, headers=headers)
    assert_is_problem(old, 401)
    assert "clocks" in old.json()["detail"]
    headers["X-AgentKit-Signature"] = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    forged = await http.post(NOTIFY, content=body, headers=headers)
    assert_is_problem(forged, 401)
    assert "does not match" in forged.json()["detail"]


def iso(seconds: int = 0) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("timestamp", "status"),
    [
        pytest.param(lambda: str(int(time.time())), 200, id="unix seconds"),
        pytest.param(iso, 200, id="ISO 8601"),
        pytest.param(lambda: iso().replace("+00:00", "Z"), 200, id="ISO 8601 with Z"),
        pytest.param(lambda: str(int(time.time()) - 295), 200, id="old"),
        pytest.param(lambda: str(int(time.time()) + 295), 200, id="ahead"),
        pytest.param(lambda: str(int(time.time()) - 305), 401, id="too old"),
        pytest.param(lambda: str(int(time.time()) + 305), 401, id="too far ahead"),
        pytest.param(lambda: iso(-305), 401, id="ISO 8601 too old"),
    ],
)
async def test_F55_the_timestamp_of_a_webhook(
    http: httpx.AsyncClient, timestamp: Any, status: int
) -> None:
    answer = await announce(http, register_event(str(uuid4())), timestamp=timestamp())
    assert answer.status_code == status, answer.text


async def test_F61_both_secrets_are_good_while_they_change(http: httpx.AsyncClient) -> None:
    for secret, status in ((SECRET, 200), ("the-next-webhook-secret", 200), ("another", 401)):
        answer = await announce(http, register_event(str(uuid4())), secret=secret)
        assert answer.status_code == status


@pytest.mark.parametrize("header", ["X-AgentKit-Timestamp", "X-AgentKit-Signature"])
async def test_F52_an_unsigned_webhook_is_refused(http: httpx.AsyncClient, header: str) -> None:
    body = json.dumps(register_event("a1")).encode()
    headers = signed(body)
    del headers[header]
    assert_is_problem(await http.post(NOTIFY, content=body, headers=headers), 401)


async def test_F58_the_very_same_webhook_again_is_called_a_duplicate(
    http: httpx.AsyncClient,
) -> None:
    body = json.dumps(register_event(str(uuid4()))).encode()
    headers = signed(body)
    answers = [await http.post(NOTIFY, content=body, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["status"] for answer in answers] == ["success", "duplicate"]


# --- states --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", ["initializing", "idle", "active", "error", "finished", "BUSY", "IDLE", "UNKNOWN"]
)
async def test_a_state_is_taken_and_given_back_as_it_was_said(
    http: httpx.AsyncClient, word: str
) -> None:
    agent_id = await registered(http)
    said = {"last_task_result": {"n": 1}}
    answer = await report(http, agent_id, state=word, details=said)
    assert answer.status_code == 202
    assert answer.json() == {"status": "success", "message": "State update accepted"}
    state = await http.get(f"{API}/agent/{agent_id}/state")
    assert state.status_code == 200
    assert {"agentId", "state", "details", "timestamp"} <= state.json().keys()
    assert state.json()["agentId"] == agent_id
    assert state.json()["state"] == word
    assert state.json()["details"] == said


@pytest.mark.parametrize("body", [{"state": "idle"}, {"state": "idle", "details": None}])
async def test_details_may_be_null_or_left_out(
    http: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    agent_id = await registered(http)
    assert (await report(http, agent_id, **body)).status_code == 202
    assert (await http.get(f"{API}/agent/{agent_id}/state")).json()["details"] == {}


async def test_the_timestamp_of_a_state_is_the_agents_own(http: httpx.AsyncClient) -> None:
    agent_id = await registered(http)
    said = datetime.now(UTC).replace(microsecond=531120)
    await report(http, agent_id, state="idle", timestamp=said.isoformat())
    given = (await http.get(f"{API}/agent/{agent_id}/state")).json()["timestamp"]
    assert datetime.fromisoformat(given) == said


async def test_an_agent_that_has_not_reported_is_unknown_and_a_strange_one_not_found(
    http: httpx.AsyncClient,
) -> None:
    assert_is_problem(await http.get(f"{API}/agent/{uuid4()}/state"), 404)
    answer = await http.get(f"{API}/agent/{await registered(http)}/state")
    assert answer.status_code == 200
    assert answer.json()["state"] == "UNKNOWN"
    assert answer.json()["details"] == {"reason": "Initial registration"}


async def test_F46_F47_whose_state_it_is_must_be_clear(http: httpx.AsyncClient) -> None:
    agent_id = await registered(http)
    body = {"agentId": str(uuid4()), "timestamp": iso(), "state": "idle", "details": {}}
    assert_is_problem(await http.post(f"{API}/agent/{agent_id}/state", json=body), 400)
    assert_is_problem(await report(http, str(uuid4()), state="idle"), 404)


@pytest.mark.parametrize("key", [None, "", "Bearer", "Bearer wrong", "Basic a2V5", "wrong"])
async def test_F93_a_report_without_the_key_is_refused(opscore: Service, key: str | None) -> None:
    headers = {} if key is None else {"Authorization": key}
    async with httpx.AsyncClient(base_url=opscore.url, trust_env=False, verify=False) as stranger:
        answer = await stranger.post(f"{API}/agent/a1/state", json={}, headers=headers)
    assert_is_problem(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


# --- what goes out -------------------------------------------------------------------------------


async def test_the_message_to_agentkit_and_what_reaches_the_agent(world: World) -> None:
    """The base URL of this service ends in /v1, and everything of ours is inside the payload."""
    kit = await world.agentkit()
    agent = await world.agent("wire")
    session = await world.run(agent, echo_step("only", name="The only one"), topic="tides")
    [task] = await world.tasks(session["sessionId"])
    [entry] = [one for one in kit.received.after() if one.agent_id == agent.agent_id]
    message = entry.body
    payload = message.pop("payload")
    assert entry.path == f"/v1/agents/{agent.agent_id}/run"
    assert message == {
        "senderId": "opscore_system_id",
        "messageType": "workflow_task",
        "task_name": "The only one",
        "opscore_session_id": session["sessionId"],
        "opscore_task_id": task["taskId"],
        "sessionContext": {"sessionId": session["sessionId"], "priorMessages": []},
    }
    assert payload["task_name"] == "The only one"
    assert payload["task_parameters"] == {"step": "only", "topic": "tides"}
    assert payload["attempt"] == 1
    assert datetime.fromisoformat(payload["deadline"]) > datetime.now(UTC)
    [arrived] = sent_to(agent)
    assert arrived["payload"] == payload
    assert arrived["opscore_task_id"] == task["taskId"]
    assert session["output"] == {"echo": payload["task_parameters"]}


# --- workflows -----------------------------------------------------------------------------------

IN_THE_WILD = {
    "name": "Two steps",
    "description": "As the other clients send it",
    "version": "1.0",
    "tasks": [
        {
            "taskId": "step_1",
            "name": "First Step",
            "agentCapability": "test_capability",
            "parameters": {"a": 1},
            "nextTaskId": "step_2",
        },
        {
            "taskId": "step_2",
            "name": "Second Step",
            "agentCapability": "test_capability",
            "parameters": {},
            "nextTaskId": None,
        },
    ],
}
BARE = {"id": "bare", "name": "Bare", "tasks": [{"taskId": "only", "parameters": {"a": 1}}]}


async def trigger(http: httpx.AsyncClient, agent_id: str, body: Any) -> httpx.Response:
    return await http.post(f"{API}/agent/{agent_id}/workflow", json=body)


@pytest.mark.parametrize("payload", [{"topic": "tides"}, {}, None])
@pytest.mark.parametrize("saved", [True, False])
async def test_a_workflow_is_started(
    http: httpx.AsyncClient, saved: bool, payload: dict[str, Any] | None
) -> None:
    agent_id, definition = await registered(http), {"id": f"wild-{uuid4()}", **IN_THE_WILD}
    body: dict[str, Any] = {"workflowDefinition": definition}
    if saved:
        assert (await http.post(f"{API}/workflows", json=definition)).status_code == 201
        body = {"workflowDefinitionId": definition["id"]}
    answer = await trigger(http, agent_id, {**body, "initialPayload": payload})
    assert answer.status_code == 202, answer.text
    started = answer.json()
    assert started.keys() == {"sessionId", "workflowId", "message"}
    assert started["workflowId"] == definition["id"]
    session = (await http.get(f"{API}/session/{started['sessionId']}")).json()
    assert session["input"] == (payload or {})


async def test_a_task_may_carry_only_its_id_and_parameters(http: httpx.AsyncClient) -> None:
    agent_id = await registered(http)
    answer = await trigger(http, agent_id, {"workflowDefinition": BARE})
    assert answer.status_code == 202, answer.text
    [task] = (await http.get(f"{API}/session/{answer.json()['sessionId']}/tasks")).json()["items"]
    assert (task["wantedAgent"], task["parameters"]) == (agent_id, {"a": 1})


@pytest.mark.parametrize(
    "body",
    [
        {"workflowDefinitionId": "bare", "workflowDefinition": BARE},
        {"initialPayload": {"topic": "tides"}},
        {"workflowDefinitionId": None, "workflowDefinition": None},
        {},
    ],
)
async def test_both_or_neither_of_two_definitions_are_refused(
    http: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    assert_is_problem(await trigger(http, await registered(http), body), 422)


async def test_health_needs_no_key(opscore: Service) -> None:
    async with httpx.AsyncClient(base_url=opscore.url, trust_env=False, verify=False) as stranger:
        answer = await stranger.get("/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
