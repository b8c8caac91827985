"""Agents: who they are, what they last said, and whether they may be given work."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from opscore.models.open_entry import OpenEntry


class StateWord(StrEnum):
    """What a reported state means, once capitals and synonyms are set aside."""

    INITIALIZING = "initializing"
    IDLE = "idle"
    ACTIVE = "active"
    FINISHED = "finished"
    ERROR = "error"
    OFFLINE = "offline"
    UNKNOWN = "unknown"


_SYNONYMS = {
    "busy": StateWord.ACTIVE,
    "running": StateWord.ACTIVE,
    "processing": StateWord.ACTIVE,
    "working": StateWord.ACTIVE,
    "completed": StateWord.FINISHED,
    "done": StateWord.FINISHED,
    "success": StateWord.FINISHED,
    "failed": StateWord.ERROR,
    "failure": StateWord.ERROR,
    "stopped": StateWord.OFFLINE,
    **{word.value: word for word in StateWord},
}


def normalise_state(reported: str) -> StateWord:
    """A word outside the table is `unknown`: stored and shown, and it moves nothing."""
    return _SYNONYMS.get(reported.strip().lower(), StateWord.UNKNOWN)


class Standing(StrEnum):
    """An agent's place in the registry."""

    REGISTERED = "registered"
    DRAINING = "draining"
    LOST = "lost"
    DEREGISTERED = "deregistered"


class Availability(StrEnum):
    """Whether an agent may be given a task now; derived, never stored."""

    AVAILABLE = "available"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    DRAINING = "draining"
    LOST = "lost"
    DEREGISTERED = "deregistered"


class HoldReason(StrEnum):
    """Why a registered agent is given no task although it has a free slot."""

    REPORTED_ACTIVE = "reported_active"
    REPORTED_ERROR = "reported_error"
    REPORTED_OFFLINE = "reported_offline"
    REPORTED_INITIALIZING = "reported_initializing"
    NEVER_REPORTED = "never_reported"
    DELIVERY_FAILING = "delivery_failing"
    UNSETTLED_ATTEMPT = "unsettled_attempt"
    HOST_BUSY = "host_busy"


@dataclass(frozen=True, slots=True)
class Hold:
    """A pause in giving work to an agent; without `until` it lasts until the agent reports."""

    reason: HoldReason
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class AgentState:
    """The newest state report of an agent."""

    state: str
    word: StateWord
    details: Mapping[str, Any]
    timestamp: datetime
    received_at: datetime
    clock_corrected: bool = False


@dataclass(frozen=True, slots=True)
class Agent:
    """`deregistered_at` is wall time: AgentKit's announcements are compared with it.

    `prefer_direct_until` is set when AgentKit did not reach the agent: until then its tasks go
    straight to it, and from then on one tries AgentKit again. An agent `on_trial` gets one task at
    a time until a result counts or it reports idle; a lost one is tried like that at `trial_at`.

    `agentkit_name` is the name under which AgentKit announced the agent, at `announced_at`; an
    operator's own registration has neither. After a restart AgentKit knows the same agent under
    a new id: the old one is `replaced_by` it, and is one of its `predecessors`, newest first.

    `names_tasks` is None until the agent has reported about a task. `recent_reports` are the
    digests of its newest reports, joined into one text.
    """

    id: str
    name: str
    registered_at: datetime
    capabilities: tuple[str, ...] = ()
    version: str | None = None
    contact_endpoint: str | None = None
    metadata: Mapping[str, Any] | None = None
    concurrency: int = 1
    standing: Standing = Standing.REGISTERED
    standing_since: datetime | None = None
    standing_reason: str | None = None
    deregistered_at: datetime | None = None
    agentkit_name: str | None = None
    announced_at: datetime | None = None
    replaced_by: str | None = None
    predecessors: tuple[str, ...] = ()
    hold: Hold | None = None
    state: AgentState | None = None
    last_seen_at: datetime | None = None
    prefer_direct_until: datetime | None = None
    delivery_failures: int = 0
    missed_deadlines: int = 0
    on_trial: bool = False
    trial_at: datetime | None = None
    times_lost: int = 0
    open_entries: tuple[OpenEntry, ...] = ()
    names_tasks: bool | None = None
    recent_reports: str = ""
    rev: int = 0

    @property
    def due_at(self) -> datetime | None:
        """When the first of the agent's holds ends by itself, or a lost agent is tried again."""
        moments = [entry.until for entry in self.open_entries if entry.holds]
        if self.hold is not None and self.hold.until is not None:
            moments.append(self.hold.until)
        if self.trial_at is not None and self.standing is Standing.LOST:
            moments.append(self.trial_at)
        return min(moments, default=None)


def answers_for(agent: Agent, agent_id: str | None) -> bool:
    """Return whether the id is the agent's own or one that it had before."""
    return agent_id == agent.id or agent_id in agent.predecessors


# After so many deliveries failed in a row an agent is tried with one task at a time.
BREAKER_THRESHOLD = 5


def current_hold(agent: Agent) -> Hold | None:
    """Return the hold to show: the agent's own, or that of its attempts without an outcome."""
    if agent.hold is not None:
        return agent.hold
    holding = [entry for entry in agent.open_entries if entry.holds]
    if not holding:
        return None
    since, until = min(one.since for one in holding), max(one.until for one in holding)
    return Hold(HoldReason.UNSETTLED_ATTEMPT, since, until)


def slots(agent: Agent) -> int:
    """How many tasks the agent may have in flight now."""
    if agent.standing is not Standing.REGISTERED or agent.hold is not None:
        return 0
    if any(entry.holds for entry in agent.open_entries):
        return 0
    return 1 if agent.on_trial else agent.concurrency


def availability(agent: Agent, in_flight: int) -> Availability:
    if agent.standing is not Standing.REGISTERED:
        return Availability(agent.standing.value)
    if in_flight >= agent.concurrency or _says_it_is_busy(agent):
        return Availability.BUSY
    return Availability.AVAILABLE if in_flight < slots(agent) else Availability.UNAVAILABLE


def _says_it_is_busy(agent: Agent) -> bool:
    return agent.hold is not None and agent.hold.reason is HoldReason.REPORTED_ACTIVE
