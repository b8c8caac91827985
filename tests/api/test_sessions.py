import asyncio
from typing import Any

import pytest

from tests.api.conftest import Runner
from tests.api.service import Service, check_problem
from tests.fakes import settle

TRIGGER: dict[str, Any] = {"workflowDefinition": {"id": "flow", "tasks": [{"taskId": "one"}]}}
NOBODY = "00000000-0000-7000-8000-000000000000"


async def finish(service: Service, session: str, step: str, result: object) -> None:
    task = await service.task(session, step)
    body = {"status": "completed", "result": result}
    assert (await service.post(f"task/{task['taskId']}/result", body)).json()["counted"]
    await settle()


async def test_a_session_from_its_start_to_its_end(service: Service) -> None:
    await service.register()
    steps = {"taskId": "one"}, {"taskId": "two", "parameters": {"got": "${tasks.one.result.n}"}}
    session = await service.trigger(*steps, initialPayload={"topic": "tides"})
    started = await service.json(f"session/{session}")
    assert (started["status"], started["input"]) == ("running", {"topic": "tides"})
    assert (started["workflowRevision"], started["agentId"]) == (1, "a1")
    await finish(service, session, "one", {"n": 7})
    assert (await service.task(session, "two"))["parameters"] == {"got": 7}
    await finish(service, session, "two", "done")
    ended = await service.json(f"session/{session}")
    assert (ended["status"], ended["output"]) == ("completed", "done")
    assert ended["results"] == {"one": {"n": 7}, "two": "done"}
    assert ended["endedAt"] is not None


async def test_trigger_that_waits_answers_with_the_ended_session(service: Service) -> None:
    await service.register()
    for path in ("agent/a1/workflow", "sessions"):
        flow = {"id": "flow", "tasks": [{"taskId": "one", "agentId": "a1"}]}
        body = {"workflowDefinition": flow, "waitSeconds": 30}
        waiting = asyncio.create_task(service.post(path, body))
        await settle()
        [task] = (await service.json("tasks", status="dispatched"))["items"]
        await service.post(f"task/{task['taskId']}/result", {"status": "completed", "result": 5})
        answer = await waiting
        assert (answer.status_code, answer.json()["output"]) == (200, 5)
        assert answer.json()["sessionId"] == task["sessionId"]


async def test_trigger_that_waits_too_short_answers_202(service: Service) -> None:
    await service.register()
    waiting = asyncio.create_task(service.post("agent/a1/workflow", {**TRIGGER, "waitSeconds": 5}))
    await service.pass_time(6)
    assert (await waiting).status_code == 202


@pytest.mark.parametrize("seconds", [-1, 61, "5", True, None, 1e300])
async def test_wait_beyond_its_bounds_is_422(service: Service, seconds: object) -> None:
    await service.register()
    body = {**TRIGGER, "waitSeconds": seconds}
    check_problem(await service.post("agent/a1/workflow", body), 422, "validation_error")


async def test_the_events_of_a_session_tell_its_story(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    await service.report(state="active")
    await finish(service, session, "one", None)
    page = await service.json(f"session/{session}/events", limit=3)
    rest = await service.json(f"session/{session}/events", cursor=page["nextCursor"])
    kinds = [item["type"] for item in page["items"] + rest["items"]]
    assert kinds == [
        "session.started",
        "task.queued",
        "task.dispatched",
        "task.accepted",
        "agent.state",
        "task.running",
        "task.completed",
        "session.completed",
    ]
    last = rest["items"][-1]["seq"]
    end = await service.json(f"session/{session}/events", cursor=last)
    assert (rest["nextCursor"], end["items"], end["nextCursor"]) == (None, [], None)


async def test_events_of_open_session_keep_a_cursor(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    page = await service.json(f"session/{session}/events")
    end = await service.json(f"session/{session}/events", cursor=page["nextCursor"])
    assert (end["items"], end["nextCursor"]) == ([], page["nextCursor"])


@pytest.mark.parametrize(
    ("agent", "body", "code"),
    [
        ("nobody", TRIGGER, "agent_not_found"),
        ("a1", {"workflowDefinitionId": "none"}, "workflow_not_found"),
    ],
)
async def test_a_trigger_for_what_is_not_there_is_404(
    service: Service, agent: str, body: dict[str, Any], code: str
) -> None:
    await service.register()
    check_problem(await service.post(f"agent/{agent}/workflow", body), 404, code)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["third", "second", "first"]),
        ({"status": "cancelled"}, ["second"]),
        ({"status": "running"}, ["first"]),
        ({"workflowId": "third"}, ["third"]),
        ({"agentId": "a2"}, ["third", "second"]),
        ({"agentId": "a2", "status": "pending"}, ["third"]),
        ({"search": "IR"}, ["third", "first"]),
        ({"agentId": "a1", "search": "second"}, []),
    ],
)
async def test_the_filters_hold_together(
    service: Service, query: dict[str, str], found: list[str]
) -> None:
    for agent_id in ("a1", "a2"):
        await service.register(agent_id)
    ids = {}
    for name, agent_id in (("first", "a1"), ("second", "a2"), ("third", "a2")):
        definition = {"id": name, "tasks": [{"taskId": "t", "delay": "1h"}]}
        if name == "first":
            definition = {"id": name, "tasks": [{"taskId": "t"}]}
        body = {"workflowDefinition": definition}
        ids[name] = (await service.post(f"agent/{agent_id}/workflow", body)).json()["sessionId"]
        await service.pass_time(1)
    await service.post(f"session/{ids['second']}/cancel")
    items = (await service.json("sessions", **query))["items"]
    assert [item["workflowId"] for item in items] == found


async def test_the_list_pages_while_sessions_come(service: Service) -> None:
    await service.register()
    made = [await service.trigger() for _ in range(3)]
    first = await service.json("sessions", limit=2)
    await service.trigger()
    rest = await service.json("sessions", limit=2, cursor=first["nextCursor"])
    shown = [item["sessionId"] for item in first["items"] + rest["items"]]
    assert shown == list(reversed(made))
    assert rest["nextCursor"] is None


async def test_metadata_is_merged_and_null_takes_away(service: Service) -> None:
    await service.register()
    session = await service.trigger({"taskId": "one", "delay": "1h"})
    for metadata in ({"owner": "ops", "note": 1}, {"note": None, "more": [2]}):
        body = {"metadata": metadata}
        answer = await service.call("PATCH", f"session/{session}", json=body)
        assert answer.status_code == 200
    assert answer.json()["metadata"] == {"owner": "ops", "more": [2]}


@pytest.mark.parametrize(
    "body", [{}, {"metadata": None}, {"metadata": {}, "status": "failed"}, [], {"metadata": []}]
)
async def test_nothing_else_of_a_session_can_be_patched(service: Service, body: Any) -> None:
    await service.register()
    session = await service.trigger()
    answer = await service.call("PATCH", f"session/{session}", json=body)
    check_problem(answer, 422, "validation_error")


async def test_cancelling_ends_it_and_tells_the_agent(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    task = await service.task(session)
    answer = await service.post(f"session/{session}/cancel", {"reason": "not needed any more"})
    await settle()
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    assert answer.json()["error"] == {"code": "cancelled", "message": "not needed any more"}
    assert [told.id for told in service.courier.cancelled] == [task["taskId"]]
    assert (await service.json("agent/a1"))["tasksInFlight"] == 0
    late = await service.post(f"task/{task['taskId']}/result", {"status": "completed"})
    assert late.json()["counted"] is False
    again = await service.post(f"session/{session}/cancel")
    assert (again.status_code, again.json()["error"]) == (202, answer.json()["error"])


async def test_a_session_that_ended_otherwise_cannot_be_cancelled(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    task = await service.task(session)
    await service.post(f"task/{task['taskId']}/result", {"status": "completed"})
    check_problem(await service.post(f"session/{session}/cancel"), 409, "conflict")


@pytest.mark.parametrize("body", [{"reason": ""}, {"reason": "x" * 501}, {"why": "x"}, 5])
async def test_a_reason_that_is_none_is_422(service: Service, body: Any) -> None:
    await service.register()
    session = await service.trigger()
    answer = await service.post(f"session/{session}/cancel", body)
    check_problem(answer, 422, "validation_error")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("PATCH", ""),
        ("GET", "/tasks"),
        ("GET", "/events"),
        ("POST", "/cancel"),
    ],
)
async def test_an_unknown_session_is_404(service: Service, method: str, path: str) -> None:
    given: dict[str, Any] = {"json": {"metadata": {}}} if method == "PATCH" else {}
    answer = await service.call(method, f"session/{NOBODY}{path}", **given)
    check_problem(answer, 404, "session_not_found")


# --- the queue's limit ------------------------------------------------------------------------


async def test_F18_a_full_queue_is_503_and_reports_are_served_all_the_same(run: Runner) -> None:
    async with run(queue_limit=1) as service:
        await service.register()
        await service.trigger()
        await service.trigger()
        before = (await service.json("events"))["nextCursor"]
        answer = await service.post("agent/a1/workflow", TRIGGER)
        check_problem(answer, 503, "queue_full")
        assert int(answer.headers["retry-after"]) >= 1
        assert (await service.json("events"))["nextCursor"] == before
        assert len((await service.json("sessions"))["items"]) == 2
        assert await service.report() == 202
        assert (await service.webhook()).status_code == 200


async def test_F9_a_draining_service_takes_no_triggers_but_reports(run: Runner) -> None:
    async with run() as service:
        await service.register()
        await service.core.drain()
        answer = await service.post("agent/a1/workflow", TRIGGER)
        check_problem(answer, 503, "draining")
        assert int(answer.headers["retry-after"]) >= 1
        assert await service.report() == 202


# --- Idempotency-Key --------------------------------------------------------------------------


async def test_F2_the_same_key_again_gives_the_same_session(service: Service) -> None:
    await service.register()
    answers = [
        await service.post("agent/a1/workflow", TRIGGER, Idempotency_Key="k-1") for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    assert len((await service.json("sessions"))["items"]) == 1
    assert len((await service.json("tasks"))["items"]) == 1


async def test_F99_the_same_key_with_another_body_is_422(service: Service) -> None:
    await service.register()
    await service.register("a2")
    await service.post("agent/a1/workflow", TRIGGER, Idempotency_Key="k-1")
    for agent_id, body in (("a1", {**TRIGGER, "initialPayload": {"a": 1}}), ("a2", TRIGGER)):
        answer = await service.post(f"agent/{agent_id}/workflow", body, Idempotency_Key="k-1")
        check_problem(answer, 422, "idempotency_mismatch")


async def test_F99_the_same_key_in_parallel_is_409(service: Service) -> None:
    await service.register()
    service.storage.slow = {"apply"}

    def send() -> "asyncio.Task[Any]":
        call = service.post("agent/a1/workflow", TRIGGER, Idempotency_Key="k-1")
        return asyncio.create_task(call)

    first = send()
    await settle()
    second = await send()
    check_problem(second, 409, "idempotency_in_progress")
    assert second.headers["retry-after"] == "1"
    service.storage.gate.set()
    assert (await first).status_code == 202
    assert (await send()).json() == first.result().json()


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "é"])
async def test_a_key_that_is_none_is_422(service: Service, key: str) -> None:
    await service.register()
    headers = [(b"Idempotency-Key", key.encode())]
    answer = await service.call("POST", "agent/a1/workflow", json=TRIGGER, headers=headers)
    check_problem(answer, 422, "validation_error")


async def test_after_a_day_a_key_is_new(service: Service) -> None:
    await service.register()
    first = await service.post("agent/a1/workflow", TRIGGER, Idempotency_Key="k-1")
    await service.pass_time(24 * 3600 + 1)
    again = await service.post("agent/a1/workflow", TRIGGER, Idempotency_Key="k-1")
    assert again.json()["sessionId"] != first.json()["sessionId"]


async def test_a_trigger_that_fails_does_not_use_its_key_up(service: Service) -> None:
    check_problem(await service.post("agent/a1/workflow", TRIGGER, Idempotency_Key="k-1"), 404)
    await service.register()
    answer = await service.post("agent/a1/workflow", TRIGGER, Idempotency_Key="k-1")
    assert answer.status_code == 202
