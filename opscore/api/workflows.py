"""Workflow definitions: saved, validated, listed, with their revisions."""

from typing import Any

from fastapi import APIRouter, Request, Response

from opscore.api.cursors import ListCursor
from opscore.api.dependencies import CoreDep, Cursor, Limit, Revision, WorkflowId
from opscore.api.problems import FINDING, READING, WRITING, problems
from opscore.api.views import ListView, RevisionView, ValidView, WorkflowView
from opscore.exceptions import BadRequestError, ConflictError
from opscore.models import WorkflowDefinition
from opscore.workflow.templates import dump_definition, load_workflow_template, parse_definition

router = APIRouter(tags=["workflows"])

_SCHEMA = {"type": "object", "description": "A workflow definition; see docs/reference/templates."}
_EXAMPLE = {
    "id": "brief",
    "tasks": [
        {"taskId": "gather", "agentCapability": "research", "timeout": "5m"},
        {
            "taskId": "write",
            "agentId": "writer-1",
            "parameters": {"notes": "${tasks.gather.result.notes}"},
        },
    ],
}
_EXAMPLE_IN_YAML = """\
id: brief
tasks:
  - taskId: gather
    agentCapability: research
    timeout: 5m
  - taskId: write
    agentId: writer-1
    parameters:
      notes: ${tasks.gather.result.notes}
"""
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _SCHEMA, "example": _EXAMPLE},
            "application/yaml": {"schema": {"type": "string"}, "example": _EXAMPLE_IN_YAML},
        },
    }
}


def _definition(request: Request, default_id: str | None = None) -> WorkflowDefinition:
    """The definition in the body, JSON or YAML."""
    state: dict[str, Any] = request.scope["state"]
    if "json" in state:
        return parse_definition(state["json"], default_id)
    raw = state.get("body", b"")
    if not raw:
        raise BadRequestError("Send a workflow definition as JSON or YAML in the body.")
    return load_workflow_template(raw, syntax="yaml", default_id=default_id)


@router.get("/workflows", responses=READING)
async def list_workflows(
    core: CoreDep, cursor: Cursor = None, limit: Limit = 50
) -> ListView[WorkflowView]:
    """The newest revision of each workflow, by id."""
    cursors = ListCursor("workflows")
    page = await core.storage.workflows(cursors.open(cursor), limit)
    items = [WorkflowView.of(saved) for saved in page.items]
    return ListView(items=items, next_cursor=cursors.seal(page.next_cursor))


@router.post(
    "/workflows",
    status_code=201,
    responses={**WRITING, 200: {"description": "Saved already.", "model": WorkflowView}},
    openapi_extra=_BODY,
)
async def create_workflow(request: Request, core: CoreDep, response: Response) -> WorkflowView:
    """Save a definition. A changed one under the same id makes a new revision."""
    return await _save(core, _definition(request), response)


@router.post("/workflows/validate", responses=WRITING, openapi_extra=_BODY)
async def validate_workflow(request: Request) -> ValidView:
    """Check a definition without saving it; 422 lists every fault."""
    definition = _definition(request)
    return ValidView(
        workflow_id=definition.id,
        tasks=len(definition.tasks),
        definition=dump_definition(definition),
    )


@router.get("/workflow/{workflow_id}", responses=FINDING)
async def get_workflow(
    workflow_id: WorkflowId,
    core: CoreDep,
    revision: Revision = None,
) -> WorkflowView:
    """The newest revision, or the one asked for."""
    return WorkflowView.of(await core.catalog.get_workflow_definition(workflow_id, revision))


@router.put(
    "/workflow/{workflow_id}",
    responses={
        **WRITING,
        **problems(409),
        201: {"description": "A new revision.", "model": WorkflowView},
    },
    openapi_extra=_BODY,
)
async def put_workflow(
    workflow_id: WorkflowId,
    request: Request,
    core: CoreDep,
    response: Response,
) -> WorkflowView:
    """Save a definition under this id (201); the same one again changes nothing (200)."""
    definition = _definition(request, workflow_id)
    if definition.id != workflow_id:
        raise ConflictError("The id in the body is not the one in the path; send one id.")
    return await _save(core, definition, response)


@router.delete("/workflow/{workflow_id}", status_code=204, responses=FINDING)
async def delete_workflow(workflow_id: WorkflowId, core: CoreDep) -> None:
    """No new sessions; running ones go on with the definition they have."""
    await core.catalog.delete_workflow(workflow_id)


@router.get("/workflow/{workflow_id}/revisions", responses=FINDING)
async def list_revisions(
    workflow_id: WorkflowId, core: CoreDep, cursor: Cursor = None, limit: Limit = 50
) -> ListView[RevisionView]:
    """The revisions that are kept, newest first, without their definitions."""
    cursors = ListCursor("revisions", workflow_id)
    page = await core.catalog.revisions(workflow_id, cursors.open(cursor), limit)
    items = [RevisionView.of(info) for info in page.items]
    return ListView(items=items, next_cursor=cursors.seal(page.next_cursor))


async def _save(core: CoreDep, definition: WorkflowDefinition, response: Response) -> WorkflowView:
    saved, is_new = await core.catalog.create_workflow(definition)
    response.status_code = 201 if is_new else 200
    return WorkflowView.of(saved)
