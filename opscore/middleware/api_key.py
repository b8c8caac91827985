"""Deny by default: every path needs the key, except those named here."""

import hashlib
import hmac
from collections.abc import Collection, Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from opscore.exceptions import UnauthorizedError
from opscore.middleware.body_headers import leaves_connection_usable
from opscore.middleware.problem import request_id_of, send_problem

OPERATOR = "operator"
CLOSE = (b"connection", b"close")

_SCHEME = b"bearer "


class ApiKeyGate:
    """Answers 401 unless `Authorization: Bearer <key>` carries one of the keys.

    The body of a refused request is not read. With the key, `scope["state"]["principal"]` is set.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: Iterable[str],
        public_paths: Collection[str] = (),
        public_prefixes: tuple[str, ...] = (),
    ) -> None:
        self._app = app
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys if key]
        self._public_paths = frozenset(public_paths)
        self._public_prefixes = public_prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            if self._knows(scope):
                scope.setdefault("state", {})["principal"] = OPERATOR
            elif not self._is_public(scope["path"]):
                await _refuse(scope, send)
                return
        elif kind == "websocket" and not self._knows(scope):
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._app(scope, receive, send)

    def _is_public(self, path: str) -> bool:
        return path in self._public_paths or path.startswith(self._public_prefixes)

    def _knows(self, scope: Scope) -> bool:
        given = hashlib.sha256(_presented_key(scope)).digest()
        known = False
        # Every key is compared, so that the time taken does not tell which one fits.
        for digest in self._digests:
            known |= hmac.compare_digest(digest, given)
        return known


def _presented_key(scope: Scope) -> bytes:
    """The key as sent; empty, which is no key, when there is not exactly one bearer token."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1 or values[0][: len(_SCHEME)].lower() != _SCHEME:
        return b""
    key: bytes = values[0][len(_SCHEME) :]
    return key


async def _refuse(scope: Scope, send: Send) -> None:
    error = UnauthorizedError("Send the API key as 'Authorization: Bearer <key>'.")
    close = () if leaves_connection_usable(scope) else (CLOSE,)
    await send_problem(send, error, request_id_of(scope), close)
