"""Tasks: one step of one session, over all its attempts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from opscore.models.definition import DEFAULT_PRIORITY, MessageType


class TaskStatus(StrEnum):
    QUEUED = "queued"
    DELAYED = "delayed"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"

    @property
    def waiting(self) -> bool:
        return self in (TaskStatus.QUEUED, TaskStatus.DELAYED)

    @property
    def in_flight(self) -> bool:
        """The task holds a slot of its agent."""
        return self in (TaskStatus.DISPATCHED, TaskStatus.RUNNING)

    @property
    def ended(self) -> bool:
        return not (self.waiting or self.in_flight)


class Delivery(StrEnum):
    """The way a message takes to its agent."""

    AGENTKIT = "agentkit"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class EarlyReports:
    """Reports that an agent sent without an id before its attempt was accepted.

    The acceptance decides what becomes of it: `state` and `details` are those of the report
    that ends the work, if one came.
    """

    active_at: datetime | None = None
    state: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Task:
    """`attempt` counts claims and only rises; `retries` counts those the retry policy paid for.

    A task with `wanted_agent` goes to that agent alone, one with `wanted_capability` to any
    agent that has it, the `preferred_agent` first. `agent_id` is who has, or last had, it.
    `queue_bytes` is what the task counts, while it waits, in the budget of what waits.
    `sent_directly`: an attempt went, or may have gone, straight to an agent. `silent_forward` is
    the agent to which AgentKit accepted to forward the attempt before, without a sign of life.
    """

    id: str
    session_id: str
    workflow_id: str
    step_id: str
    created_at: datetime
    waiting_since: datetime
    name: str | None = None
    stands_for: str | None = None
    status: TaskStatus = TaskStatus.QUEUED
    priority: int = DEFAULT_PRIORITY
    message_type: MessageType = MessageType.WORKFLOW_TASK
    tool_name: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    queue_bytes: int = 0
    wanted_agent: str | None = None
    wanted_capability: str | None = None
    preferred_agent: str | None = None
    fell_back: bool = False
    attempt: int = 0
    retries: int = 0
    lost_leases: int = 0
    not_found: int = 0
    agent_id: str | None = None
    via: Delivery | None = None
    prefer_direct: bool = False
    sent_directly: bool = False
    silent_forward: str | None = None
    owner: str | None = None
    lease_until: datetime | None = None
    delayed_until: datetime | None = None
    queue_deadline: datetime | None = None
    start_deadline: datetime | None = None
    run_deadline: datetime | None = None
    dispatched_at: datetime | None = None
    accepted_at: datetime | None = None
    is_probe: bool = False
    active_at: datetime | None = None
    heartbeat_at: datetime | None = None
    early: EarlyReports | None = None
    ended_at: datetime | None = None
    progress: Any = None
    result: Any = None
    error: Mapping[str, Any] | None = None
    rev: int = 0

    @property
    def lane(self) -> str:
        """Which queue the task stands in: one for each agent, each capability, and all tools."""
        if self.needs_agentkit:
            return TOOL_LANE
        if self.wanted_agent is not None:
            return agent_lane(self.wanted_agent)
        return capability_lane(self.wanted_capability or "")

    @property
    def needs_agentkit(self) -> bool:
        """Return whether only AgentKit can do the task: it calls the tools."""
        return self.message_type is MessageType.TOOL_INVOCATION

    @property
    def due_at(self) -> datetime | None:
        """The next moment at which something must happen to this task by itself."""
        match self.status:
            case TaskStatus.DELAYED:
                return _earliest(self.delayed_until, self.queue_deadline)
            case TaskStatus.QUEUED:
                return self.queue_deadline
            case TaskStatus.DISPATCHED | TaskStatus.RUNNING:
                return _earliest(self.lease_until, self.start_deadline, self.run_deadline)
            case _:
                return None


TOOL_LANE = "tools"
"""The queue of tool steps. AgentKit runs the tool, so they wait for no agent."""


def agent_lane(agent_id: str) -> str:
    return f"agent:{agent_id}"


def capability_lane(capability: str) -> str:
    return f"capability:{capability}"


def _earliest(*moments: datetime | None) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)
