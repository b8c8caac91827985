"""AgentKit's forwards: whether what AgentKit accepts reaches its agents."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Forwards(StrEnum):
    UNKNOWN = "unknown"
    PROVED = "proved"
    DISPROVED = "disproved"


@dataclass(frozen=True, slots=True)
class ForwardObservation:
    """Evidence about AgentKit's forward to an agent, from a sign of life of that agent.

    `arrived` is true when the agent got its task through AgentKit only, and false when the
    forward stayed silent until the task was also sent directly.
    """

    agent_id: str
    arrived: bool


@dataclass(frozen=True, slots=True)
class AgentKitKnowledge:
    """The conclusions about one AgentKit, named by its address.

    While its forwards are disproved, `next_probe` is when one task tries AgentKit again. While
    they are proved, `unreached` names the agents that its forwards have missed since.
    """

    agentkit: str = ""
    forwards: Forwards = Forwards.UNKNOWN
    since: datetime | None = None
    next_probe: datetime | None = None
    unreached: tuple[str, ...] = ()
    rev: int = 0
