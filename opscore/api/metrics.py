"""Metrics, for whoever collects them."""

from typing import Any

from fastapi import APIRouter, Request, Response

from opscore.api.dependencies import CoreDep
from opscore.api.observation import observe
from opscore.api.problems import READING

router = APIRouter(tags=["service"])

_TEXT: dict[str, Any] = {
    "schema": {"type": "string"},
    "example": "# TYPE opscore_agents gauge\nopscore_agents 3.0\n",
}
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Text as Prometheus reads it, or OpenMetrics where that is asked for.",
        "content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT},
    }
}


@router.get("/metrics", response_class=Response, responses=_METRICS | READING)
async def metrics(core: CoreDep, request: Request) -> Response:
    """How much there is and what this process has done, for Prometheus to collect."""
    # What it needs takes longer to load than most of the service, and no start waits for it.
    from opscore.api.exposition import exposition  # noqa: PLC0415 - see above

    seen = await observe(core)
    text, media_type = exposition(core, seen, request.headers.get("accept", ""))
    return Response(text, media_type=media_type)
