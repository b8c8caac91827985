from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Runner
from tests.api.service import Service, check_problem
from tests.fakes import settle

DEFINITION: dict[str, Any] = {"id": "brief", "tasks": [{"taskId": "one"}, {"taskId": "two"}]}
YAML = b"""
id: brief
version: 1.10
tasks:
  - taskId: one
    parameters: {topic: "${input.topic}", flag: no}
  - taskId: two
"""


async def test_saving_is_201_the_same_again_200_and_a_change_a_revision(service: Service) -> None:
    first = await service.post("workflows", DEFINITION)
    same = await service.post("workflows", DEFINITION)
    changed = await service.post("workflows", {**DEFINITION, "name": "Changed"})
    assert [answer.status_code for answer in (first, same, changed)] == [201, 200, 201]
    assert [answer.json()["revision"] for answer in (first, same, changed)] == [1, 1, 2]
    assert first.json().keys() == {
        "workflowId",
        "revision",
        "name",
        "version",
        "description",
        "savedAt",
        "definition",
    }


@pytest.mark.parametrize(
    "content_type",
    [
        "application/yaml",
        "application/x-yaml; charset=utf-8",
        "text/yaml",
        "text/x-yaml",
        "Application/YAML",
    ],
)
async def test_a_definition_may_be_yaml(service: Service, content_type: str) -> None:
    answer = await service.raw("workflows", YAML, content_type)
    assert answer.status_code == 201
    assert answer.json()["version"] == "1.10"
    assert answer.json()["definition"]["tasks"][0]["parameters"]["flag"] == "no"


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/vnd.flow+json", "application/json; a=b", None]
)
async def test_a_definition_may_be_json(service: Service, content_type: str | None) -> None:
    answer = await service.raw("workflows", b'{"id":"w","tasks":[{"taskId":"t"}]}', content_type)
    assert answer.status_code == 201


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/xml",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "application/json; charset=latin-1",
        "application/yaml; charset=utf-16",
        "nonsense",
    ],
)
@pytest.mark.parametrize("path", ["workflows", "workflows/validate", "agents"])
async def test_F84_other_kinds_of_bodies_are_415(
    service: Service, path: str, content_type: str
) -> None:
    answer = await service.raw(path, YAML, content_type)
    check_problem(answer, 415, "unsupported_media_type")


async def test_yaml_is_for_workflows_only(service: Service) -> None:
    await service.register()
    for path in ("agents", "agent/a1/state", "agent/a1/workflow"):
        answer = await service.raw(path, b"a: 1", "application/yaml")
        check_problem(answer, 415, "unsupported_media_type")


async def test_an_empty_body_is_400(service: Service) -> None:
    for path in ("workflows", "workflows/validate"):
        check_problem(await service.raw(path, b"", "application/yaml"), 400, "bad_request")


async def test_reading_a_workflow_and_its_revisions(service: Service) -> None:
    await service.post("workflows", DEFINITION)
    await service.post("workflows", {**DEFINITION, "name": "Changed"})
    assert (await service.json("workflow/brief"))["name"] == "Changed"
    assert (await service.json("workflow/brief", revision=1))["name"] is None
    first = await service.json("workflow/brief/revisions", limit=1)
    assert [item["revision"] for item in first["items"]] == [2]
    assert "definition" not in first["items"][0]
    second = await service.json("workflow/brief/revisions", cursor=first["nextCursor"])
    assert ([item["revision"] for item in second["items"]], second["nextCursor"]) == ([1], None)


async def test_the_definition_that_is_shown_can_be_saved_again(service: Service) -> None:
    shown = (await service.raw("workflows", YAML, "application/yaml")).json()["definition"]
    assert (await service.post("workflows", shown)).status_code == 200


async def test_put_saves_under_the_id_of_the_path(service: Service) -> None:
    body = {"tasks": [{"taskId": "one"}]}
    statuses = [
        (await service.call("PUT", "workflow/mine", json=given)).status_code
        for given in (body, body, {**body, "name": "Changed"})
    ]
    assert statuses == [201, 200, 201]
    check_problem(await service.call("PUT", "workflow/mine", json=DEFINITION), 409, "conflict")
    answer = await service.raw("workflow/brief", YAML, "text/yaml", method="PUT")
    assert answer.status_code == 201


async def test_a_deleted_workflow_is_gone_and_its_sessions_go_on(service: Service) -> None:
    await service.register()
    await service.post("workflows", DEFINITION)
    trigger = {"workflowDefinitionId": "brief"}
    session = (await service.post("agent/a1/workflow", trigger)).json()["sessionId"]
    answer = await service.call("DELETE", "workflow/brief")
    assert (answer.status_code, answer.content) == (204, b"")
    check_problem(await service.get("workflow/brief"), 404, "workflow_not_found")
    check_problem(await service.post("agent/a1/workflow", trigger), 404, "workflow_not_found")
    await settle()
    first = await service.task(session)
    await service.post(f"task/{first['taskId']}/result", {"status": "completed"})
    await settle()
    assert (await service.task(session, "two"))["status"] == "dispatched"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "workflow/none"),
        ("GET", "workflow/brief?revision=2"),
        ("GET", "workflow/none/revisions"),
        ("DELETE", "workflow/none"),
    ],
)
async def test_an_unknown_workflow_is_404(service: Service, method: str, path: str) -> None:
    await service.post("workflows", DEFINITION)
    check_problem(await service.call(method, path), 404, "workflow_not_found")


async def test_the_list_has_the_newest_revision_of_each(service: Service) -> None:
    for workflow_id in ("c", "a", "b", "a"):
        body = {**DEFINITION, "id": workflow_id, "name": f"of {workflow_id}"}
        await service.post("workflows", body)
    first = await service.json("workflows", limit=2)
    rest = await service.json("workflows", limit=2, cursor=first["nextCursor"])
    assert [item["workflowId"] for item in first["items"] + rest["items"]] == ["a", "b", "c"]
    assert rest["nextCursor"] is None


async def test_validating_saves_nothing(service: Service) -> None:
    answer = await service.raw("workflows/validate", YAML, "application/yaml")
    body = answer.json()
    assert (body["valid"], body["workflowId"], body["tasks"]) == (True, "brief", 2)
    assert (await service.json("workflows"))["items"] == []


FAULTS = [
    ({"id": "w", "tasks": []}, "/tasks"),
    ({"id": "w"}, "/tasks"),
    ({"tasks": [{"taskId": "t"}]}, "/id"),
    ({"id": "w", "tasks": [{"taskId": "t", "timeout": "soon"}]}, "/tasks/0/timeout"),
    ({"id": "w", "tasks": [{"taskId": "t", "agentcapability": "x"}]}, "/tasks/0/agentcapability"),
    ({"id": "w", "tasks": [{"taskId": "t"}, {"taskId": "t"}]}, "/tasks/1/taskId"),
    ({"id": "w", "tasks": [{"taskId": "t", "nextTaskId": "u"}]}, "/tasks/0/nextTaskId"),
    ({"id": "w", "tasks": [{"taskId": "t", "nextTaskId": "t"}]}, "/tasks/0/nextTaskId"),
    (
        {"id": "w", "tasks": [{"taskId": "t", "retry": {"maxRetries": 1e9}}]},
        "/tasks/0/retry/maxRetries",
    ),
    ({"id": "w", "tasks": [{"taskId": "t", "delay": "9999d"}]}, "/tasks/0/delay"),
    (
        {"id": "w", "tasks": [{"taskId": "t", "parameters": {"a": "${tasks.x.result}"}}]},
        "/tasks/0/parameters/a",
    ),
]


@pytest.mark.parametrize(("document", "pointer"), FAULTS)
async def test_F89_every_route_that_takes_a_definition_points_at_its_faults(
    service: Service, document: dict[str, Any], pointer: str
) -> None:
    await service.register()
    for answer in (
        await service.post("workflows", document),
        await service.post("workflows/validate", document),
        await service.post("agent/a1/workflow", {"workflowDefinition": document}),
    ):
        problem = check_problem(answer, 422, "invalid_workflow")
        assert pointer in [fault["pointer"] for fault in problem["errors"]]
    assert (await service.json("sessions"))["items"] == []


async def test_F89_all_faults_are_told_at_once(service: Service) -> None:
    document = {"id": "", "tasks": [{"taskId": "a", "priority": 10}, {"taskId": "a", "delay": -1}]}
    problem = check_problem(await service.post("workflows", document), 422)
    pointers = {fault["pointer"] for fault in problem["errors"]}
    assert {"/id", "/tasks/0/priority", "/tasks/1/delay", "/tasks/1/taskId"} <= pointers


async def test_F89_100_000_tasks_are_too_many(service: Service) -> None:
    tasks = ",".join(f'{{"taskId":"{n}"}}' for n in range(100_000))
    answer = await service.raw("workflows", f'{{"id":"w","tasks":[{tasks}]}}'.encode())
    assert answer.status_code in (413, 422)
    check_problem(answer, answer.status_code)


async def test_the_templates_of_the_folder_are_there_at_start(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "brief.yaml").write_bytes(YAML)
    async with run(workflows_dir=tmp_path) as service:
        assert (await service.json("workflow/brief"))["version"] == "1.10"
