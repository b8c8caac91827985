"""Operators act on tasks and sessions through the API."""

from typing import Any

from tests.api.service import Service, check_problem
from tests.fakes import settle

FLOW: dict[str, Any] = {"id": "flow", "tasks": [{"taskId": "one", "agentCapability": "research"}]}


async def test_task_is_cancelled_and_its_session_retried(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    task = (await service.task(session))["taskId"]
    answer = await service.post(f"task/{task}/cancel", {"reason": "wrong input"})
    assert (answer.status_code, answer.json()["status"]) == (202, "failed")
    assert answer.json()["error"]["code"] == "cancelled"
    assert (await service.json(f"session/{session}"))["status"] == "failed"
    answer = await service.post(f"session/{session}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, "waiting")
    check_problem(await service.post(f"session/{session}/retry"), 409, "conflict")
    kinds = [e["type"] for e in (await service.json(f"session/{session}/events"))["items"]]
    assert kinds.index("session.resumed") > kinds.index("session.failed")


async def test_task_at_work_is_taken_back(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    task = await service.task(session)
    check_problem(await service.post(f"task/{task['taskId']}/retry", {"attempt": 9}), 409)
    answer = await service.post(f"task/{task['taskId']}/retry", {"attempt": task["attempt"]})
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.json()["pendingReason"]["code"]


async def test_session_starts_without_agent(service: Service) -> None:
    await service.register()
    body = {"workflowDefinition": FLOW, "initialPayload": {"n": 1}}
    first = await service.post("sessions", body, Idempotency_Key="k1")
    assert first.status_code == 202
    again = await service.post("sessions", body, Idempotency_Key="k1")
    assert again.json() == first.json()
    await settle()
    view = await service.json(f"session/{first.json()['sessionId']}")
    assert (view["agentId"], view["status"]) == (None, "running")


async def test_session_without_agent_points_to_the_steps_that_need_one(service: Service) -> None:
    flow = {"id": "flow", "tasks": [*FLOW["tasks"], {"taskId": "two"}]}
    problem = check_problem(
        await service.post("sessions", {"workflowDefinition": flow}), 422, "agent_required"
    )
    assert [fault["pointer"] for fault in problem["errors"]] == ["/tasks/1"]
    check_problem(await service.post("sessions", {"workflowDefinition": flow, "agentId": "x"}), 404)
    check_problem(await service.post("sessions", {}), 422)
    slip = {"workflowDefinition": flow, "agentID": "x"}
    check_problem(await service.post("sessions", slip), 422, "validation_error")


async def test_unknown_ids_are_404(service: Service) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    check_problem(await service.post(f"task/{nobody}/retry"), 404, "task_not_found")
    check_problem(await service.post(f"task/{nobody}/cancel"), 404, "task_not_found")
    check_problem(await service.post(f"session/{nobody}/retry"), 404, "session_not_found")
