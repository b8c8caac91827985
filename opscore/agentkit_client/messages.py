"""The message that goes to AgentKit or to an agent.

AgentKit forwards its own fields alone, so everything of ours travels inside `payload`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from opscore.models import Claim, MessageType, Task

SENDER = "opscore_system_id"
CANCEL_TYPE = "task_cancel"

MAX_PRIOR_MESSAGES = 20
MAX_PRIOR_MESSAGE = 4096
"""In bytes of UTF-8."""

_CUT = " …".encode()


def task_message(claim: Claim) -> dict[str, Any]:
    """The message that gives the claimed task to its agent."""
    task = claim.task
    payload = {
        "task_name": task_name(task),
        "task_parameters": task.parameters,
        **_place(task),
        "deadline": _iso(task.run_deadline),
    }
    if task.message_type is MessageType.TOOL_INVOCATION:
        payload |= {"tool_name": task.tool_name, "arguments": task.parameters}
    prior = prior_messages(claim.session.results)
    return _envelope(task, task.message_type.value, payload, prior)


def cancel_message(task: Task) -> dict[str, Any]:
    """The message that tells an agent to stop working on the task."""
    return _envelope(task, CANCEL_TYPE, {"task_name": task_name(task), **_place(task)})


def task_name(task: Task) -> str:
    return task.name or task.step_id


def encode(message: Mapping[str, Any]) -> bytes:
    """The one encoding of a message. Raise TypeError for what JSON cannot carry."""
    return orjson.dumps(message, default=_plain)


def _place(task: Task) -> dict[str, Any]:
    return {"attempt": task.attempt, "workflow_id": task.workflow_id, "step_id": task.step_id}


def prior_messages(results: Mapping[str, Any]) -> list[str]:
    """Return the newest results of a session in short, oldest first, as `step: result`."""
    newest = list(results.items())[-MAX_PRIOR_MESSAGES:]
    return [_shortened(f"{step}: {_text(result)}") for step, result in newest]


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    return orjson.dumps(result, default=_plain).decode()


def _shortened(text: str) -> str:
    encoded = text.encode()
    if len(encoded) <= MAX_PRIOR_MESSAGE:
        return text
    return encoded[: MAX_PRIOR_MESSAGE - len(_CUT)].decode(errors="ignore") + _CUT.decode()


def _envelope(
    task: Task, message_type: str, payload: Mapping[str, Any], prior: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "senderId": SENDER,
        "messageType": message_type,
        "payload": payload,
        "task_name": task_name(task),
        "opscore_session_id": task.session_id,
        "opscore_task_id": task.id,
        "sessionContext": {"sessionId": task.session_id, "priorMessages": list(prior)},
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"A {type(value).__name__} cannot be written as JSON.")
