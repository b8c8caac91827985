"""The order of a queue: lanes and who serves them, priority, ageing, and turns. Pure."""

from datetime import datetime, timedelta

from opscore.models import Agent, Standing, agent_lane, capability_lane

AGEING = timedelta(seconds=60)
"""Waiting this long is worth one level of priority."""

_SWEEP_ABOVE = 1000


def urgency(priority: int, waiting_since: datetime) -> datetime:
    """The earlier, the more urgent: the moment at which a task of priority 0 would rank equal."""
    return waiting_since - priority * AGEING


class FairTurns:
    """Hands out turns so that a workflow with many tasks does not make the others wait.

    Start-time fair queueing: each workflow's next task gets the turn after its last one, but
    never one that has already passed.
    """

    def __init__(self) -> None:
        self._now = 0
        self._last: dict[str, int] = {}
        self._sweep_at = _SWEEP_ABOVE

    def next(self, workflow_id: str) -> int:
        turn = max(self._now, self._last.get(workflow_id, 0)) + 1
        self._last[workflow_id] = turn
        if len(self._last) > self._sweep_at:
            self._last = {key: last for key, last in self._last.items() if last > self._now}
            # Doubling keeps the work for each task constant, however many workflows wait.
            self._sweep_at = max(_SWEEP_ABOVE, 2 * len(self._last))
        return turn

    def took(self, workflow_id: str, turn: int) -> None:
        """A task of the workflow has that turn already."""
        self._last[workflow_id] = max(turn, self._last.get(workflow_id, 0))

    def served(self, turn: int) -> None:
        self._now = max(self._now, turn)

    @property
    def last_served(self) -> int:
        return self._now


def lanes_of(agent: Agent) -> tuple[str, ...]:
    """The lanes an agent serves: its own, its predecessors', and one for each capability."""
    own = map(agent_lane, (agent.id, *agent.predecessors))
    return (*own, *map(capability_lane, agent.capabilities))


def served_name(agent: Agent | None) -> str | None:
    """The name that AgentKit announced the agent under, while the agent is in service."""
    if agent is None or agent.standing is Standing.DEREGISTERED:
        return None
    return agent.agentkit_name
