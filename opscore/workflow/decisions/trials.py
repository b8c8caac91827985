"""Trials: after failures an agent gets one task at a time, until it shows that it works."""

from datetime import timedelta
from typing import Any

from opscore.models import Agent, EventType, Standing
from opscore.workflow.decisions.draft import Draft

_LONGEST_REST = timedelta(days=1)

TRIAL_ENDED: dict[str, Any] = {
    "on_trial": False,
    "trial_at": None,
    "times_lost": 0,
    "delivery_failures": 0,
}


def end_trial(draft: Draft, agent_id: str | None) -> None:
    """A counted result shows that the agent works."""
    agent = draft.agent_by_id(agent_id)
    if agent is not None and agent.on_trial:
        draft.agent(agent, **TRIAL_ENDED)


def rest_before_trial(draft: Draft, agent: Agent) -> dict[str, Any]:
    """Return the changes of an agent that is lost: the next trial, later each time in a row."""
    rest = draft.ctx.policy.probe_interval * (1 << min(agent.times_lost, 16))
    trial_at = draft.ctx.now + min(rest, max(_LONGEST_REST, draft.ctx.policy.probe_interval))
    return {"trial_at": trial_at, "times_lost": agent.times_lost + 1, "on_trial": False}


def try_lost_agent(draft: Draft, agent: Agent) -> Agent:
    """Give a lost agent one task: it may speak only when it works."""
    agent = draft.agent(
        agent,
        standing=Standing.REGISTERED,
        standing_since=draft.ctx.now,
        standing_reason=None,
        on_trial=True,
        trial_at=None,
    )
    draft.event(EventType.AGENT_RETURNED, agent_id=agent.id, onTrial=True)
    return agent
