"""What routes are handed: the core, and the parameters that lists share."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request

from opscore.api.core import Core
from opscore.lifecycle import Lifecycle


def get_core(request: Request) -> Core:
    core: Core = request.app.state.core
    return core


def get_lifecycle(request: Request) -> Lifecycle:
    core: Core = request.app.state.core
    return core.lifecycle


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
