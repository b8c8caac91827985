"""The event log: everything that happened, in order."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from opscore.api.dependencies import CoreDep, EventCursor, Limit
from opscore.api.problems import READING
from opscore.api.schemas import Moment
from opscore.api.views import EventView, ListView
from opscore.exceptions import Fault, ValidationError
from opscore.models import EventFilter, EventType
from opscore.suggestions import closest

router = APIRouter(tags=["events"])


@router.get("/events", responses=READING)
async def list_events(
    core: CoreDep,
    types: Annotated[
        list[Annotated[str, Field(max_length=64)]],
        Query(
            alias="type",
            max_length=100,
            description="`task.completed`, or all of `task`; any of those given.",
        ),
    ] = [],  # noqa: B006 - FastAPI copies it
    agent_id: Annotated[str | None, Query(alias="agentId", max_length=128)] = None,
    session_id: Annotated[str | None, Query(alias="sessionId", max_length=64)] = None,
    task_id: Annotated[str | None, Query(alias="taskId", max_length=64)] = None,
    since: Moment | None = None,
    cursor: EventCursor = 0,
    limit: Limit = 200,
) -> ListView[EventView]:
    """Events, oldest first. `nextCursor` goes on where this page ends, also once it is empty."""
    where = EventFilter(_event_types(types), agent_id, session_id, task_id, since)
    page = await core.storage.events(where, cursor, limit)
    items = [EventView.of(event) for event in page.items]
    return ListView(items=items, next_cursor=page.next_cursor)


def _event_types(words: Sequence[str]) -> frozenset[EventType]:
    """The types that are named whole, or by the part before their dot."""
    found: set[EventType] = set()
    for word in words:
        named = {type_ for type_ in EventType if word in (type_.value, type_.value.split(".")[0])}
        if not named:
            raise _unknown_type(word)
        found |= named
    return frozenset(found)


def _unknown_type(word: str) -> ValidationError:
    kinds = {type_.value.split(".")[0] for type_ in EventType}
    guess = closest(word, [*kinds, *(type_.value for type_ in EventType)])
    hint = f"Did you mean {guess}?" if guess else "docs/reference/http-api.md lists all types."
    message = f"This event type is not known. {hint}"
    return ValidationError(message, faults=[Fault("/query/type", message, "unknown_event_type")])
