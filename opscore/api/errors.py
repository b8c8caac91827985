"""Turns every error into the one JSON shape. Routes raise; they never build error answers."""

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from opscore.api.allowed import allowed_methods
from opscore.api.validation import model_of, validation_error
from opscore.exceptions import (
    BadRequestError,
    ConflictError,
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


def install_error_handlers(app: FastAPI) -> None:
    app.add_exception_handler(OpsCoreError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _known(request: Request, error: Exception) -> Response:
    return _answer(request, error if isinstance(error, OpsCoreError) else _internal())


async def _invalid(request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    return _answer(request, validation_error(found, _body_model(request)))


def _body_model(request: Request) -> type[BaseModel] | None:
    """Return the model that the route reads its body as, if it does."""
    route = request.scope.get("route")
    body = route.body_field if isinstance(route, APIRoute) else None
    return model_of(body.field_info.annotation) if body else None


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
