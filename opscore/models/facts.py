"""Facts: what a decision is made from, read together."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

from opscore.models.agent import Agent
from opscore.models.report import StateReport
from opscore.models.session import WorkflowSession
from opscore.models.task import Task


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task, its session, and the agent that has or last had it."""

    task: Task
    session: WorkflowSession
    agent: Agent | None = None


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """An agent, how many tasks it has in flight, and the task that a report may be about.

    That is the `named` one, wherever it is; without a name, the `only` one in flight.
    """

    agent: Agent
    in_flight: int = 0
    only: TaskFacts | None = None
    named: TaskFacts | None = None


@dataclass(frozen=True, slots=True)
class RegistrationFacts:
    """The agent as known, if it is, and the newest report that came before its registration.

    `namesakes` are the other agents in service that AgentKit announced under the same name, and
    `at_work` the tasks that these have in flight.
    """

    agent: Agent | None = None
    early_report: StateReport | None = None
    namesakes: tuple[Agent, ...] = ()
    at_work: tuple[Task, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """A session, all its tasks, oldest first, and the agents that have one of them in flight."""

    session: WorkflowSession
    tasks: tuple[Task, ...] = ()
    agents: tuple[Agent, ...] = ()


class ClaimScope(StrEnum):
    """Which ready tasks a claim may take, by the channels that are open.

    `DIRECT`: workflow tasks, for agents that have a contact endpoint. `DIRECT_AND_TOOLS`: also
    tool steps, which AgentKit runs and which need no agent. `WITHOUT_TOOLS`: all but these.
    """

    ALL = "all"
    WITHOUT_TOOLS = "without_tools"
    DIRECT = "direct"
    DIRECT_AND_TOOLS = "direct_and_tools"

    def permits(self, task: Task, agent: Agent) -> bool:
        if task.needs_agentkit:
            return self in (ClaimScope.ALL, ClaimScope.DIRECT_AND_TOOLS)
        needs_endpoint = self in (ClaimScope.DIRECT, ClaimScope.DIRECT_AND_TOOLS)
        return agent.contact_endpoint is not None or not needs_endpoint


NO_AGENT = Agent(id="", name="", registered_at=datetime.min.replace(tzinfo=UTC))
"""Stands for the agent in the claim of a tool step, which needs none."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A task handed to one dispatcher: already marked dispatched, its attempt raised."""

    task: Task
    session: WorkflowSession
    agent: Agent


@dataclass(frozen=True, slots=True)
class Candidate:
    """An agent that could have a task, and how much it has."""

    agent: Agent
    in_flight: int


@dataclass(frozen=True, slots=True)
class LaneFacts:
    """The queue a task stands in: who could serve it, and what stands before it.

    `ahead` is None where counting would take too long, or was not asked for.
    """

    candidates: tuple[Candidate, ...] = ()
    candidate_count: int = 0
    ahead: int | None = None
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is, for limits and health."""

    agents: int = 0
    sessions: int = 0
    tasks: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    in_flight: int = 0
    events: int = 0
    by_status: dict[str, int] = field(default_factory=dict)
