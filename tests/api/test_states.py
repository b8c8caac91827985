import math
from typing import Any

import orjson
import pytest

from tests.api.conftest import Runner
from tests.api.service import Service, check_problem

NOW = "2026-01-01T12:00:00Z"


async def test_F47_a_report_before_the_registration_counts_once_it_follows(
    service: Service,
) -> None:
    assert await service.report("early", "initializing") == 404
    assert await service.report("early", "idle") == 404
    await service.pass_time(59)
    await service.register("early")
    assert (await service.json("agent/early/state"))["state"] == "idle"


async def test_F47_after_a_minute_it_is_forgotten(service: Service) -> None:
    assert await service.report("early") == 404
    await service.pass_time(61)
    await service.register("early")
    assert (await service.json("agent/early/state"))["state"] == "UNKNOWN"


@pytest.mark.parametrize(
    ("sent", "kept", "corrected"),
    [
        ("2026-01-01T12:00:00", NOW, False),
        ("2026-01-01T12:00:00Z", NOW, False),
        ("2026-01-01T13:30:00+01:30", NOW, False),
        ("2026-01-01T12:04:59Z", "2026-01-01T12:04:59Z", False),
        (1767268800, NOW, False),
        ("1970-01-01T00:00:00Z", NOW, True),
        ("9999-12-31T23:59:59Z", NOW, True),
        ("0001-01-01T00:00:00Z", NOW, True),
        ("2026-01-02T12:00:00Z", NOW, True),
        ("2025-12-31T12:00:00Z", NOW, True),
    ],
)
async def test_F49_a_time_is_taken_as_utc_or_replaced_and_marked(
    service: Service, sent: str | int, kept: str, corrected: bool
) -> None:
    await service.register()
    assert await service.report(timestamp=sent) == 202
    state = await service.json("agent/a1/state")
    assert (state["timestamp"], state["clockCorrected"]) == (kept, corrected)
    assert state["receivedAt"] == NOW


@pytest.mark.parametrize(
    "sent",
    [
        "2026-02-30T12:00:00Z",
        "soon",
        "",
        True,
        [],
        {"at": 1},
        1e300,
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
)
async def test_F49_a_time_that_is_none_is_422(service: Service, sent: object) -> None:
    await service.register()
    body = {"agentId": "a1", "state": "idle", "timestamp": sent}
    problem = check_problem(await service.post("agent/a1/state", body), 422, "validation_error")
    assert [fault["pointer"] for fault in problem["errors"]] == ["/timestamp"]


async def test_F50_a_word_outside_the_table_is_shown_and_moves_nothing(service: Service) -> None:
    await service.register()
    await service.report(state="error")
    assert await service.report(state="Pondering") == 202
    state = await service.json("agent/a1/state")
    assert (state["state"], state["word"]) == ("Pondering", "unknown")
    assert (await service.json("agent/a1"))["hold"]["reason"] == "reported_error"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"agentId": "a1"}, "/state"),
        ({"agentId": "a1", "state": ""}, "/state"),
        ({"agentId": "a1", "state": "x" * 65}, "/state"),
        ({"agentId": "a1", "state": 5}, "/state"),
        ({"state": "idle"}, "/agentId"),
        ({"agentId": 7, "state": "idle"}, "/agentId"),
        ({"agentId": "a1", "state": "idle", "details": []}, "/details"),
        ([], ""),
        (None, ""),
    ],
)
async def test_a_report_that_is_none_is_422(service: Service, body: Any, pointer: str) -> None:
    await service.register()
    problem = check_problem(await service.post("agent/a1/state", body), 422, "validation_error")
    assert problem["errors"][0]["pointer"] == pointer


async def test_F15_details_over_256_KiB_are_413_and_the_task_is_untouched(
    service: Service,
) -> None:
    await service.register()
    session = await service.trigger()
    task = await service.task(session)
    details = {"opscore_task_id": task["taskId"], "result": "x" * (260 * 1024)}
    body = {"agentId": "a1", "state": "finished", "details": details}
    check_problem(await service.post("agent/a1/state", body), 413, "payload_too_large")
    assert await service.task(session) == task


async def test_F15_details_just_below_are_taken(service: Service) -> None:
    await service.register()
    assert await service.report(details={"result": "x" * (255 * 1024)}) == 202


async def test_F40_a_report_told_twice_counts_once(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    named = {"opscore_task_id": (await service.task(session))["taskId"], "result": 1}
    assert [await service.report(state="finished", details=named) for _ in range(2)] == [202, 202]
    events = (await service.json("events", type="task.completed"))["items"]
    assert len(events) == 1


async def test_F43_a_report_after_the_session_ended_changes_nothing(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    named = {"opscore_task_id": (await service.task(session))["taskId"]}
    await service.post(f"session/{session}/cancel")
    assert await service.report(state="finished", details=named) == 202
    assert (await service.json(f"session/{session}"))["status"] == "cancelled"
    assert (await service.task(session))["status"] == "cancelled"


async def test_the_history_has_the_newest_first_and_pages(service: Service) -> None:
    await service.register()
    for word in ("initializing", "idle", "active"):
        await service.report(state=word)
    first = await service.json("agent/a1/history", limit=2)
    rest = await service.json("agent/a1/history", limit=2, cursor=first["nextCursor"])
    words = [item["data"]["state"] for item in first["items"] + rest["items"]]
    assert words == ["active", "idle", "initializing"]
    assert rest["nextCursor"] is None
    assert {item["type"] for item in first["items"]} == {"agent.state"}


async def test_F17_the_history_has_a_bound(run: Runner) -> None:
    async with run(history_limit=3) as service:
        await service.register()
        for number in range(5):
            await service.report(state=f"word {number}")
        items = (await service.json("agent/a1/history"))["items"]
    assert [item["data"]["state"] for item in items] == ["word 4", "word 3", "word 2"]


async def test_the_history_of_an_unknown_agent_is_404(service: Service) -> None:
    check_problem(await service.get("agent/nobody/history"), 404, "agent_not_found")


async def test_F51_a_write_that_fails_is_503_with_retry_after(service: Service) -> None:
    await service.register()
    service.storage.away = True
    answer = await service.post("agent/a1/state", {"agentId": "a1", "state": "idle"})
    check_problem(answer, 503, "storage_unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_numbers_in_details_come_back_as_they_were(service: Service) -> None:
    await service.register()
    details = {"big": 2**53, "small": -(2**53), "float": math.pi, "text": "é\u2028"}
    await service.report(details=details)
    assert (await service.json("agent/a1/state"))["details"] == orjson.loads(orjson.dumps(details))


# --- whether a report counted ------------------------------------------------------------------


async def test_report_that_says_nothing_of_work_is_answered_as_ever(service: Service) -> None:
    await service.register()
    answer = await service.post("agent/a1/state", {"agentId": "a1", "state": "idle"})
    assert answer.json() == {"status": "success", "message": "State update accepted"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"state": "active", "details": {"task_id": "nobody-knows"}}, "No task has the id"),
        ({"state": "idle", "timestamp": NOW}, "The same report came before"),
    ],
)
async def test_report_that_does_not_count_says_why(
    service: Service, body: dict[str, Any], reason: str
) -> None:
    await service.register()
    said = {"agentId": "a1", "timestamp": NOW, **body}
    if "details" not in body:
        await service.post("agent/a1/state", said)
    answer = (await service.post("agent/a1/state", said)).json()
    assert (answer["status"], answer["counted"]) == ("success", False)
    assert reason in answer["reason"]


async def test_report_of_unknown_task_does_not_hold_the_agent(service: Service) -> None:
    await service.register()
    await service.report(state="active", details={"task_id": "nobody-knows"})
    agent = await service.json("agent/a1")
    assert (agent["availability"], agent["hold"]) == ("available", None)


async def test_report_of_deregistered_agent_is_answered_with_what_that_means(
    service: Service,
) -> None:
    await service.register()
    await service.call("DELETE", "agent/a1")
    answer = (await service.post("agent/a1/state", {"agentId": "a1", "state": "idle"})).json()
    assert answer["counted"] is False
    assert "registers again" in answer["reason"]


@pytest.mark.fault("F100")
async def test_cancelled_agent_without_ids_is_shown_as_held_for_its_attempt(
    service: Service,
) -> None:
    await service.register()
    first = await service.trigger()
    await service.post(f"session/{first}/cancel", {})
    second = await service.trigger()
    hold = (await service.json("agent/a1"))["hold"]
    assert hold["reason"] == "unsettled_attempt"
    why = await service.json(f"task/{(await service.task(second))['taskId']}/why")
    assert why["reason"]["code"] == "agent_unsettled"
