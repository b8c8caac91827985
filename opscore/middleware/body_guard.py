"""Lets only bodies through that the service can bear, and reads JSON once for everybody."""

from collections.abc import Collection, Mapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from opscore.exceptions import OpsCoreError, RequestTimeoutError
from opscore.middleware.body import read_body, replay, too_large
from opscore.middleware.body_headers import BodyHeaders, body_headers, leaves_connection_usable
from opscore.middleware.content_type import Kind, kind_of, unsupported
from opscore.middleware.json_text import check_utf8, parse_json
from opscore.middleware.problem import request_id_of, send_problem
from opscore.middleware.target import check_target

MEBIBYTE = 1024 * 1024
CLOSE = (b"connection", b"close")


class BodyGuard:
    """Checks the target and the body of every request.

    The raw body is kept as `scope["state"]["body"]`, the parsed value of JSON as
    `scope["state"]["json"]`; the app may also read the body as usual. Paths in `unparsed_paths`
    keep their body as it came: whoever serves them calls `parse_json`. YAML is let through under
    `yaml_prefixes` only.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limit: int = MEBIBYTE,
        path_limits: Mapping[str, int] | None = None,
        unparsed_paths: Collection[str] = (),
        yaml_prefixes: tuple[str, ...] = ("",),
        timeout: float = 20.0,
    ) -> None:
        self._app = app
        self._limit = limit
        self._path_limits = dict(path_limits or {})
        self._unparsed_paths = frozenset(unparsed_paths)
        self._yaml_prefixes = yaml_prefixes
        self._timeout = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = False
        try:
            check_target(scope)
            headers = body_headers(scope)
            if headers.present:
                raw = await self._read(scope, headers, receive)
                read = True
                self._keep(scope, headers, raw)
                receive = replay(raw, receive)
        except OpsCoreError as error:
            usable = read or (_in_time(error) and leaves_connection_usable(scope))
            await send_problem(send, error, request_id_of(scope), () if usable else (CLOSE,))
            return
        except ClientDisconnect:
            return
        await self._app(scope, receive, send)

    async def _read(self, scope: Scope, headers: BodyHeaders, receive: Receive) -> bytes:
        limit = self._path_limits.get(scope["path"], self._limit)
        if headers.length > limit:
            raise too_large(limit)
        return await read_body(receive, limit, self._timeout)

    def _keep(self, scope: Scope, headers: BodyHeaders, raw: bytes) -> None:
        state: dict[str, Any] = scope.setdefault("state", {})
        state["body"] = raw
        kind = Kind.JSON if headers.content_type is None else kind_of(headers.content_type)
        if scope["path"] in self._unparsed_paths or not raw:
            return
        if kind is Kind.JSON:
            state["json"] = parse_json(raw)
        elif kind is Kind.YAML and scope["path"].startswith(self._yaml_prefixes):
            check_utf8(raw)
        else:
            raise unsupported()
        if headers.content_type is None:
            scope["headers"] = [*scope["headers"], (b"content-type", b"application/json")]


def _in_time(error: OpsCoreError) -> bool:
    return not isinstance(error, RequestTimeoutError)
