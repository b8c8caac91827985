"""Going straight to the agent, where AgentKit does not work."""

from typing import Any

from opscore.models import (
    Agent,
    Delivery,
    DispatchMode,
    Failure,
    MessageType,
    Task,
    TaskFacts,
)
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.steps import requeue


def can_go_direct(task: Task, agent: Agent | None, ctx: Context) -> bool:
    """Return whether a failed attempt through AgentKit can be sent to its agent directly."""
    return (
        ctx.policy.mode is DispatchMode.AUTO
        and task.via is Delivery.AGENTKIT
        and task.message_type is MessageType.WORKFLOW_TASK
        and agent is not None
        and agent.contact_endpoint is not None
    )


def go_direct(draft: Draft, facts: TaskFacts, failure: Failure, **changes: Any) -> None:
    """Queue the task for a direct delivery to the same agent; that costs no retry."""
    requeue(
        draft,
        facts,
        failure,
        prefer_direct=True,
        preferred_agent=facts.task.agent_id,
        **changes,
    )
