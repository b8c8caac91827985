"""The workflows of a chaos run: every way that leads from one task to the next."""

from typing import Any

CAPABILITIES = ("alpha", "beta", "gamma")
FIXED = {"fixed": True}
TOOL_SUM = 3

# Whatever goes wrong, each task ends, so that each session does.
_BOUNDS = {
    "timeout": 8,
    "startTimeout": 3,
    "queueTimeout": 60,
    "retry": {"maxRetries": 4, "initialDelay": 0.2, "maxDelay": 1},
}


def _step(step_id: str, next_id: str | None = None, **fields: Any) -> dict[str, Any]:
    marked = {"step": step_id, "key": "${input.key}"}
    return {
        "taskId": step_id,
        **_BOUNDS,
        "parameters": marked,
        **({"nextTaskId": next_id} if next_id else {}),
        **fields,
    }


_ONCE = {"maxRetries": 0}

WORKFLOWS: dict[str, list[dict[str, Any]]] = {
    "line": [
        _step("one", "two", agentCapability="alpha"),
        _step("two", "three", agentCapability="beta"),
        _step("three", parameters={"step": "three", "before": "${tasks.two.result}"}),
    ],
    "delays": [
        _step("one", "two", delay=0.5, priority=9),
        _step("two", delay=1, priority=0, agentCapability="gamma"),
    ],
    "stand-in": [
        _step("one", "two", agentCapability="alpha", retry=_ONCE, fallback={"taskId": "spare"}),
        _step("two", agentCapability="gamma"),
        _step("spare", agentCapability="beta"),
    ],
    "fixed": [
        _step("one", "two", agentCapability="beta", retry=_ONCE, fallback={"result": FIXED}),
        _step("two"),
    ],
    "elsewhere": [
        _step("one", "two", retry=_ONCE, fallback={"agentCapability": "gamma"}),
        _step("two", priority=7, agentCapability="alpha"),
    ],
    "tool": [
        _step(
            "one",
            "two",
            messageType="tool_invocation",
            toolName="mock_tool",
            parameters={"a": 1, "b": 2},
        ),
        _step("two", agentCapability="beta"),
    ],
}


def definition(name: str) -> dict[str, Any]:
    return {"id": name, "tasks": WORKFLOWS[name]}


def successor(workflow: str, step_id: str, stands_for: str | None) -> str | None:
    """The step that follows; after a stand-in the one that would have come anyway."""
    own: str | None = _fields(workflow, step_id).get("nextTaskId")
    return own if own or stands_for is None else successor(workflow, stands_for, None)


def stand_in(workflow: str, step_id: str) -> str | None:
    """The step that runs in the place of this one when it has failed."""
    named: str | None = _fields(workflow, step_id).get("fallback", {}).get("taskId")
    return named


def first(workflow: str) -> str:
    step_id: str = WORKFLOWS[workflow][0]["taskId"]
    return step_id


def _fields(workflow: str, step_id: str) -> dict[str, Any]:
    return next(step for step in WORKFLOWS[workflow] if step["taskId"] == step_id)
