"""Every error that a route may answer, for OpenAPI."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from opscore.middleware.problem import MEDIA_TYPE


class ProblemFault(BaseModel):
    pointer: str = Field(description="A JSON pointer to the place.")
    message: str
    code: str


class ProblemView(BaseModel):
    """RFC 9457. `detail` is a sentence to act on; `code` is stable."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    detail: str
    code: str
    requestId: str  # noqa: N815 - as it is spelled on the wire
    errors: list[ProblemFault] | None = None


MEANINGS = {
    400: "The request could not be read.",
    401: "The API key, or the webhook's signature, is missing or wrong.",
    404: "There is no such thing.",
    408: "The body took too long to arrive.",
    409: "The request does not fit the present state.",
    413: "The body is too large.",
    415: "The body is of a kind that this route does not read.",
    422: "The request is not valid; `errors` says where.",
    503: "The service cannot, for now; `Retry-After` says when to try again.",
}


def _header(description: str, kind: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


_HEADERS = {
    401: {"WWW-Authenticate": _header("`Bearer`.", "string")},
    503: {"Retry-After": _header("Seconds to wait.", "integer")},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the given statuses."""
    return {
        status: {
            "description": MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            "headers": _HEADERS.get(status, {}),
        }
        for status in statuses
    }


READING = problems(400, 401, 422, 503)
FINDING = READING | problems(404)
WRITING = READING | problems(408, 413, 415)
CHANGING = WRITING | FINDING
CONTENDING = CHANGING | problems(409)
