"""The storage contract. Its docstrings are the specification that every store is tested against."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from opscore.models import (
    Agent,
    AgentFacts,
    AgentFilter,
    AgentKitKnowledge,
    Candidate,
    Change,
    Claim,
    ClaimScope,
    Counts,
    Event,
    EventFilter,
    IdempotencyRecord,
    LaneFacts,
    Page,
    RegistrationFacts,
    Replica,
    Retention,
    RevisionInfo,
    SessionFacts,
    SessionFilter,
    StateReport,
    Task,
    TaskFacts,
    TaskFilter,
    WorkflowRevision,
    WorkflowSession,
)
from opscore.storage.portable import BATCH, Portable

EARLY_REPORT_AGE = timedelta(seconds=60)
"""How long a report waits for the registration of its agent."""

REVISIONS_KEPT = 100
"""So many of a workflow's newest revisions are kept; older ones only while a session has them."""

Took = Callable[[timedelta], None]


def ignore(duration: timedelta) -> None:
    """For callers who do not ask how long it took."""


@dataclass(frozen=True, slots=True)
class DueItems:
    """Records whose `due_at` has come, as ids; read their facts and decide."""

    tasks: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.tasks or self.sessions or self.agents)


class Storage(ABC):
    """Keeps agents, workflows, sessions, tasks and events.

    Every method is atomic and raises StorageError when the storage does not answer. Values
    given and returned are frozen; nobody changes them, the mappings within them included.
    """

    durable: bool
    """Whether what is stored outlives the process."""

    exclusive: bool
    """Whether no other process can use the storage while this one does."""

    # --- life ---------------------------------------------------------------------------

    @abstractmethod
    async def open(self) -> None:
        """Make the storage usable. Called once, before anything else."""

    @abstractmethod
    async def close(self) -> None:
        """Give everything back. Called once, after everything else."""

    @abstractmethod
    async def ping(self) -> None:
        """Write something small; raise StorageError if the write fails."""

    @abstractmethod
    def on_hint(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when another process may have made a task ready: soon, or never."""

    # --- deciding -----------------------------------------------------------------------

    @abstractmethod
    async def agent_facts(self, agent_id: str, task_id: str | None = None) -> AgentFacts | None:
        """The agent, and the task a report of it is about: the named one, wherever it is, or
        without a name the only one in flight.

        None when the agent was never registered; a deregistered agent is still returned.
        """

    @abstractmethod
    async def registration_facts(
        self, agent_id: str, since: datetime, name: str | None = None
    ) -> RegistrationFacts:
        """The agent if known, and the early report kept for it if received at or after `since`.

        With a name, also the other agents, by id, that AgentKit announced under that name and
        that are not deregistered.
        """

    @abstractmethod
    async def task_facts(self, task_id: str) -> TaskFacts | None:
        """The task, its session, and the agent that has or last had it."""

    @abstractmethod
    async def session_facts(self, session_id: str) -> SessionFacts | None:
        """The session, all its tasks, oldest first, and the agents that have one in flight."""

    @abstractmethod
    async def apply(self, change: Change) -> None:
        """Write the whole change or nothing of it.

        Each agent, session and task, and what was learned of AgentKit, must carry the stored
        `rev` + 1, or 1 if it is new; otherwise VersionConflictError. So must each session be
        stored that only events name, or nobody would ever forget them, and a new agent must have
        the state that the early report kept for it says, which is dropped then. A workflow
        revision must be the newest stored one + 1, or VersionConflictError. With it, revisions of
        the workflow are deleted that are older than its newest `REVISIONS_KEPT` and that no
        stored session has; one whose definition is equal to that of a session may stay.

        A receipt that is stored already raises WebhookReplayedError; a stored key raises
        IdempotencyKeyUsedError, until `idempotency` found it expired or `prune` removed it.
        Events are appended in order and get rising sequence numbers. A task that becomes queued
        joins its lane's queue (see `claim`).
        """

    @abstractmethod
    async def claim(
        self,
        owner: str,
        now: datetime,
        lease_until: datetime,
        limit: int,
        scope: ClaimScope = ClaimScope.ALL,
    ) -> Sequence[Claim]:
        """Hand up to `limit` ready tasks to `owner`, each to an agent with a free slot.

        A task is ready when it is queued and an agent of its lane has a free slot: its
        `slots` exceed its tasks in flight. A tool step is ready as soon as it is queued: it
        goes to no agent, and its claim holds NO_AGENT. A claimed task is stored as dispatched with
        `attempt` + 1, the agent, the owner, the lease and `dispatched_at`, and a
        `task.dispatched` event is appended. No task is handed to two owners and no agent
        gets more than its slots.

        Order: within a lane, priority first; waiting raises a task by one level for every
        `ordering.AGEING`, so nothing starves. Among equals of one level workflows take
        turns, and within a workflow the one that became ready first goes first.
        Among agents the preferred one if it has a free slot, otherwise the least recently
        used one of those with a free slot, ties by id. Only pairs
        of task and agent that `scope` permits are ready.

        The cost does not depend on how many tasks wait for agents without a free slot, or outside
        the scope.
        """

    @abstractmethod
    async def renew(
        self, owner: str, task_ids: Sequence[str], lease_until: datetime
    ) -> frozenset[str]:
        """Prolong the leases that `owner` still holds, and say which these are."""

    @abstractmethod
    async def due(self, now: datetime, limit: int) -> DueItems:
        """Records whose `due_at` is at or before `now`, the earliest first, at most `limit`."""

    @abstractmethod
    async def next_due(self) -> datetime | None:
        """The earliest `due_at` of all records."""

    @abstractmethod
    async def stranded(self, limit: int) -> Sequence[str]:
        """Ids of waiting tasks that only a deregistered agent could do.

        A task for an agent that was replaced can be done by its successor.
        """

    @abstractmethod
    async def keep_early_report(self, report: StateReport, received_at: datetime) -> None:
        """Remember the newest report of an agent that is not registered; bounded in number.

        Of this and storing the new agent one comes first: afterwards either the agent is there,
        or whoever stores it sees the report.
        """

    # --- looking ------------------------------------------------------------------------

    @abstractmethod
    async def agent(self, agent_id: str) -> Candidate | None:
        """The agent and how many tasks it has in flight."""

    @abstractmethod
    async def agents(self, where: AgentFilter, cursor: str | None, limit: int) -> Page[Candidate]:
        """Agents that match, by id. Deregistered ones only when the filter asks for them."""

    @abstractmethod
    async def agent_tasks(self, agent_id: str) -> Sequence[Task]:
        """The agent's tasks in flight, oldest dispatch first."""

    @abstractmethod
    async def agent_history(self, agent_id: str, cursor: str | None, limit: int) -> Page[Event]:
        """The agent's `agent.state` events, newest first; at most `Retention.agent_history`."""

    @abstractmethod
    async def silent_agents(self, before: datetime, limit: int) -> Sequence[Agent]:
        """Registered agents last seen before the given time, longest silent first."""

    @abstractmethod
    async def workflow(
        self, workflow_id: str, revision: int | None = None
    ) -> WorkflowRevision | None:
        """The given or the newest revision; None when unknown or deleted."""

    @abstractmethod
    async def workflows(self, cursor: str | None, limit: int) -> Page[WorkflowRevision]:
        """The newest revision of each workflow, by id."""

    @abstractmethod
    async def workflow_revisions(
        self, workflow_id: str, cursor: str | None, limit: int
    ) -> Page[RevisionInfo]:
        """The revisions that are kept, newest first; empty when unknown or deleted."""

    @abstractmethod
    async def session(self, session_id: str) -> WorkflowSession | None:
        """The session alone."""

    @abstractmethod
    async def sessions(
        self, where: SessionFilter, cursor: str | None, limit: int
    ) -> Page[WorkflowSession]:
        """Sessions that match, newest first."""

    @abstractmethod
    async def tasks(self, where: TaskFilter, cursor: str | None, limit: int) -> Page[Task]:
        """Tasks that match, newest first."""

    @abstractmethod
    async def lane(self, task: Task, limit: int) -> LaneFacts:
        """Agents that could serve the task (at most `limit`, by id) and its place in the queue.

        `ahead` counts the queued tasks of the lane with a higher priority, and those with the
        same whose turn comes before; None for a task that is not queued, and it may be None
        where more than 10,000 wait.
        """

    @abstractmethod
    async def events(self, where: EventFilter, after: int, limit: int) -> Page[Event]:
        """Events that match with a higher `seq` than `after`, oldest first.

        `next_cursor` is the highest sequence number looked at, also when nothing matched, so
        that a reader can go on from there.
        """

    @abstractmethod
    async def idempotency(self, key: str, now: datetime) -> IdempotencyRecord | None:
        """The record of a key unless it has expired."""

    @abstractmethod
    async def agentkit_knowledge(self, agentkit: str) -> AgentKitKnowledge | None:
        """Return what was learned of the AgentKit at this address."""

    @abstractmethod
    async def counts(self) -> Counts:
        """How much there is; cheap enough to be asked on every trigger."""

    # --- forgetting ---------------------------------------------------------------------

    @abstractmethod
    async def prune(
        self, retention: Retention, now: datetime, took: Took = ignore
    ) -> dict[str, int]:
        """Forget one batch of what has ended and is too old or too much, and count it by kind.

        `took` is told how long the batch was at work, without its wait for other writers.

        Of idempotency keys the oldest beyond the bound are forgotten, except those of unfinished
        sessions. Nothing that is unfinished is ever forgotten, and of an unfinished session the
        newest 1,000 events never are. Older ones of it may be, and are once there are more events
        than the bound of all allows; some sessions are looked at for this, others the next time.
        """

    @abstractmethod
    async def prunable(self, retention: Retention, now: datetime) -> dict[str, int]:
        """What `prune` would forget until nothing is left to forget, by kind. Changes nothing."""

    # --- replicas -----------------------------------------------------------------------

    @abstractmethod
    async def time(self) -> datetime | None:
        """The time that everybody who shares this storage goes by; None if nobody shares it."""

    @abstractmethod
    async def beat(self, replica: Replica, forget_before: datetime) -> None:
        """Note that the replica lives, and forget those that said so last before that time."""

    @abstractmethod
    async def leave(self, replica_id: str) -> None:
        """Forget the replica, and free the duties that it holds."""

    @abstractmethod
    async def replicas(self) -> Sequence[Replica]:
        """Those that are known, by id."""

    @abstractmethod
    async def take_duty(self, name: str, owner: str, now: datetime, until: datetime) -> bool:
        """Whether the duty is the owner's until then.

        It is if nobody else holds it beyond `now`; of two who ask at once one is refused.
        """

    # --- auditing -----------------------------------------------------------------------

    @abstractmethod
    async def odd_sessions(self, cursor: str | None, limit: int) -> Page[str]:
        """Ids of sessions at odds with their tasks, among the next `limit` sessions.

        A session goes on exactly as long as one of its tasks is not ended.
        """

    @abstractmethod
    async def timed_tasks(self, cursor: str | None, limit: int) -> Page[TaskFacts]:
        """Tasks that only time may move on, which are delayed or in flight, and their sessions,
        without agents, among the next `limit` tasks."""

    @abstractmethod
    async def mend(self, cursor: str | None, limit: int, now: datetime) -> Page[Event]:
        """Look at the next `limit` records and bring back in step what is kept beside them.

        Each repair is an event `storage.repaired`, appended with it; these are returned. What
        cannot be read is passed over, here and where the unfinished is looked through.
        """

    # --- moving -------------------------------------------------------------------------

    @abstractmethod
    def export(self, batch: int = BATCH) -> AsyncGenerator[Sequence[Portable], None]:
        """Everything as it is at one moment, while others go on writing.

        Each batch is of one kind, and the kinds come in the order of `Portable`. A database can
        be exported without being opened; it stays as it is, and the schema must be today's.
        """

    @abstractmethod
    async def load(self, batches: AsyncIterable[Sequence[Portable]]) -> None:
        """Take in all that was exported elsewhere, or nothing of it if anything goes wrong.

        From then on this storage answers and decides as the other one would have, the order of
        claims included. Raises ConfigurationError unless it is empty.
        """
