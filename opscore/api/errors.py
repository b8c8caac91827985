"""Turns every error into the one JSON shape. Routes raise; they never build error answers."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, ClassVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from opscore.api.allowed import allowed_methods
from opscore.exceptions import (
    BadRequestError,
    ConflictError,
    Fault,
    ForbiddenError,
    MethodNotAllowedError,
    NotFoundError,
    OpsCoreError,
    PayloadTooLargeError,
    TooManyRequestsError,
    UnauthorizedError,
    UnavailableError,
    UnsupportedMediaTypeError,
    ValidationError,
)
from opscore.middleware.problem import problem, request_id_of

MAX_FAULTS = 50
MAX_POINTER = 200

_BY_STATUS: dict[int, tuple[type[OpsCoreError], str]] = {
    400: (BadRequestError, "The request could not be read; check its form."),
    401: (UnauthorizedError, "Send the API key as 'Authorization: Bearer <key>'."),
    403: (ForbiddenError, "This is not allowed with the key you sent."),
    404: (NotFoundError, "Nothing is here; /docs lists every route."),
    405: (MethodNotAllowedError, "This route does not know the method; see the Allow header."),
    409: (ConflictError, "The request does not fit the present state; read it again first."),
    413: (PayloadTooLargeError, "The body is too large; send a smaller one."),
    415: (UnsupportedMediaTypeError, "Send the body as application/json."),
    422: (ValidationError, "The request is not valid; check it against /docs."),
    429: (TooManyRequestsError, "Too many requests; wait before the next."),
    503: (UnavailableError, "The service cannot answer for now; try again later."),
}

# These messages of pydantic quote what was sent.
_UNQUOTED = {
    "uuid_parsing": "Input should be a valid UUID",
    "union_tag_invalid": "Input should name one of the known kinds",
    "json_invalid": "Input should be valid JSON",
}


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(OpsCoreError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _known(request: Request, error: Exception) -> Response:
    return _answer(request, error if isinstance(error, OpsCoreError) else _internal())


async def _invalid(request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    return _answer(request, validation_error(found))


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        return _answer(request, _internal())
    headers = dict(error.headers or {})
    if error.status_code == MethodNotAllowedError.status:
        allowed = allowed_methods(request.app, request.scope["path"])
        headers = {"Allow": ", ".join(allowed)} if allowed else headers
    kind, detail = _BY_STATUS.get(error.status_code) or (_of_status(error.status_code), "")
    return _answer(request, kind(detail or kind.title), headers)


async def _unexpected(request: Request, _: Exception) -> Response:
    return _answer(request, _internal())


def validation_error(errors: Sequence[Any]) -> ValidationError:
    """Pydantic's errors as ours: where and why, never what was sent."""
    faults = [_fault(error) for error in errors[:MAX_FAULTS]]
    more = len(errors) - len(faults)
    tail = f" {more} more are not listed." if more > 0 else ""
    return ValidationError(f"The request is not valid; see errors.{tail}", faults=faults)


def _fault(error: Mapping[str, Any]) -> Fault:
    kind = str(error["type"])
    message = _UNQUOTED.get(kind) or str(error["msg"]).rstrip(".")
    return Fault(_pointer(error["loc"]), f"{message}.", kind)


def _pointer(loc: Sequence[str | int]) -> str:
    """A JSON pointer into the body; for the rest of the request, its part comes first."""
    parts = loc[1:] if loc and loc[0] == "body" else loc
    if loc and loc[0] == "query":
        # Which of a parameter's values it is says nothing.
        parts = loc[:2]
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return "".join(f"/{part}" for part in escaped)[:MAX_POINTER]


def _internal() -> OpsCoreError:
    return OpsCoreError("The service failed; the log has the cause under this request id.")


@cache
def _of_status(number: int) -> type[OpsCoreError]:
    class OtherError(OpsCoreError):
        code: ClassVar[str] = f"http_{number}"
        status: ClassVar[int] = number
        title: ClassVar[str] = f"HTTP status {number}"

    return OtherError


def _answer(
    request: Request, error: OpsCoreError, headers: Mapping[str, str] | None = None
) -> Response:
    made = problem(error, request_id_of(request.scope))
    response = Response(made.body, made.status)
    given = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    kept = {name for name, _ in made.headers}
    response.raw_headers = [*made.headers, *(pair for pair in given if pair[0] not in kept)]
    return response
