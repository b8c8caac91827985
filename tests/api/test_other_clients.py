"""What clients that nobody can change rely on, word for word."""

from typing import Any

import pytest

from tests.api.service import NOTIFY, Service, announcement, check_problem

DEFINITION: dict[str, Any] = {
    "id": "wf",
    "name": "In the wild",
    "description": "As known clients write it.",
    "version": "1.0",
    "tasks": [
        {
            "taskId": "step_1",
            "name": "First Step",
            "agentCapability": "research",
            "parameters": {"q": 1},
            "nextTaskId": "step_2",
        },
        {
            "taskId": "step_2",
            "name": "Second Step",
            "agentCapability": "research",
            "parameters": {},
            "nextTaskId": None,
        },
    ],
}
REPORT = {"timestamp": "2026-01-01T12:00:00.531120+00:00", "state": "idle", "details": {}}


@pytest.mark.parametrize(
    "payload", [{"initialPayload": {"topic": "tides"}}, {"initialPayload": None}, {}]
)
@pytest.mark.parametrize("by_id", [True, False])
async def test_a_trigger_is_answered_202(
    service: Service, by_id: bool, payload: dict[str, Any]
) -> None:
    await service.register()
    await service.post("workflows", DEFINITION)
    which = {"workflowDefinitionId": "wf"} if by_id else {"workflowDefinition": DEFINITION}
    answer = await service.post("agent/a1/workflow", {**which, **payload})
    assert answer.status_code == 202
    body = answer.json()
    assert body.keys() == {"sessionId", "workflowId", "message"}
    assert body["workflowId"] == "wf"
    session = await service.json(f"session/{body['sessionId']}")
    assert session["input"] == (payload.get("initialPayload") or {})


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"initialPayload": {}},
        {"workflowDefinitionId": "wf", "workflowDefinition": DEFINITION},
        {"workflowDefinitionId": None, "workflowDefinition": None},
    ],
)
async def test_both_or_neither_is_422(service: Service, body: dict[str, Any]) -> None:
    await service.register()
    check_problem(await service.post("agent/a1/workflow", body), 422, "validation_error")


async def test_tasks_may_carry_only_their_id_and_parameters(service: Service) -> None:
    await service.register()
    session = await service.trigger({"taskId": "one", "parameters": {"a": 1}})
    assert (await service.task(session))["parameters"] == {"a": 1}


async def test_what_a_known_client_adds_to_a_trigger_is_passed_over(service: Service) -> None:
    await service.register()
    body = {"workflowDefinition": DEFINITION, "requestedBy": "someone"}
    assert (await service.post("agent/a1/workflow", body)).status_code == 202


async def test_a_state_can_be_read_back(service: Service) -> None:
    await service.register()
    answer = await service.post("agent/a1/state", {"agentId": "a1", **REPORT})
    assert answer.status_code == 202
    assert answer.json() == {"status": "success", "message": "State update accepted"}
    state = await service.json("agent/a1/state")
    assert {key: state[key] for key in ("agentId", "state", "details", "timestamp")} == {
        "agentId": "a1",
        "state": "idle",
        "details": {},
        "timestamp": "2026-01-01T12:00:00.531120Z",
    }


@pytest.mark.parametrize("details", [{"details": None}, {}])
async def test_details_may_be_null_or_left_out(service: Service, details: dict[str, Any]) -> None:
    await service.register()
    body = {"agentId": "a1", "timestamp": REPORT["timestamp"], "state": "idle", **details}
    assert (await service.post("agent/a1/state", body)).status_code == 202
    assert (await service.json("agent/a1/state"))["details"] == {}


async def test_a_state_of_an_unknown_agent_is_404(service: Service) -> None:
    check_problem(await service.get("agent/nobody/state"), 404, "agent_not_found")


async def test_agent_without_any_report_has_the_state_unknown(service: Service) -> None:
    await service.register()
    state = await service.json("agent/a1/state")
    assert (state["agentId"], state["state"]) == ("a1", "UNKNOWN")
    assert state["details"] == {"reason": "Initial registration"}
    assert state["timestamp"] == (await service.json("agent/a1"))["registeredAt"]


async def test_F46_another_id_in_the_body_is_400(service: Service) -> None:
    await service.register()
    answer = await service.post("agent/a1/state", {"agentId": "a2", **REPORT})
    check_problem(answer, 400, "bad_request")
    assert (await service.json("agent/a1/state"))["state"] == "UNKNOWN"


async def test_a_report_of_an_unknown_agent_is_404(service: Service) -> None:
    answer = await service.post("agent/nobody/state", {"agentId": "nobody", **REPORT})
    check_problem(answer, 404, "agent_not_found")


@pytest.mark.parametrize("key", ["", "Bearer wrong", "Basic abc"])
async def test_a_report_without_the_key_is_401(service: Service, key: str) -> None:
    await service.register()
    answer = await service.post("agent/a1/state", {"agentId": "a1", **REPORT}, Authorization=key)
    check_problem(answer, 401, "unauthorized")


async def test_a_webhook_is_answered_200_each_time(service: Service) -> None:
    first = await service.webhook()
    await service.pass_time(1)
    second = await service.webhook(agentName="renamed")
    assert [first.status_code, second.status_code] == [200, 200]
    assert {first.json()["status"], second.json()["status"]} == {"success"}
    assert first.json()["message"] != second.json()["message"]
    agents = (await service.json("agents"))["items"]
    assert [agent["agentName"] for agent in agents] == ["renamed"]


async def test_F63_an_unknown_event_type_or_a_missing_id_is_400(service: Service) -> None:
    check_problem(await service.webhook("PAUSE"), 400, "bad_request")
    check_problem(await service.webhook(agentId=None), 400, "bad_request")


async def test_the_webhook_needs_no_key_and_the_key_is_no_signature(service: Service) -> None:
    assert (await service.webhook()).status_code == 200
    unsigned = await service.call("POST", NOTIFY, content=announcement())
    check_problem(unsigned, 401, "unauthorized")


async def test_health_is_ok_without_a_key(service: Service) -> None:
    answer = await service.call("GET", "/health", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
