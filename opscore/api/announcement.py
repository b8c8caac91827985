"""AgentKit's announcement of an agent, taken as far as it can be: it comes only once.

Long values are shortened, unusable ones are left out, and each change is a note for an operator. An
id or an endpoint is never changed: a wrong one is refused.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from opscore.api.schemas import (
    CAPABILITIES_LIMIT,
    CAPABILITY_LENGTH,
    NAME_LENGTH,
    VERSION_LENGTH,
    AgentDetails,
    Moment,
)
from opscore.exceptions import ValidationError as InvalidError
from opscore.middleware import parse_json
from opscore.workflow.decisions import METADATA_LIMIT

_MOMENT: TypeAdapter[Any] = TypeAdapter(Moment)
_METADATA = "/agent_details/metadata"
_DIGITS = 8


def parse_announcement(raw: bytes) -> tuple[Any, list[str]]:
    """Return the document and notes; metadata that no storage could keep is left out.

    Raises ValidationError or BadRequestError when anything else is wrong with the text.
    """
    try:
        return parse_json(raw), []
    except InvalidError as error:
        document = _without_metadata(raw, error)
        if document is None:
            raise
        return document, ["metadata: left out (it holds values that cannot be stored)"]


def _without_metadata(raw: bytes, error: InvalidError) -> Any:
    """The document without the metadata, if nothing else is at fault, and else None."""
    deep = {"too_deep", "too_many_members"}
    if not all(one.pointer.startswith(_METADATA) or one.code in deep for one in error.faults):
        return None
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    details = document.get("agent_details") if isinstance(document, dict) else None
    if not isinstance(details, dict) or "metadata" not in details:
        return None
    details["metadata"] = None
    try:
        return parse_json(orjson.dumps(document))
    except orjson.JSONEncodeError:
        # Nested deeper than the encoder goes, elsewhere than in the metadata.
        return None


def take_announcement(given: Mapping[str, Any]) -> tuple[AgentDetails, list[str]]:
    """Return the details that can be taken, and a note for each change.

    Raises pydantic's ValidationError where the rest is wrong: the id or the endpoint.
    """
    details, notes = dict(given), list[str]()
    if "registrationTime" in details:
        details.setdefault("registration_time", details["registrationTime"])
    for name, take in _TAKEN.items():
        if details.get(name) is not None:
            details[name], note = take(details[name])
            if note:
                notes.append(f"{name}: {note}")
    return AgentDetails.model_validate(details), notes


# The accepted part of a value, and a note on what was changed.
_Taken = tuple[Any, str | None]


def _take_name(value: Any) -> _Taken:
    if not isinstance(value, str) or not value:
        return None, "left out (empty or no text; the id stands in for it)"
    if len(value) <= NAME_LENGTH:
        return value, None
    # Names tell agents apart: two long ones that begin alike must not become one.
    digest = hashlib.sha256(value.encode()).hexdigest()[:_DIGITS]
    short = f"{value[: NAME_LENGTH - _DIGITS - 1]}…{digest}"
    return short, f"shortened to {NAME_LENGTH} characters"


def _take_version(value: Any) -> _Taken:
    if not isinstance(value, str):
        return None, "left out (no text)"
    note = f"shortened to {VERSION_LENGTH} characters"
    return value[:VERSION_LENGTH], note if len(value) > VERSION_LENGTH else None


def _take_capabilities(value: Any) -> _Taken:
    if not isinstance(value, list):
        return None, "left out (no list)"
    texts = [one for one in value if isinstance(one, str) and one.strip()]
    taken = list(dict.fromkeys(one[:CAPABILITY_LENGTH] for one in texts))
    done = [
        _counted(len(value) - len(texts), "left out (empty or no text)"),
        _counted(
            sum(len(one) > CAPABILITY_LENGTH for one in texts),
            f"shortened to {CAPABILITY_LENGTH} characters",
        ),
        _counted(
            max(0, len(taken) - CAPABILITIES_LIMIT), f"left out (more than {CAPABILITIES_LIMIT})"
        ),
    ]
    return taken[:CAPABILITIES_LIMIT], ", ".join(filter(None, done)) or None


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count else ""


def _take_metadata(value: Any) -> _Taken:
    if not isinstance(value, dict):
        return None, "left out (no object)"
    if len(orjson.dumps(value)) > METADATA_LIMIT:
        return None, f"left out (more than {METADATA_LIMIT // 1024} KiB)"
    return value, None


def _take_time(value: Any) -> _Taken:
    try:
        _MOMENT.validate_python(value)
    except ValidationError:
        return None, "left out (no time)"
    return value, None


_TAKEN: dict[str, Callable[[Any], _Taken]] = {
    "agentName": _take_name,
    "capabilities": _take_capabilities,
    "version": _take_version,
    "metadata": _take_metadata,
    "registration_time": _take_time,
}
