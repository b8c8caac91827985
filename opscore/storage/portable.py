"""Portable records: all that a storage keeps, in a form that any other one can take in."""

from dataclasses import dataclass
from datetime import datetime

from opscore.models import (
    Agent,
    AgentKitKnowledge,
    Event,
    IdempotencyRecord,
    StateReport,
    Task,
    WebhookReceipt,
    WorkflowRevision,
    WorkflowSession,
)

BATCH = 200
"""Records of a batch. Each may hold a result of the greatest size, so they are not many."""


@dataclass(frozen=True, slots=True)
class LastEvent:
    """The last number that an event had; the event itself may be forgotten."""

    seq: int


@dataclass(frozen=True, slots=True)
class KeptAgent:
    """An agent, and the number of its last use: the least recently used one goes first."""

    agent: Agent
    last_used: int


@dataclass(frozen=True, slots=True)
class KeptTask:
    """A task and its place in its queue: its turn, and among equals the number of its arrival.

    Both are 0 for a task that is not queued.
    """

    task: Task
    turn: int = 0
    arrival: int = 0


@dataclass(frozen=True, slots=True)
class ServedTurn:
    """The last turn that was served of a lane's tasks of one priority, tool steps or others."""

    lane: str
    needs_agentkit: bool
    priority: int
    turn: int


@dataclass(frozen=True, slots=True)
class EarlyReport:
    """A report that waits for the registration of its agent."""

    report: StateReport
    received_at: datetime


Portable = (
    LastEvent
    | WorkflowRevision
    | KeptAgent
    | WorkflowSession
    | KeptTask
    | ServedTurn
    | Event
    | EarlyReport
    | WebhookReceipt
    | IdempotencyRecord
    | AgentKitKnowledge
)
"""The kinds in the order in which they are exported and loaded."""
