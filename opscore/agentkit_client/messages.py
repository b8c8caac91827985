"""The message that goes to AgentKit or to an agent.

AgentKit forwards its own fields alone, so everything of ours travels inside `payload`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from opscore.models import Claim, MessageType, Task

SENDER = "opscore_system_id"
CANCEL_TYPE = "task_cancel"


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
    return _envelope(task, task.message_type.value, payload)


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


def _envelope(task: Task, message_type: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "senderId": SENDER,
        "messageType": message_type,
        "payload": payload,
        "task_name": task_name(task),
        "opscore_session_id": task.session_id,
        "opscore_task_id": task.id,
        "sessionContext": {"sessionId": task.session_id, "priorMessages": []},
    }


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


def _plain(value: object) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"A {type(value).__name__} cannot be written as JSON.")
