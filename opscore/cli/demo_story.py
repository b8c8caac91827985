"""The demo's workflow, and its events as lines that a person reads."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from opscore.cli.demo_client import SeenEvent

TOPIC = "tidal power"

FIRST_AGENT = "researcher"
AGENTS: Mapping[str, tuple[str, ...]] = {
    FIRST_AGENT: ("--capability", "research"),
    "analyst": ("--capability", "analysis", "--fail-first", "1"),
    "writer": ("--capability", "writing"),
}

WORKFLOW: Mapping[str, Any] = {
    "id": "research-brief",
    "name": "A research brief",
    "version": "1.0",
    "description": "Gather sources on a topic, analyse them, write a brief.",
    "tasks": [
        {
            "taskId": "gather",
            "agentCapability": "research",
            "parameters": {"topic": "${input.topic}"},
        },
        {
            "taskId": "analyse",
            "agentCapability": "analysis",
            "parameters": {
                "topic": "${tasks.gather.result.topic}",
                "notes": "${tasks.gather.result.notes}",
                "urls": "${tasks.gather.result.urls}",
            },
            "retry": {"maxRetries": 2, "backoff": "fixed", "initialDelay": "1s"},
        },
        {
            "taskId": "write",
            "agentCapability": "writing",
            "parameters": {
                "topic": "${input.topic}",
                "findings": "${tasks.analyse.result.findings}",
            },
        },
    ],
}

SESSION_ENDS = frozenset(
    {"session.completed", "session.failed", "session.timed_out", "session.cancelled"}
)

Data = Mapping[str, Any]

_SENTENCES: Mapping[str, Callable[[Data], str]] = {
    "session.started": lambda data: f"the workflow {data.get('workflowId', '')} starts",
    "session.completed": lambda _: "the workflow is completed",
    "session.failed": lambda data: f"the workflow failed: {_message(data.get('error'))}",
    "session.timed_out": lambda _: "the workflow ran out of time",
    "session.cancelled": lambda _: "the workflow was cancelled",
    "task.queued": lambda data: f"{_step(data)} waits for an agent",
    "task.delayed": lambda data: f"{_step(data)} waits until {_time(data)}",
    "task.dispatched": lambda data: f"{_step(data)} is sent, attempt {data.get('attempt', 1)}",
    "task.accepted": lambda data: f"{_step(data)} is accepted, by way of {data.get('via', '?')}",
    "task.running": lambda data: f"{_step(data)} runs",
    "task.completed": lambda data: f"{_step(data)} is completed",
    "task.attempt_failed": lambda data: f"{_step(data)} failed: {_message(data)}",
    "task.retry": lambda data: f"{_step(data)} will be tried again",
    "task.fallback": lambda data: f"{_step(data)} takes its fallback",
    "task.failed": lambda data: f"{_step(data)} failed for good",
    "task.timed_out": lambda data: f"{_step(data)} ran out of time",
    "agent.state": lambda data: f"reports {data.get('state', 'its state')!r}",
}


def sentence(event: SeenEvent) -> str:
    """What happened; an event without a sentence of its own is shown by its type."""
    say = _SENTENCES.get(event.type)
    return event.type if say is None else say(event.data)


def _step(data: Data) -> str:
    return str(data.get("stepId", "the task"))


def _time(data: Data) -> str:
    try:
        return f"{datetime.fromisoformat(data['until']).astimezone():%H:%M:%S}"
    except (KeyError, TypeError, ValueError):
        return "its time comes"


def _message(error: Any) -> str:
    return str(error.get("message", "no reason given")) if isinstance(error, Mapping) else "?"


def how_to_go_on(url: str, api_key: str, session_id: str) -> str:
    return f"""  key={api_key}
  api={url}/v1/opscore
  curl -s "$api/session/{session_id}" -H "Authorization: Bearer $key"
  curl -s "$api/session/{session_id}/tasks" -H "Authorization: Bearer $key"
  curl -s "$api/session/{session_id}/events" -H "Authorization: Bearer $key"
  curl -s "$api/agents" -H "Authorization: Bearer $key"
  Interactive API documentation: {url}/docs"""
