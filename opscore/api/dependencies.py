"""What routes are handed: the core, and the parameters that lists share."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from opscore.api.core import Core
from opscore.exceptions import Fault, ValidationError
from opscore.lifecycle import Lifecycle

_MAX_FAULTS = 50
_MAX_POINTER = 200


async def get_core(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


async def get_lifecycle(request: Request) -> Lifecycle:
    core: Core = request.app.state.core
    return core.lifecycle


async def known_query(request: Request) -> None:
    """Refuse what a list does not know: a filter with a slip in its name would filter nothing."""
    if request.method != "GET" or not request.scope["query_string"]:
        return
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    message = "This parameter is not known here; /docs lists those that are."
    faults = [
        Fault(f"/query/{_escaped(name)}"[:_MAX_POINTER], message, "extra_forbidden")
        for name in request.query_params
        if name not in known
    ]
    if faults:
        raise ValidationError("The query is not valid; see errors.", faults=faults[:_MAX_FAULTS])


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


CoreDep = Annotated[Core, Depends(get_core)]
LifecycleDep = Annotated[Lifecycle, Depends(get_lifecycle)]

# No storage counts further, and JSON does not either.
_LARGEST = 2**53

Cursor = Annotated[str | None, Query(max_length=512, description="From `nextCursor`.")]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]
EventCursor = Annotated[int, Query(ge=0, le=_LARGEST, description="From `nextCursor`.")]
Revision = Annotated[
    int | None, Query(ge=1, le=_LARGEST, description="The newest one when it is left out.")
]
AgentId = Annotated[str, Path(max_length=255)]
WorkflowId = Annotated[str, Path(max_length=255)]
SessionId = Annotated[str, Path(max_length=64)]
TaskId = Annotated[str, Path(max_length=64)]
Search = Annotated[str | None, Query(max_length=200, description="Part of an id or a name.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same request gives the same session for a day.",
    ),
]


def has_key(request: Request) -> bool:
    """Return whether the request carried the API key, on routes that do not require it."""
    return "principal" in request.scope.get("state", {})
