"""Routes under /simulator: what tests read and change. The real services do not have them."""

import json
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from opscore.simulators.behaviour import Behaviour
from opscore.simulators.received import LIMIT, ReceivedLog


class Control:
    def __init__(self, behaviour: Behaviour, received: ReceivedLog) -> None:
        self._behaviour = behaviour
        self._received = received

    @property
    def routes(self) -> list[Route]:
        return [
            Route("/simulator/received", self._list_received),
            Route("/simulator/behaviour", self._show_behaviour),
            Route("/simulator/behaviour", self._change_behaviour, methods=["PATCH"]),
        ]

    async def _list_received(self, request: Request) -> JSONResponse:
        after, limit = _number(request, "after", 0), _number(request, "limit", LIMIT)
        entries = self._received.after(after, limit)
        return JSONResponse(
            {
                "items": [entry.to_json() for entry in entries],
                "next": entries[-1].n if entries else after,
            }
        )

    async def _show_behaviour(self, _request: Request) -> JSONResponse:
        return JSONResponse(self._behaviour.model_dump(by_alias=True))

    async def _change_behaviour(self, request: Request) -> JSONResponse:
        patch = parse(await request.body())
        if not isinstance(patch, dict):
            raise HTTPException(422, "Send a JSON object with the behaviours to change.")
        self._behaviour.change(patch)
        return await self._show_behaviour(request)


def parse(body: bytes) -> Any:
    """The JSON of a body, or its text where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return body.decode(errors="replace")


async def http_error(_request: Request, error: Exception) -> JSONResponse:
    """Errors look as those of a FastAPI service."""
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette types handlers loosely
    return JSONResponse({"detail": error.detail}, error.status_code, headers=error.headers)


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit()):
        raise HTTPException(422, f"'{name}' must be a whole number, 0 or more.")
    return int(text)
