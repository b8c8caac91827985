"""State reports: the hottest route and the most important one, for a lost report stays lost."""

from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from opscore.api.core import Core
from opscore.api.dependencies import AgentId, CoreDep, Cursor, LifecycleDep, Limit
from opscore.api.errors import validation_error
from opscore.api.problems import FINDING, WRITING
from opscore.api.schemas import StateIn
from opscore.api.views import EventView, ListView, StateView
from opscore.exceptions import BadRequestError, PayloadTooLargeError
from opscore.models import StateReport

PATH = "/v1/opscore/agent/{agent_id}/state"
BODY_LIMIT = 256 * 1024 + 4096

_ACCEPTED = b'{"status":"success","message":"State update accepted"}'
_HEADERS = [
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_ACCEPTED)).encode()),
]

router = APIRouter(tags=["agents"])


async def report_state(request: Request) -> Response:
    """A plain Starlette endpoint: it reads what the body guard parsed, and answers a constant."""
    core: Core = request.app.state.core
    state = request.scope["state"]
    size = len(state.get("body", b""))
    if size > BODY_LIMIT:
        raise PayloadTooLargeError("A state report may have at most 256 KiB; send less details.")
    agent_id: str = request.path_params["agent_id"]
    report = _report(agent_id, state.get("json"), size)
    await core.lifecycle.set_state(report)
    response = Response(_ACCEPTED, 202)
    response.raw_headers = _HEADERS
    return response


def _report(agent_id: str, document: Any, size: int) -> StateReport:
    try:
        parsed = StateIn.model_validate(document)
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False)) from error
    if parsed.agent_id != agent_id:
        raise BadRequestError("The agentId in the body is not the one in the path; send one id.")
    return StateReport(agent_id, parsed.state, parsed.details or {}, parsed.timestamp, size)


state_report_route = Route(PATH, report_state, methods=["POST"])


def openapi_entry() -> dict[str, Any]:
    """The report route as OpenAPI has it; FastAPI does not see plain Starlette routes."""
    return {
        "tags": ["agents"],
        "summary": "Report State",
        "description": "An agent reports its state, and with it the progress of its task.",
        "operationId": "report_state",
        "parameters": [
            {
                "name": "agent_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "maxLength": 255},
            }
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/StateIn"}}},
        },
        "responses": {
            "202": {
                "description": "Accepted.",
                "content": {
                    "application/json": {"schema": {"$ref": "#/components/schemas/MessageView"}}
                },
            },
            **{str(status): entry for status, entry in WRITING.items() if status != 409},
        },
    }


@router.get("/agent/{agent_id}/state", responses=FINDING)
async def get_state(agent_id: AgentId, lifecycle: LifecycleDep) -> StateView:
    """The newest state the agent reported."""
    return StateView.of(agent_id, await lifecycle.get_state(agent_id))


@router.get("/agent/{agent_id}/history", responses=FINDING)
async def get_history(
    agent_id: AgentId, core: CoreDep, cursor: Cursor = None, limit: Limit = 50
) -> ListView[EventView]:
    """The agent's state reports, newest first, as many as are kept."""
    await core.lifecycle.get_agent(agent_id)
    page = await core.storage.agent_history(agent_id, cursor, limit)
    return ListView(items=[EventView.of(item) for item in page.items], next_cursor=page.next_cursor)
