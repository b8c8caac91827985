"""Sessions: starting workflows, and watching and ending their runs."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from opscore.api.core import Core
from opscore.api.cursors import ListCursor
from opscore.api.dependencies import (
    AgentId,
    CoreDep,
    Cursor,
    EventCursor,
    IdempotencyKey,
    Limit,
    Search,
    SessionId,
)
from opscore.api.problems import CHANGING, CONTENDING, FINDING, READING
from opscore.api.schemas import CancelIn, SessionIn, SessionPatch, TriggerIn, WorkflowChoice
from opscore.api.tasks import task_views
from opscore.api.views import (
    EventView,
    ListView,
    SessionDetailView,
    SessionView,
    TaskView,
    TriggeredView,
)
from opscore.models import EventFilter, SessionFilter, SessionStatus, TaskFilter, WorkflowSession
from opscore.session_starter import Trigger
from opscore.workflow.templates import parse_definition

router = APIRouter(tags=["sessions"])

SessionStatuses = Annotated[frozenset[SessionStatus], Query(description="Any of those given.")]


_STARTING = CONTENDING | {
    200: {"description": "The session ended within `waitSeconds`.", "model": SessionDetailView}
}


@router.post(
    "/agent/{agent_id}/workflow",
    status_code=202,
    response_model=TriggeredView,
    responses=_STARTING,
)
async def start_session(
    agent_id: AgentId, body: TriggerIn, core: CoreDep, key: IdempotencyKey = None
) -> TriggeredView | Response:
    """Start a workflow: a saved one, or the definition in the body."""
    return await _start(core, body, agent_id, key)


@router.post("/sessions", status_code=202, response_model=TriggeredView, responses=_STARTING)
async def start_session_without_agent(
    body: SessionIn, core: CoreDep, key: IdempotencyKey = None
) -> TriggeredView | Response:
    """Start a workflow whose steps name their agents or capabilities themselves."""
    return await _start(core, body, body.agent_id, key)


async def _start(
    core: Core, body: WorkflowChoice, agent_id: str | None, key: str | None
) -> TriggeredView | Response:
    definition = None
    if body.workflow_definition is not None:
        definition = parse_definition(body.workflow_definition)
    trigger = Trigger(agent_id, body.initial_payload or {}, body.workflow_definition_id, definition)
    started = await core.lifecycle.start_session(trigger, key)
    ended = await core.lifecycle.wait_for_end(started.id, body.wait_seconds)
    if ended is not None:
        detail = await _detail(core, ended)
        return Response(detail.model_dump_json(by_alias=True), media_type="application/json")
    return TriggeredView(
        session_id=started.id,
        workflow_id=started.workflow_id,
        message="The workflow was started.",
    )


@router.get("/sessions", responses=READING)
async def list_sessions(
    core: CoreDep,
    status: SessionStatuses = frozenset(),
    workflow_id: Annotated[str | None, Query(alias="workflowId", max_length=128)] = None,
    agent_id: Annotated[str | None, Query(alias="agentId", max_length=128)] = None,
    search: Search = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ListView[SessionView]:
    """Sessions, newest first."""
    where = SessionFilter(status, workflow_id, agent_id, search)
    cursors = ListCursor("sessions", where)
    page = await core.storage.sessions(where, cursors.open(cursor), limit)
    items = [SessionView.of(session) for session in page.items]
    return ListView(items=items, next_cursor=cursors.seal(page.next_cursor))


@router.get("/session/{session_id}", responses=FINDING)
async def get_session(session_id: SessionId, core: CoreDep) -> SessionDetailView:
    """One session, with the results of its tasks so far and what it waits for."""
    return await _detail(core, await core.lifecycle.get_session(session_id))


async def _detail(core: Core, session: WorkflowSession) -> SessionDetailView:
    open_tasks = await core.lifecycle.open_tasks(session, core.dispatcher.gate())
    return SessionDetailView.with_open_tasks(session, open_tasks)


@router.patch("/session/{session_id}", responses=CHANGING)
async def update_session(
    session_id: SessionId, body: SessionPatch, core: CoreDep
) -> SessionDetailView:
    """Merge into the session's metadata."""
    return await _detail(core, await core.lifecycle.update_session(session_id, body.metadata))


@router.get("/session/{session_id}/tasks", responses=FINDING)
async def list_session_tasks(
    session_id: SessionId, core: CoreDep, cursor: Cursor = None, limit: Limit = 200
) -> ListView[TaskView]:
    """The session's tasks, newest first."""
    await core.lifecycle.get_session(session_id)
    return await task_views(core, TaskFilter(session_id=session_id), cursor, limit)


@router.get("/session/{session_id}/events", responses=FINDING)
async def list_session_events(
    session_id: SessionId,
    core: CoreDep,
    cursor: EventCursor = 0,
    limit: Limit = 200,
) -> ListView[EventView]:
    """List the session's events, oldest first.

    `nextCursor` goes on where this page ends. It is null once the session has ended and all its
    events were given.
    """
    # Read before the events: what had ended then has all its events written.
    session = await core.lifecycle.get_session(session_id)
    page = await core.storage.events(EventFilter(session_id=session_id), cursor, limit)
    items = [EventView.of(event) for event in page.items]
    is_over = session.status.ended and len(items) < limit
    return ListView(items=items, next_cursor=None if is_over else page.next_cursor)


@router.post("/session/{session_id}/cancel", status_code=202, responses=CONTENDING)
async def cancel_session(
    session_id: SessionId, core: CoreDep, body: CancelIn | None = None
) -> SessionDetailView:
    """End the session: waiting tasks never run, running ones are told to stop."""
    reason = (body or CancelIn()).reason
    return await _detail(core, await core.lifecycle.cancel_session(session_id, reason))


@router.post("/session/{session_id}/retry", status_code=202, responses=CONTENDING)
async def retry_session(session_id: SessionId, core: CoreDep) -> SessionDetailView:
    """Go on with a failed or timed-out session from the task it stopped at."""
    return await _detail(core, await core.lifecycle.retry_session(session_id))
