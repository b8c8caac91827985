"""Notes every webhook that was not taken, whichever layer refused it."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from opscore.api.core import Core
from opscore.api.refused_agents import RefusedKind, remote_address
from opscore.exceptions import OpsCoreError
from opscore.middleware import parse_json

VERIFIED = "webhook_verified"
"""The key of the request's state under which the route says that the signature was genuine."""

# Nothing larger is parsed for one who has no secret.
_CLAIM_LIMIT = 16 * 1024


class WebhookRefusals:
    """Stands around the body guard, so that a body that is too large is noted as well."""

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif status >= 400:
                _note(scope, message.get("body", b""))
            await send(message)

        await self._app(scope, receive, watch)


def _note(scope: Scope, answer: bytes) -> None:
    core: Core = scope["app"].state.core
    problem = orjson.loads(answer)
    state = scope.get("state", {})
    is_verified = state.get(VERIFIED, False)
    core.refused_agents.note(
        RefusedKind.WEBHOOK if is_verified else RefusedKind.UNSIGNED_WEBHOOK,
        _claimed_agent(state.get("body", b"")),
        remote_address(scope),
        problem["code"],
        _reason(problem),
    )


def _claimed_agent(raw: bytes) -> Mapping[str, Any]:
    """Return the agent details of the body; empty where it cannot be read."""
    if len(raw) > _CLAIM_LIMIT:
        return {}
    try:
        document = parse_json(raw)
    except OpsCoreError:
        return {}
    details = document.get("agent_details") if isinstance(document, dict) else None
    return details if isinstance(details, dict) else {}


def _reason(problem: Mapping[str, Any]) -> str:
    """One sentence: the first issue says more than that there are some."""
    for issue in problem.get("errors") or ():
        return f"{issue['pointer']}: {issue['message']}" if issue["pointer"] else issue["message"]
    return str(problem["detail"])
