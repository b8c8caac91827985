"""What routes are handed: the core, and the parameters that lists share."""

from collections import Counter
from typing import Annotated, Any, get_origin

from fastapi import Depends, Header, Path, Query, Request

from opscore.api.core import Core
from opscore.api.validation import VISIBLE_PATTERN
from opscore.exceptions import MAX_FAULTS, Fault, ValidationError
from opscore.json_rules import MAX_POINTER, pointer_token
from opscore.lifecycle import Lifecycle
from opscore.suggestions import closest


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
    fields = request.scope["route"].dependant.query_params
    known = {field.alias for field in fields}
    several = {field.alias for field in fields if _takes_several(field.field_info.annotation)}
    given = Counter(name for name, _ in request.query_params.multi_items())
    faults = [
        *(_query_fault(name, _unknown(name, known)) for name in given if name not in known),
        *(
            _query_fault(name, "This parameter is given twice; it takes one value.", "repeated")
            for name, count in given.items()
            if count > 1 and name in known - several
        ),
    ]
    if len(faults) == 1:
        raise ValidationError(faults[0].message, faults=faults)
    if faults:
        raise ValidationError("The query is not valid; see errors.", faults=faults[:MAX_FAULTS])


def _takes_several(annotation: Any) -> bool:
    return get_origin(annotation) in (list, frozenset)


def _query_fault(name: str, message: str, code: str = "extra_forbidden") -> Fault:
    return Fault(f"/query/{pointer_token(name)}"[:MAX_POINTER], message, code)


def _unknown(name: str, known: set[str]) -> str:
    if guess := closest(name, known):
        return f"This parameter is not known here. Did you mean {guess}?"
    if not known:
        return "This route takes no parameters."
    return f"This parameter is not known here. Those that are: {', '.join(sorted(known))}."


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
        pattern=VISIBLE_PATTERN,
        description="The same key with the same request gives the same session for a day.",
    ),
]


def has_key(request: Request) -> bool:
    """Return whether the request carried the API key, on routes that do not require it."""
    return "principal" in request.scope.get("state", {})
