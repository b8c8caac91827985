"""Answers about agents."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from opscore.api.refused_agents import Refused, RefusedKind
from opscore.api.views.base import View
from opscore.models import (
    Agent,
    AgentState,
    Availability,
    Candidate,
    DispatchMode,
    HoldReason,
    Standing,
    StateWord,
    availability,
    current_hold,
)
from opscore.workflow.queue import NO_ENDPOINT, TRIAL


class HoldView(View):
    reason: HoldReason
    since: datetime
    until: datetime | None


class AgentView(View):
    agent_id: str
    agent_name: str
    capabilities: list[str]
    version: str | None
    contact_endpoint: str | None
    metadata: Mapping[str, Any] | None
    concurrency: int
    tasks_in_flight: int
    availability: Availability
    availability_since: datetime | None
    availability_reason: str | None
    hold: HoldView | None
    state: str | None
    state_word: StateWord | None
    registered_at: datetime
    replaced_by: str | None
    predecessors: list[str]
    last_seen_at: datetime | None
    delivery_failures: int
    missed_deadlines: int

    @classmethod
    def of(cls, candidate: Candidate, mode: DispatchMode) -> "AgentView":
        agent = candidate.agent
        return cls(
            agent_id=agent.id,
            agent_name=agent.name,
            capabilities=list(agent.capabilities),
            version=agent.version,
            contact_endpoint=agent.contact_endpoint,
            metadata=agent.metadata,
            concurrency=agent.concurrency,
            tasks_in_flight=candidate.in_flight,
            availability=_availability(candidate, mode),
            availability_since=agent.standing_since,
            availability_reason=_availability_reason(agent, mode),
            hold=_hold(agent),
            state=agent.state.state if agent.state else None,
            state_word=agent.state.word if agent.state else None,
            registered_at=agent.registered_at,
            replaced_by=agent.replaced_by,
            predecessors=list(agent.predecessors),
            last_seen_at=agent.last_seen_at,
            delivery_failures=agent.delivery_failures,
            missed_deadlines=agent.missed_deadlines,
        )


def _lacks_endpoint(agent: Agent, mode: DispatchMode) -> bool:
    is_registered = agent.standing is Standing.REGISTERED
    return is_registered and mode is DispatchMode.DIRECT and agent.contact_endpoint is None


def _availability(candidate: Candidate, mode: DispatchMode) -> Availability:
    if _lacks_endpoint(candidate.agent, mode):
        return Availability.UNAVAILABLE
    return availability(candidate.agent, candidate.in_flight)


def _availability_reason(agent: Agent, mode: DispatchMode) -> str | None:
    if _lacks_endpoint(agent, mode):
        return f"it has {NO_ENDPOINT}"
    if agent.standing is Standing.REGISTERED and agent.on_trial:
        return f"it {TRIAL}, until a result of it counts or it reports idle"
    return agent.standing_reason


def _hold(agent: Agent) -> HoldView | None:
    hold = current_hold(agent)
    return HoldView(reason=hold.reason, since=hold.since, until=hold.until) if hold else None


class RefusedAgentView(View):
    """Of a webhook without a genuine signature (`verified` false), the agent is only a claim."""

    kind: Literal["webhook", "report"]
    verified: bool
    agent_id: str | None
    agent_name: str | None
    remote_address: str | None
    code: str
    reason: str
    count: int
    first_at: datetime
    last_at: datetime

    @classmethod
    def of(cls, refused: Refused) -> "RefusedAgentView":
        return cls(
            kind="report" if refused.kind is RefusedKind.REPORT else "webhook",
            verified=refused.kind is not RefusedKind.UNSIGNED_WEBHOOK,
            agent_id=refused.agent_id,
            agent_name=refused.agent_name,
            remote_address=refused.remote_address,
            code=refused.code,
            reason=refused.reason,
            count=refused.count,
            first_at=refused.first_at,
            last_at=refused.last_at,
        )


class AgentDetailView(AgentView):
    task_ids: list[str] = Field(default_factory=list)


class StateView(View):
    """`clockCorrected`: the agent's own time was too far off and was replaced."""

    agent_id: str
    state: str
    word: StateWord
    details: Mapping[str, Any]
    timestamp: datetime
    received_at: datetime
    clock_corrected: bool

    @classmethod
    def of(cls, agent_id: str, state: AgentState) -> "StateView":
        return cls(
            agent_id=agent_id,
            state=state.state,
            word=state.word,
            details=state.details,
            timestamp=state.timestamp,
            received_at=state.received_at,
            clock_corrected=state.clock_corrected,
        )
