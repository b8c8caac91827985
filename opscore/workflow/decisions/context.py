"""What every decision is told besides its facts."""

from dataclasses import dataclass, field
from datetime import datetime

from opscore.models import Agent, Forwards, Policy


@dataclass(frozen=True, slots=True)
class Context:
    """`now` is the steady time of deadlines; `wall` is what other machines' times compare to.

    `forwards` is what is known of AgentKit: whether it delivers what it accepts.
    """

    now: datetime
    wall: datetime
    policy: Policy = field(default_factory=Policy)
    forwards: Forwards = Forwards.UNKNOWN

    def forwards_reach(self, agent: Agent | None) -> bool:
        """Return whether AgentKit is known to deliver what it accepts for the agent."""
        is_missed = agent is not None and agent.prefer_direct_until is not None
        return self.forwards is Forwards.PROVED and not is_missed

    def forwards_miss(self, agent: Agent | None) -> bool:
        """Return whether AgentKit is known not to deliver what it accepts for the agent."""
        is_missed = agent is not None and agent.prefer_direct_until is not None
        return self.forwards is Forwards.DISPROVED or is_missed
