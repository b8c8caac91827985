"""AgentKit's webhook: signed, checked before it is read, and applied once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from enum import StrEnum

from fastapi import APIRouter, Request
from pydantic import ValidationError

from opscore.api.announcement import parse_announcement, take_announcement
from opscore.api.core import Core
from opscore.api.dependencies import CoreDep
from opscore.api.problems import problems
from opscore.api.schemas import AgentDetails
from opscore.api.validation import validation_error
from opscore.api.views import MessageView
from opscore.api.webhook_refusals import VERIFIED
from opscore.clock import Clock
from opscore.crash_points import crash_point
from opscore.exceptions import (
    AgentNotFoundError,
    BadRequestError,
    StorageError,
    UnauthorizedError,
    WebhookReplayedError,
)
from opscore.models import Registration
from opscore.signature import verify
from opscore.workflow.decisions import METADATA_LIMIT

PATH = "/v1/opscore/internal/agent/notify"
# Four times what is kept of metadata, so that an agent with more is taken without it.
BODY_LIMIT = 4 * METADATA_LIMIT

_PATIENCE = timedelta(seconds=7)
_PAUSE = timedelta(seconds=0.5)

logger = logging.getLogger(__name__)

router = APIRouter(tags=["agents"])


class EventKind(StrEnum):
    REGISTER = "REGISTER"
    DEREGISTER = "DEREGISTER"


_BODY_SCHEMA = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["event_type", "agent_details"],
                "properties": {
                    "event_type": {
                        "enum": [kind.value for kind in EventKind],
                        "description": "Whether the agent comes or goes.",
                    },
                    "agent_details": {"$ref": "#/components/schemas/AgentDetails"},
                },
            },
            "example": {
                "event_type": "REGISTER",
                "agent_details": {
                    "agentId": "5f9f43c5-2d88-4173-ba89-9a85aa1ff15f",
                    "agentName": "researcher",
                    "capabilities": ["research"],
                    "version": "1",
                    "contactEndpoint": "http://127.0.0.1:9102/task",
                    "metadata": None,
                    "registration_time": "2026-01-01T12:00:00Z",
                },
            },
        }
    },
}


_SIGNED_BY = [
    {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }
    for name, description in (
        ("X-AgentKit-Timestamp", "Unix seconds, or ISO 8601 with a zone."),
        ("X-AgentKit-Signature", "HMAC-SHA256 of the timestamp, a dot and the raw body, in hex."),
    )
]


@router.post(
    "/internal/agent/notify",
    responses=problems(400, 401, 408, 413, 415, 422, 503),
    openapi_extra={"requestBody": _BODY_SCHEMA, "parameters": _SIGNED_BY},
)
async def notify(request: Request, core: CoreDep) -> MessageView:
    """AgentKit announces an agent. The signature stands in for the API key."""
    raw: bytes = request.scope["state"].get("body", b"")
    signature = _checked_signature(core, request, raw)
    request.scope["state"][VERIFIED] = signature is not None
    kind, details, notes = _read(raw)
    crash_point("webhook.verified")

    async def apply() -> MessageView:
        if kind is EventKind.REGISTER:
            return await _register(core, details, notes, signature)
        return await _deregister(core, details, signature)

    try:
        answer = await _patiently(core.clock, apply)
    except WebhookReplayedError:
        return MessageView(status="duplicate", message="This webhook was applied before.")
    crash_point("webhook.committed")
    return answer


async def _patiently(clock: Clock, apply: Callable[[], Awaitable[MessageView]]) -> MessageView:
    """AgentKit waits for ten seconds and never announces an agent again, so a storage that is
    back by then must not cost it."""
    until = clock.now() + _PATIENCE
    while True:
        try:
            return await apply()
        except StorageError:
            if clock.now() + _PAUSE >= until:
                raise
        await clock.wait(asyncio.Event(), clock.now() + _PAUSE)


def _checked_signature(core: Core, request: Request, raw: bytes) -> str | None:
    settings = core.settings
    secrets = [secret.get_secret_value() for secret in settings.webhook_secret]
    if settings.allow_unsigned_webhooks and not secrets:
        return None
    if not secrets:
        raise UnauthorizedError(
            "No webhook secret is configured, so no webhook is accepted; set "
            "OPSCORE_WEBHOOK_SECRET to the secret that AgentKit has."
        )
    return verify(request.scope["headers"], raw, secrets, core.clock.wall())


def _read(raw: bytes) -> tuple[EventKind, AgentDetails, list[str]]:
    """Return the event, its agent, and notes on values that were shortened or left out."""
    document, notes = parse_announcement(raw)
    if not isinstance(document, dict):
        raise BadRequestError("The webhook must be an object with event_type and agent_details.")
    kind = document.get("event_type")
    if kind not in tuple(EventKind):
        raise BadRequestError("event_type must be REGISTER or DEREGISTER.")
    details = document.get("agent_details")
    if not isinstance(details, dict) or not details.get("agentId"):
        raise BadRequestError("agent_details must be an object with an agentId.")
    try:
        taken, more = take_announcement(details)
        return EventKind(kind), taken, notes + more
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False)) from error


async def _register(
    core: Core, details: AgentDetails, notes: Sequence[str], signature: str | None
) -> MessageView:
    registration = Registration(
        agent_id=details.agent_id,
        name=details.agent_name,
        capabilities=details.capabilities,
        version=details.version,
        contact_endpoint=details.contact_endpoint,
        metadata=details.metadata,
        registration_time=details.registration_time,
        by_agentkit=True,
        notes=tuple(notes),
    )
    _, created = await core.lifecycle.register_agent(registration, signature)
    done = "registered" if created else "updated; it was registered already"
    core.refused_agents.forget(details.agent_id)
    changed = f" Not all of it could be taken: {'; '.join(notes)}." if notes else ""
    if notes:
        logger.warning("Agent %s was %s.%s", details.agent_id, done, changed)
    return MessageView(message=f"Agent {details.agent_id} {done}.{changed}")


async def _deregister(core: Core, details: AgentDetails, signature: str | None) -> MessageView:
    try:
        await core.lifecycle.deregister_agent(details.agent_id, signature)
    except AgentNotFoundError:
        return MessageView(message=f"Agent {details.agent_id} was not registered.")
    return MessageView(message=f"Agent {details.agent_id} deregistered.")
