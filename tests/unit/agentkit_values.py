"""A claimed task, as the tests of the AgentKit client send it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from opscore.models import Agent, Claim, Task, TaskDefinition, WorkflowDefinition, WorkflowSession

NOW = datetime(2026, 11, 21, 6, 27, 44, 531120, UTC)
SESSION = "01939d3a-0000-7000-8000-000000000001"
TASK = "01939d3a-0000-5000-8000-000000000002"


def make_task(**changes: Any) -> Task:
    values: dict[str, Any] = {
        "id": TASK,
        "session_id": SESSION,
        "workflow_id": "research",
        "step_id": "gather",
        "created_at": NOW,
        "waiting_since": NOW,
        "name": "Gather sources",
        "parameters": {"topic": "tides"},
        "attempt": 2,
        "run_deadline": NOW + timedelta(minutes=5),
    }
    return Task(**values | changes)


def make_claim(task: Task, agent_id: str = "a1", endpoint: str | None = None) -> Claim:
    definition = WorkflowDefinition("research", (TaskDefinition("gather"),))
    agent = Agent(agent_id, "first", NOW, contact_endpoint=endpoint)
    return Claim(task, WorkflowSession(SESSION, definition, 1, NOW), agent)
