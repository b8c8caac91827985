"""State reports: the hottest route and the most important one, for a lost report stays lost."""

from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from opscore.api.core import Core
from opscore.api.cursors import ListCursor
from opscore.api.dependencies import AgentId, CoreDep, Cursor, LifecycleDep, Limit
from opscore.api.problems import CHANGING, FINDING
from opscore.api.refused_agents import RefusedKind, remote_address
from opscore.api.schemas import StateIn
from opscore.api.validation import validation_error
from opscore.api.views import EventView, ListView, ReportView, StateView
from opscore.exceptions import (
    AgentNotFoundError,
    BadRequestError,
    OpsCoreError,
    PayloadTooLargeError,
)
from opscore.middleware.problem import request_id_of, send_problem
from opscore.models import RESULT_LIMIT, StateReport

PATH = "/v1/opscore/agent/{agent_id}/state"
_BEFORE_ID, _AFTER_ID = PATH.split("{agent_id}")
BODY_LIMIT = RESULT_LIMIT + 4096

_MESSAGE = "State update accepted"
_ACCEPTED = b'{"status":"success","message":"%s"}' % _MESSAGE.encode()


def _headers(body: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]


_HEADERS = _headers(_ACCEPTED)

router = APIRouter(tags=["agents"])


class StateReports:
    """Answers `POST …/agent/{id}/state` itself and passes everything else on.

    It stands behind the body guard and before the framework, whose routing and handling would
    cost this route as much again as all that it does.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        agent_id = _agent_id(scope)
        if agent_id is None:
            await self._app(scope, receive, send)
            return
        try:
            uncounted = await _take(scope, agent_id)
        except OpsCoreError as error:
            if isinstance(error, AgentNotFoundError):
                _note_unknown(scope, agent_id, error)
            await send_problem(send, error, request_id_of(scope))
            return
        body = _ACCEPTED if uncounted is None else _uncounted(uncounted)
        headers = _HEADERS if uncounted is None else _headers(body)
        await send({"type": "http.response.start", "status": 202, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def _uncounted(reason: str) -> bytes:
    view = ReportView(message=_MESSAGE, counted=False, reason=reason)
    return str(view.model_dump_json()).encode()


def _agent_id(scope: Scope) -> str | None:
    """The agent's id if the request is a state report."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    path: str = scope["path"]
    if not (path.startswith(_BEFORE_ID) and path.endswith(_AFTER_ID)):
        return None
    agent_id = path[len(_BEFORE_ID) : -len(_AFTER_ID)]
    return agent_id if agent_id and "/" not in agent_id else None


async def _take(scope: Scope, agent_id: str) -> str | None:
    core: Core = scope["app"].state.core
    state = scope["state"]
    size = len(state.get("body", b""))
    if size > BODY_LIMIT:
        raise PayloadTooLargeError("A state report may have at most 256 KiB; send less details.")
    return await core.lifecycle.set_state(_report(agent_id, state.get("json"), size))


def _note_unknown(scope: Scope, agent_id: str, error: AgentNotFoundError) -> None:
    core: Core = scope["app"].state.core
    core.refused_agents.note(
        RefusedKind.REPORT,
        {"agentId": agent_id},
        remote_address(scope),
        error.code,
        error.detail,
    )


def _report(agent_id: str, document: Any, size: int) -> StateReport:
    try:
        parsed = StateIn.model_validate(document)
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False)) from error
    if parsed.agent_id != agent_id:
        raise BadRequestError("The agentId in the body is not the one in the path; send one id.")
    return StateReport(agent_id, parsed.state, parsed.details or {}, parsed.timestamp, size)


def openapi_entry() -> dict[str, Any]:
    """The report route as OpenAPI has it; FastAPI does not see it."""
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
                    "application/json": {"schema": {"$ref": "#/components/schemas/ReportView"}}
                },
            },
            **{str(status): entry for status, entry in CHANGING.items()},
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
    cursors = ListCursor("history", agent_id)
    page = await core.storage.agent_history(agent_id, cursors.open(cursor), limit)
    items = [EventView.of(item) for item in page.items]
    return ListView(items=items, next_cursor=cursors.seal(page.next_cursor))
