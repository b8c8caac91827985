"""Learn of AgentKit's forwards from signs of life of a task's agent."""

from opscore.models import Agent, Delivery, ForwardObservation, MessageType, Task
from opscore.workflow.decisions.draft import Draft


def note_sign_of_life(draft: Draft, task: Task, agent: Agent | None) -> None:
    """Record the evidence about AgentKit, and the channel that reaches the agent.

    Call it only for what the agent itself showed: a report, a heartbeat, an answer.
    """
    seen = _observation(task)
    if seen is None:
        return
    draft.observation = seen
    if agent is None or agent.id != seen.agent_id:
        return
    agent = draft.latest(agent)
    if seen.arrived and agent.prefer_direct_until is not None:
        draft.agent(agent, prefer_direct_until=None)
    elif not seen.arrived:
        draft.agent(agent, prefer_direct_until=draft.ctx.now + draft.ctx.policy.probe_interval)


def _observation(task: Task) -> ForwardObservation | None:
    """None when the agent may have the task from either channel."""
    is_tool = task.message_type is MessageType.TOOL_INVOCATION
    if is_tool or task.agent_id is None or not _is_delivered(task):
        return None
    if task.via is Delivery.AGENTKIT and not task.sent_directly:
        return ForwardObservation(task.agent_id, arrived=True)
    if task.via is Delivery.DIRECT and task.silent_forward == task.agent_id:
        return ForwardObservation(task.agent_id, arrived=False)
    return None


def _is_delivered(task: Task) -> bool:
    """Whether `via` is the channel of the attempt that the agent speaks of."""
    if task.status.in_flight:
        return task.accepted_at is not None
    return task.via is Delivery.AGENTKIT and task.silent_forward is not None
