"""The one shape of every error answer: application/problem+json, as RFC 9457 has it."""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import Send

from opscore.exceptions import Fault, OpsCoreError, UnauthorizedError

MEDIA_TYPE = "application/problem+json"

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Problem:
    """An error answer, ready to be sent."""

    status: int
    headers: RawHeaders
    body: bytes


def problem(error: OpsCoreError, request_id: str) -> Problem:
    body = _dump(document(error, request_id))
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        *_special_headers(error),
    ]
    return Problem(error.status, headers, body)


def document(error: OpsCoreError, request_id: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        **error.extra,
        "type": f"/docs/errors#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "requestId": request_id,
    }
    if error.faults:
        content["errors"] = [_fault(fault) for fault in error.faults]
    return content


async def send_problem(
    send: Send,
    error: OpsCoreError,
    request_id: str,
    extra_headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    answer = problem(error, request_id)
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [*answer.headers, *extra_headers],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})


def request_id_of(scope: Any) -> str:
    """The id the outermost middleware gave the request; empty where it does not run."""
    return str(scope.get("state", {}).get("request_id", ""))


def _fault(fault: Fault) -> dict[str, str]:
    return {"pointer": fault.pointer, "message": fault.message, "code": fault.code}


def _special_headers(error: OpsCoreError) -> RawHeaders:
    headers = []
    if isinstance(error, UnauthorizedError):
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
    return headers


def _dump(content: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(content, default=str)
    except TypeError:
        # Orjson cannot write lone surrogates or huge integers; an error must be told all the same.
        return json.dumps(content, default=str).encode("ascii")
