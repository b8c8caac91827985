"""A change: everything one decision writes, applied as a whole or not at all."""

from dataclasses import dataclass
from datetime import datetime

from opscore.models.agent import Agent
from opscore.models.definition import WorkflowRevision
from opscore.models.event import Event
from opscore.models.forwards import AgentKitKnowledge, ForwardObservation
from opscore.models.session import WorkflowSession
from opscore.models.task import Task


@dataclass(frozen=True, slots=True)
class IdempotencyRecord:
    """The answer to a trigger, kept under its key; `fingerprint` tells requests apart."""

    key: str
    fingerprint: str
    session_id: str
    expires_at: datetime
    workflow_id: str = ""


@dataclass(frozen=True, slots=True)
class WebhookReceipt:
    """A webhook's signature, kept as long as its timestamp would be accepted."""

    signature: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Change:
    """Each record carries `rev` = the stored one + 1 (1 for a new record).

    `may_ready` says that a task may have become ready: the dispatcher is woken after the write.
    `observation` is what the decision saw of AgentKit's forwards, if anything, and `agentkit`
    what was learned of them.
    `abandoned` are tasks taken from their agents, who are told to stop, as well as can be.
    `uncounted` tells an agent in one sentence why its report moved no task.
    """

    agents: tuple[Agent, ...] = ()
    sessions: tuple[WorkflowSession, ...] = ()
    tasks: tuple[Task, ...] = ()
    workflow: WorkflowRevision | None = None
    deleted_workflow: str | None = None
    events: tuple[Event, ...] = ()
    receipt: WebhookReceipt | None = None
    idempotency: IdempotencyRecord | None = None
    may_ready: bool = False
    observation: ForwardObservation | None = None
    agentkit: AgentKitKnowledge | None = None
    abandoned: tuple[Task, ...] = ()
    uncounted: str | None = None
