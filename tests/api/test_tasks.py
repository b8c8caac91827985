from datetime import timedelta
from typing import Any

import pytest

from opscore.models import Answered, Failure, FailureCode
from tests.api.conftest import Runner
from tests.api.service import Service, check_problem
from tests.fakes import settle

NOBODY = "00000000-0000-7000-8000-000000000000"
BROKEN = Failure(FailureCode.UPSTREAM_ERROR, "AgentKit answered 502.", status=502)
REFUSED = Failure(FailureCode.UNAUTHORIZED, "AgentKit refused the key.", status=401)


async def waiting(service: Service, **fields: Any) -> str:
    """Start a task; its id."""
    session = await service.trigger({"taskId": "one", **fields})
    return str((await service.task(session))["taskId"])


async def why(service: Service, task_id: str) -> dict[str, Any]:
    """The explanation, after checking that both views of the task agree with it."""
    found: dict[str, Any] = await service.json(f"task/{task_id}/why")
    shown = await service.json(f"task/{task_id}")
    listed = {item["taskId"]: item for item in (await service.json("tasks"))["items"]}[task_id]
    if shown["status"] in ("queued", "delayed"):
        assert shown["pendingReason"] == listed["pendingReason"] == found["reason"]
        assert found["reason"]["message"].endswith(".")
        assert found["unblockedBy"]
    else:
        assert shown["pendingReason"] is None
    return found


# --- why a task waits -------------------------------------------------------------------------


async def test_why_delayed(service: Service) -> None:
    await service.register()
    reason = (await why(service, await waiting(service, delay="1h")))["reason"]
    assert (reason["code"], reason["until"]) == ("delayed", "2026-01-01T13:00:00Z")
    assert reason["since"] == "2026-01-01T12:00:00Z"


async def test_why_retry_delayed(service: Service) -> None:
    service.courier.through_agentkit = BROKEN
    await service.register(contactEndpoint=None)
    found = await why(service, await waiting(service))
    assert found["reason"]["code"] == "retry_delayed"
    assert found["status"] == "delayed"


async def test_why_agent_busy(service: Service) -> None:
    await service.register()
    await waiting(service)
    await service.pass_time(5)
    found = await why(service, await waiting(service))
    assert found["reason"]["code"] == "agent_busy"
    assert found["reason"]["since"] == "2026-01-01T12:00:05Z"
    assert [item["agentId"] for item in found["candidates"]] == ["a1"]
    assert (found["candidateCount"], found["ahead"]) == (1, 0)


async def test_why_tells_how_many_stand_before(service: Service) -> None:
    await service.register()
    await waiting(service)
    ids = [await waiting(service, priority=priority) for priority in (9, 1)]
    assert [(await why(service, task_id))["ahead"] for task_id in ids] == [0, 1]


@pytest.mark.parametrize("state", ["error", "offline", "initializing", "active"])
async def test_why_agent_on_hold(service: Service, state: str) -> None:
    await service.register()
    await service.report(state=state)
    found = await why(service, await waiting(service))
    assert found["reason"]["code"] == "agent_on_hold"
    assert found["candidates"][0]["unblockedBy"].startswith("it reports idle")


async def test_why_an_agent_that_never_reported_can_be_on_hold(run: Runner) -> None:
    async with run(assume_available=False) as service:
        await service.register()
        found = await why(service, await waiting(service))
        assert found["reason"]["code"] == "agent_on_hold"
        await service.report()
        await settle()
        assert len(service.courier.sent) == 1


async def test_why_agent_draining(service: Service) -> None:
    await service.register()
    await service.post("agent/a1/drain")
    assert (await why(service, await waiting(service)))["reason"]["code"] == "agent_draining"


async def test_why_agent_lost(run: Runner) -> None:
    async with run(silence_threshold=10) as service:
        await service.register()
        await service.pass_time(11)
        await service.core.housekeeper.round()
        found = await why(service, await waiting(service))
        assert found["reason"]["code"] == "agent_lost"
        assert "OPSCORE_SILENCE_THRESHOLD" in found["reason"]["message"]
        assert (await service.json("agent/a1"))["availability"] == "lost"


async def test_why_agent_not_registered(service: Service) -> None:
    await service.register()
    found = await why(service, await waiting(service, agentId="a2"))
    assert found["reason"]["code"] == "agent_not_registered"
    assert (found["candidates"], found["unblockedBy"]) == ([], ["Agent a2 registers."])
    await service.register("a2")
    await settle()
    assert len(service.courier.sent) == 1


async def test_why_no_capable_agent(service: Service) -> None:
    await service.register()
    found = await why(service, await waiting(service, agentCapability="painting"))
    assert found["reason"]["code"] == "no_capable_agent"
    assert found["unblockedBy"] == ["An agent with the capability 'painting' registers."]


async def test_why_no_available_agent(service: Service) -> None:
    await service.register()
    await service.register("a2")
    await service.register("a3", capabilities=["writing"])
    await waiting(service)
    await service.post("agent/a2/drain")
    found = await why(service, await waiting(service, agentCapability="research"))
    assert found["reason"]["code"] == "no_available_agent"
    assert {item["agentId"]: item["code"] for item in found["candidates"]} == {
        "a1": "agent_busy",
        "a2": "agent_draining",
    }
    assert len(found["unblockedBy"]) == 2


async def test_why_breaker_open(run: Runner) -> None:
    async with run(dispatch_mode="agentkit") as service:
        service.courier.through_agentkit = REFUSED
        await service.register()
        await service.register("a2")
        await waiting(service)
        session = await service.trigger(agent_id="a2")
        found = await why(service, (await service.task(session))["taskId"])
        assert found["reason"]["code"] == "breaker_open"
        assert found["reason"]["until"] is not None
        assert (await service.json("/health/ready"))["agentkitBreakerOpenUntil"] is not None


async def test_why_dispatch_limit(run: Runner) -> None:
    async with run(dispatch_concurrency=1) as service:
        service.courier.hold = True
        await service.register()
        await service.register("a2")
        await waiting(service)
        session = await service.trigger(agent_id="a2")
        found = await why(service, (await service.task(session))["taskId"])
        assert found["reason"]["code"] == "dispatch_limit"
        assert [item["code"] for item in found["candidates"]] == ["ready"]
        service.courier.release()


async def test_why_stopping(service: Service) -> None:
    await service.register()
    task_id = await waiting(service, agentId="a2")
    await service.core.drain()
    await service.register("a2")
    assert (await why(service, task_id))["reason"]["code"] == "stopping"


async def test_why_of_task_at_work_names_agent_deadline_and_actions(service: Service) -> None:
    await service.register()
    task_id = await waiting(service)
    found = await why(service, task_id)
    assert (found["reason"]["code"], found["work"]["nextDeadline"]["kind"]) == ("accepted", "start")
    await service.pass_time(3)
    await service.report(state="active", details={"taskId": task_id})
    found = await why(service, task_id)
    assert found["reason"]["code"] == "at_work"
    work = found["work"]
    assert (work["agentId"], work["attempt"]) == ("a1", 1)
    assert work["since"] == "2026-01-01T12:00:00Z"
    assert work["lastSignOfLife"] == work["agentLastSeenAt"] == "2026-01-01T12:00:03Z"
    assert (work["nextDeadline"]["kind"], work["nextDeadline"]["at"]) == (
        "run",
        "2026-01-01T12:05:00Z",
    )
    assert [action.split()[1] for action in found["actions"]] == [
        f"task/{task_id}/retry",
        f"task/{task_id}/cancel",
    ]


async def test_why_not_waiting(service: Service) -> None:
    await service.register()
    task_id = await waiting(service)
    await service.post(f"task/{task_id}/result", {"status": "completed"})
    found = await why(service, task_id)
    assert found["reason"]["code"] == "not_waiting"
    assert (found["candidates"], found["unblockedBy"], found["work"]) == ([], [], None)
    assert found["actions"] == []


async def test_session_shows_its_open_task_and_why_it_waits(service: Service) -> None:
    await service.register()
    steps = {"taskId": "one"}, {"taskId": "two", "agentCapability": "none"}
    session = await service.trigger(*steps)
    [first] = (await service.json(f"session/{session}"))["openTasks"]
    assert (first["stepId"], first["agentId"], first["reason"]["code"]) == ("one", "a1", "accepted")
    await service.post(f"task/{first['taskId']}/result", {"status": "completed"})
    [second] = (await service.json(f"session/{session}"))["openTasks"]
    assert (second["stepId"], second["status"]) == ("two", "queued")
    assert second["reason"]["code"] == "no_capable_agent"
    ended = (await service.post(f"session/{session}/cancel")).json()
    assert ended["openTasks"] == []


# --- what agents say precisely ----------------------------------------------------------------


async def test_a_result_counts_once(service: Service) -> None:
    await service.register()
    task_id = await waiting(service)
    body = {"status": "completed", "result": {"urls": [1]}, "attempt": 1}
    answers = [(await service.post(f"task/{task_id}/result", body)).json() for _ in range(2)]
    assert [answer["counted"] for answer in answers] == [True, False]
    task = await service.json(f"task/{task_id}")
    assert (task["status"], task["result"]) == ("completed", {"urls": [1]})


async def test_a_failure_is_tried_again(service: Service) -> None:
    await service.register()
    task_id = await waiting(service)
    body = {"status": "failed", "error": {"message": "no luck"}}
    assert (await service.post(f"task/{task_id}/result", body)).json()["counted"] is True
    task = await service.json(f"task/{task_id}")
    assert (task["status"], task["retries"]) == ("delayed", 1)
    assert (task["error"]["code"], task["error"]["message"]) == ("agent_error", "no luck")


async def test_F42_another_attempt_is_recorded_as_late(service: Service) -> None:
    await service.register()
    task_id = await waiting(service)
    body = {"status": "completed", "attempt": 2}
    assert (await service.post(f"task/{task_id}/result", body)).json()["counted"] is False
    assert (await service.json(f"task/{task_id}"))["status"] == "dispatched"
    late = (await service.json("events", type="task.late"))["items"]
    assert [item["taskId"] for item in late] == [task_id]


async def test_a_heartbeat_shows_the_progress_and_leaves_the_deadline(service: Service) -> None:
    await service.register()
    task_id = await waiting(service)
    before = await service.json(f"task/{task_id}")
    await service.pass_time(5)
    answer = await service.post(f"task/{task_id}/heartbeat", {"progress": {"percent": 40}})
    assert answer.json() == {
        "status": "running",
        "cancelled": False,
        "deadline": before["runDeadline"],
    }
    task = await service.json(f"task/{task_id}")
    assert (task["status"], task["progress"]) == ("running", {"percent": 40})
    assert task["heartbeatAt"] == "2026-01-01T12:00:05Z"
    assert (task["runDeadline"], task["startDeadline"]) == (before["runDeadline"], None)


@pytest.mark.parametrize("body", [b"", b"null"])
async def test_heartbeat_without_body_counts(service: Service, body: bytes) -> None:
    await service.register()
    task_id = await waiting(service)
    answer = await service.raw(f"task/{task_id}/heartbeat", body)
    assert (answer.status_code, answer.json()["status"]) == (200, "running")


async def test_heartbeat_says_that_the_work_is_not_wanted_any_more(service: Service) -> None:
    await service.register()
    task_id = await waiting(service)
    beat = f"task/{task_id}/heartbeat"
    assert not (await service.post(beat, {"attempt": 1})).json()["cancelled"]
    await service.post(f"task/{task_id}/retry")
    await service.pass_time(60)
    assert (await service.post(beat, {"attempt": 1})).json()["cancelled"]
    await service.post(f"task/{task_id}/cancel")
    answer = (await service.post(beat)).json()
    assert (answer["status"], answer["cancelled"]) == ("failed", True)


@pytest.mark.parametrize("path", ["result", "heartbeat"])
async def test_F15_what_is_over_256_KiB_is_413_and_the_task_untouched(
    service: Service, path: str
) -> None:
    await service.register()
    task_id = await waiting(service)
    before = await service.json(f"task/{task_id}")
    large = "x" * (256 * 1024)
    bodies: list[dict[str, Any]] = [{"progress": large}]
    if path == "result":
        bodies = [{"status": "completed", "result": large}, {"status": "failed", "error": large}]
    for body in bodies:
        answer = await service.post(f"task/{task_id}/{path}", body)
        check_problem(answer, 413, "payload_too_large")
    assert await service.json(f"task/{task_id}") == before


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("result", {}, "/status"),
        ("result", {"status": "done"}, "/status"),
        ("result", {"status": "completed", "attempt": 0}, "/attempt"),
        ("result", {"status": "completed", "attempt": True}, "/attempt"),
        ("result", {"status": "completed", "results": 1}, "/results"),
        ("heartbeat", {"attempt": "x"}, "/attempt"),
        ("heartbeat", {"percent": 4}, "/percent"),
    ],
)
async def test_what_is_wrong_is_422_with_its_place(
    service: Service, path: str, body: dict[str, Any], pointer: str
) -> None:
    await service.register()
    task_id = await waiting(service)
    problem = check_problem(await service.post(f"task/{task_id}/{path}", body), 422)
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("GET", "/why", None),
        ("GET", "/trace", None),
        ("POST", "/result", {"status": "completed"}),
        ("POST", "/heartbeat", {}),
    ],
)
async def test_an_unknown_task_is_404(
    service: Service, method: str, path: str, body: dict[str, Any] | None
) -> None:
    answer = await service.call(method, f"task/{NOBODY}{path}", json=body)
    check_problem(answer, 404, "task_not_found")


# --- lists ------------------------------------------------------------------------------------


async def test_the_filters_hold_together(service: Service) -> None:
    await service.register()
    await service.register("a2")
    first = await service.trigger({"taskId": "one"})
    second = await service.trigger({"taskId": "one"}, agent_id="a2")
    third = await service.trigger({"taskId": "one", "delay": "1h"}, agent_id="a2")

    async def found(**query: str) -> set[str]:
        return {item["sessionId"] for item in (await service.json("tasks", **query))["items"]}

    assert await found() == {first, second, third}
    assert await found(status="dispatched") == {first, second}
    assert await found(agentId="a2") == {second}
    assert await found(sessionId=third, status="delayed") == {third}
    assert await found(sessionId=third, status="completed") == set()
    assert await found(workflowId="flow", agentId="a1") == {first}
    assert await found(workflowId="other") == set()


async def test_the_list_pages_newest_first(service: Service) -> None:
    await service.register()
    made = []
    for _ in range(3):
        made.append(await waiting(service, delay="1h"))
        await service.pass_time(1)
    first = await service.json("tasks", limit=2)
    rest = await service.json("tasks", limit=2, cursor=first["nextCursor"])
    shown = [item["taskId"] for item in first["items"] + rest["items"]]
    assert shown == list(reversed(made))
    assert rest["nextCursor"] is None


async def test_a_trace_has_a_span_for_each_attempt(service: Service) -> None:
    service.courier.through_agentkit = BROKEN
    await service.register(contactEndpoint=None)
    task_id = await waiting(service, retry={"initialDelay": "1s", "jitter": False})
    service.courier.through_agentkit = Answered("done")
    await service.pass_time(2)
    spans = (await service.json(f"task/{task_id}/trace"))["items"]
    assert [(span["name"], span["status"]) for span in spans] == [
        ("dispatch", "upstream_error"),
        ("dispatch", "ok"),
    ]
    assert [span["attributes"]["attempt"] for span in spans] == [1, 2]
    assert (await service.json(f"task/{task_id}"))["result"] == "done"


async def test_F36_a_task_without_a_sign_of_life_goes_straight_to_the_agent(
    service: Service,
) -> None:
    await service.register()
    task_id = await waiting(service)
    await service.pass_time(timedelta(seconds=10.5).total_seconds())
    task = await service.json(f"task/{task_id}")
    assert (task["attempt"], task["via"], task["retries"]) == (2, "direct", 0)
    ready = await service.json("/health/ready")
    assert ready["agentkitForwards"]["state"] == "unknown"
    await service.report(state="active")
    ready = await service.json("/health/ready")
    assert ready["agentkitForwards"]["state"] == "disproved"
