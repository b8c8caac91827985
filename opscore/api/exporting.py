"""The whole instance as lines of JSON, for whoever moves it or keeps a copy."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from opscore.api.dependencies import CoreDep
from opscore.api.problems import READING

router = APIRouter(tags=["service"])

MEDIA_TYPE = "application/jsonl"
_LINES: dict[int | str, dict[str, Any]] = {
    200: {"description": "An export.", "content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
}


@router.get("/export", response_class=StreamingResponse, responses=_LINES | READING)
async def export(core: CoreDep) -> StreamingResponse:
    """Everything as of one moment. It is whole only if its last line is of the kind `end`."""
    # What checks every record on its way takes long to load, and no start waits for it.
    from opscore.api.moving import begin_export  # noqa: PLC0415 - see above

    lines = await begin_export(core.storage, core.settings.storage_kind)
    return StreamingResponse(lines, media_type=MEDIA_TYPE)
