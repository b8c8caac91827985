"""The whole instance as lines of JSON, for whoever moves it or keeps a copy."""

from typing import Any

from fastapi import APIRouter, Response

from opscore.api.dependencies import CoreDep
from opscore.api.problems import READING

router = APIRouter(tags=["service"])

_PART_TIMEOUT = 30.0
_FIRST_LINE = (
    '{"kind":"opscore-export","format":1,"source":"sqlite","at":"2026-01-01T12:00:00+00:00"}\n'
)
_LINES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An export.",
        "content": {"application/jsonl": {"schema": {"type": "string"}, "example": _FIRST_LINE}},
    }
}


@router.get("/export", response_class=Response, responses=_LINES | READING)
async def export(core: CoreDep) -> Response:
    """Everything as of one moment. It is whole only if its last line is of the kind `end`.

    A replica makes one export at a time; meanwhile others are answered 503 with `Retry-After`.
    It ends when the client takes less than 64 KiB within 30 seconds.
    """
    # What checks every record on its way takes long to load, and no start waits for it.
    from opscore.api.moving import ExportResponse  # noqa: PLC0415 - see above

    kind = core.settings.storage_kind
    return ExportResponse(core.storage, kind, core.export_lock, _PART_TIMEOUT)
