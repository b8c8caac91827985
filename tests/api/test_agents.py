from typing import Any

import pytest

from tests.api.conftest import Runner
from tests.api.service import Service, check_problem

NAMES = {
    "agentId",
    "agentName",
    "capabilities",
    "version",
    "contactEndpoint",
    "metadata",
    "concurrency",
    "tasksInFlight",
    "availability",
    "availabilitySince",
    "availabilityReason",
    "hold",
    "state",
    "stateWord",
    "registeredAt",
    "lastSeenAt",
    "deliveryFailures",
    "missedDeadlines",
    "replacedBy",
    "predecessors",
}


async def test_registering_is_201_and_again_200(service: Service) -> None:
    body = {"agentId": "a1", "agentName": "one", "capabilities": ["x"], "metadata": {"k": 1}}
    first = await service.post("agents", body)
    again = await service.post("agents", {**body, "agentName": "two"})
    assert [first.status_code, again.status_code] == [201, 200]
    assert first.json().keys() == NAMES
    assert (first.json()["agentName"], again.json()["agentName"]) == ("one", "two")
    assert again.json()["metadata"] == {"k": 1}


async def test_metadata_over_64_kib_is_refused_and_changes_nothing(service: Service) -> None:
    largest = {"note": "x" * (64 * 1024 - len('{"note":""}'))}
    larger = {"note": largest["note"] + "x"}
    body = {"agentId": "a1", "agentName": "one"}
    refused = await service.post("agents", {**body, "metadata": larger})
    assert "at most 64 KiB" in check_problem(refused, 413, "payload_too_large")["detail"]
    check_problem(await service.get("agent/a1"), 404)
    assert (await service.post("agents", {**body, "metadata": largest})).status_code == 201
    for method, path in (("POST", "agents"), ("PATCH", "agent/a1")):
        change = {"metadata": larger, **(body if method == "POST" else {})}
        check_problem(await service.call(method, path, json=change), 413, "payload_too_large")
    assert (await service.json("agent/a1"))["metadata"] == largest


async def test_an_agent_without_an_id_is_given_one(service: Service) -> None:
    agent = (await service.post("agents", {"agentName": "one"})).json()
    assert (await service.json(f"agent/{agent['agentId']}"))["agentName"] == "one"


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"agentName": ""}, "/agentName"),
        ({"agentId": "with space"}, "/agentId"),
        ({"agentId": "x" * 129}, "/agentId"),
        ({"concurrency": 0}, "/concurrency"),
        ({"concurrency": 1001}, "/concurrency"),
        ({"capabilities": [""]}, "/capabilities/0"),
        ({"capabilities": ["x"] * 65}, "/capabilities"),
        ({"metadata": []}, "/metadata"),
        ({"agentname": "x"}, "/agentname"),
    ],
)
async def test_what_is_wrong_is_422_with_its_place(
    service: Service, fields: dict[str, Any], pointer: str
) -> None:
    answer = await service.post("agents", {"agentName": "one", **fields})
    problem = check_problem(answer, 422, "validation_error")
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254/latest",
        "http://0xA9FEA9FE/",
        "http://2852039166/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fe80::1]/",
        "http://metadata.google.internal/",
        "ftp://agent/",
        "http://user:canary-5f1e@agent/",
        "not a url",
    ],
)
async def test_F90_endpoints_that_must_not_be_called_are_422(
    service: Service, endpoint: str
) -> None:
    body = {"agentName": "one", "contactEndpoint": endpoint}
    answer = await service.post("agents", body)
    check_problem(answer, 422, "forbidden_endpoint")
    assert "canary-5f1e" not in answer.text
    check_problem(await service.webhook(contactEndpoint=endpoint), 422, "forbidden_endpoint")
    await service.register()
    patched = await service.call("PATCH", "agent/a1", json={"contactEndpoint": endpoint})
    check_problem(patched, 422, "forbidden_endpoint")
    assert [agent["agentId"] for agent in (await service.json("agents"))["items"]] == ["a1"]


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1/", "http://10.0.0.1/", "http://[::1]/"])
async def test_F90_private_networks_are_a_setting(run: Runner, endpoint: str) -> None:
    async with run(allow_private_endpoints=False) as service:
        answer = await service.post("agents", {"agentName": "one", "contactEndpoint": endpoint})
        check_problem(answer, 422, "forbidden_endpoint")


async def test_endpoints_off_the_allow_list_are_refused(run: Runner) -> None:
    async with run(endpoint_allowlist=("10.1.0.0/16", "*.agents.test")) as service:
        for host in ("10.1.2.3", "one.agents.test"):
            await service.register(host, contactEndpoint=f"http://{host}:9100/task")
        body = {"agentName": "one", "contactEndpoint": "http://127.0.0.1:9100/task"}
        answer = await service.post("agents", body)
        check_problem(answer, 422, "forbidden_endpoint")


async def test_the_list_pages_by_id(service: Service) -> None:
    for agent_id in ("c", "a", "b"):
        await service.register(agent_id)
    first = await service.json("agents", limit=2)
    rest = await service.json("agents", limit=2, cursor=first["nextCursor"])
    assert [item["agentId"] for item in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["nextCursor"] is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, ["busy", "free", "held"]),
        ({"capability": "writing"}, ["held"]),
        ({"availability": "available"}, ["free"]),
        ({"availability": "busy"}, ["busy"]),
        ({"availability": "unavailable"}, ["held"]),
        ({"availability": "deregistered"}, ["gone"]),
        ({"state": "error"}, ["held"]),
        ({"state": "FAILED"}, ["held"]),
        ({"search": "FRE"}, ["free"]),
        ({"search": "e", "capability": "research"}, ["free"]),
        ({"search": "e", "availability": "busy"}, []),
    ],
)
async def test_the_filters_hold_together(
    service: Service, query: dict[str, str], found: list[str]
) -> None:
    for agent_id in ("busy", "free", "gone"):
        await service.register(agent_id)
    await service.register("held", capabilities=["writing"])
    await service.trigger(agent_id="busy")
    await service.report("held", "failed")
    await service.call("DELETE", "agent/gone")
    items = (await service.json("agents", **query))["items"]
    assert [item["agentId"] for item in items] == found


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/query/limit"),
        ("limit=201", "/query/limit"),
        ("limit=many", "/query/limit"),
        ("availability=perhaps", "/query/availability"),
        (f"search={'x' * 201}", "/query/search"),
        (f"cursor={'x' * 513}", "/query/cursor"),
    ],
)
async def test_a_bad_query_is_422(service: Service, query: str, pointer: str) -> None:
    problem = check_problem(await service.get(f"agents?{query}"), 422, "validation_error")
    assert [fault["pointer"] for fault in problem["errors"]] == [pointer]


LISTS = ["agents", "sessions", "tasks", "workflows", "agent/a1/history"]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("cursor", ["", "nonsense", "%C3%A9", "MTIz", "MjAyNi0wMS0wMQ"])
async def test_cursor_that_was_not_given_out_is_422(
    service: Service, path: str, cursor: str
) -> None:
    await service.register()
    problem = check_problem(await service.get(f"{path}?cursor={cursor}"), 422, "validation_error")
    assert [fault["pointer"] for fault in problem["errors"]] == ["/query/cursor"]


async def test_cursor_is_good_only_for_the_list_and_filters_it_was_given_out_with(
    service: Service,
) -> None:
    for agent_id in ("a1", "a2", "a3"):
        await service.register(agent_id)
        await service.report(agent_id)
        await service.report(agent_id, "active")
        await service.trigger(agent_id=agent_id)
        await service.call("PUT", f"workflow/w{agent_id}", json={"tasks": [{"taskId": "one"}]})
        await service.call("PUT", f"workflow/w{agent_id}", json={"tasks": [{"taskId": "two"}]})
    lists = [
        *(f"workflow/w{agent_id}/revisions" for agent_id in ("a1", "a2")),
        *LISTS,
        "agent/a2/history",
        "agents?state=active",
        "tasks?status=dispatched&status=queued",
        "tasks?status=dispatched",
        "sessions?workflowId=flow",
        *(f"sessions?search={letter}" for letter in "fl"),
    ]
    cursors = {}
    for path in lists:
        mark = "&" if "?" in path else "?"
        cursors[path] = (await service.json(f"{path}{mark}limit=1"))["nextCursor"]
    for path in lists:
        mark = "&" if "?" in path else "?"
        for origin, cursor in cursors.items():
            if cursor is None:
                continue
            answer = await service.get(f"{path}{mark}limit=2&cursor={cursor}")
            if origin == path:
                assert answer.status_code == 200
            else:
                problem = check_problem(answer, 422)
                assert "another list or to other filters" in problem["detail"]
    assert sum(cursor is not None for cursor in cursors.values()) >= 8


async def test_filters_may_come_in_any_order_with_a_cursor(service: Service) -> None:
    for agent_id in ("a1", "a2"):
        await service.register(agent_id)
        await service.trigger(agent_id=agent_id)
    first = await service.json("tasks?status=dispatched&status=queued&limit=1")
    rest = await service.json(
        f"tasks?status=queued&cursor={first['nextCursor']}&status=dispatched&status=queued"
    )
    assert len(rest["items"]) == 1


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=1&limit=2", "given twice"),
        ("sate=active", "Did you mean state?"),
        ("zzz=1", "Those that are: "),
    ],
)
async def test_query_with_a_slip_says_what_is_wrong(
    service: Service, query: str, detail: str
) -> None:
    problem = check_problem(await service.get(f"agents?{query}"), 422)
    assert detail in problem["detail"]
    assert problem["errors"][0]["message"] == problem["detail"]


async def test_a_patch_changes_what_is_given(service: Service) -> None:
    await service.register(version="1", metadata={"k": 1})
    answer = await service.call("PATCH", "agent/a1", json={"concurrency": 3})
    assert answer.status_code == 200
    agent = answer.json()
    assert (agent["concurrency"], agent["version"], agent["metadata"]) == (3, "1", {"k": 1})


async def test_draining_and_back(service: Service) -> None:
    await service.register()
    assert (await service.post("agent/a1/drain")).status_code == 202
    assert (await service.json("agent/a1"))["availability"] == "draining"
    answer = await service.call("PATCH", "agent/a1", json={"draining": False})
    assert answer.json()["availability"] == "available"
    answer = await service.call("PATCH", "agent/a1", json={"draining": True})
    assert answer.json()["availability"] == "draining"


async def test_a_deregistered_agent_takes_no_changes_but_a_registration(service: Service) -> None:
    await service.register()
    answer = await service.call("DELETE", "agent/a1")
    assert (answer.status_code, answer.json()["availability"]) == (200, "deregistered")
    check_problem(await service.call("PATCH", "agent/a1", json={}), 409, "conflict")
    check_problem(await service.post("agent/a1/drain"), 409, "conflict")
    trigger = {"workflowDefinition": {"id": "w", "tasks": [{"taskId": "t"}]}}
    check_problem(await service.post("agent/a1/workflow", trigger), 409, "conflict")
    assert (await service.json("agents"))["items"] == []
    await service.pass_time(1)
    assert (await service.register())["availability"] == "available"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "agent/nobody"),
        ("PATCH", "agent/nobody"),
        ("DELETE", "agent/nobody"),
        ("POST", "agent/nobody/drain"),
    ],
)
async def test_an_unknown_agent_is_404(service: Service, method: str, path: str) -> None:
    body: dict[str, Any] = {"json": {}} if method == "PATCH" else {}
    check_problem(await service.call(method, path, **body), 404, "agent_not_found")


async def test_an_agent_shows_its_tasks_in_flight(service: Service) -> None:
    await service.register()
    session = await service.trigger()
    agent = await service.json("agent/a1")
    assert agent["taskIds"] == [(await service.task(session))["taskId"]]
    assert (agent["tasksInFlight"], agent["availability"]) == (1, "busy")


async def test_a_filter_with_a_slip_in_its_name_is_422(service: Service) -> None:
    problem = check_problem(await service.get("agents?capabilty=x&limit=1&a/b=1"), 422)
    pointers = [fault["pointer"] for fault in problem["errors"]]
    assert pointers == ["/query/capabilty", "/query/a~1b"]
