"""The event log: everything that happened, in order."""

from typing import Annotated

from fastapi import APIRouter, Query

from opscore.api.dependencies import CoreDep, EventCursor, Limit
from opscore.api.problems import READING
from opscore.api.schemas import Moment
from opscore.api.views import EventView, ListView
from opscore.models import EventFilter

router = APIRouter(tags=["events"])


@router.get("/events", responses=READING)
async def list_events(
    core: CoreDep,
    type_: Annotated[
        str | None,
        Query(alias="type", max_length=64, description="`task.completed`, or all of `task`."),
    ] = None,
    agent_id: Annotated[str | None, Query(alias="agentId", max_length=128)] = None,
    session_id: Annotated[str | None, Query(alias="sessionId", max_length=64)] = None,
    task_id: Annotated[str | None, Query(alias="taskId", max_length=64)] = None,
    since: Moment | None = None,
    cursor: EventCursor = 0,
    limit: Limit = 200,
) -> ListView[EventView]:
    """Events, oldest first. `nextCursor` goes on where this page ends, also once it is empty."""
    where = EventFilter(type_, agent_id, session_id, task_id, since)
    page = await core.storage.events(where, cursor, limit)
    items = [EventView.of(event) for event in page.items]
    return ListView(items=items, next_cursor=page.next_cursor)
