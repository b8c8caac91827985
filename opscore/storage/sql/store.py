"""The SQL store: each method of the contract is one program."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from datetime import datetime
from functools import partial

from opscore.exceptions import StorageError
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
from opscore.storage.damage import UNREADABLE
from opscore.storage.interface import DueItems, Storage, Took, ignore
from opscore.storage.portable import BATCH, Portable
from opscore.storage.sql import (
    auditing,
    claiming,
    forgetting,
    leases,
    listing,
    mending,
    reading,
    replicas,
    tallies,
    transfer,
)
from opscore.storage.sql.arrivals import Arrivals
from opscore.storage.sql.codec import DefinitionTexts
from opscore.storage.sql.driver import CommitUnknownError, Driver
from opscore.storage.sql.program import timed
from opscore.storage.sql.surplus import Surplus
from opscore.storage.sql.together import Together
from opscore.storage.sql.writer import Writer

# What others have taken meanwhile is seen by the next look.
_CLAIM_TRIES = 5
_REMOTE_AT_ONCE = 2


class SqlStorage(Storage):
    durable = True

    def __init__(self, driver: Driver, retention: Retention) -> None:
        self.exclusive = not driver.dialect.remote
        self._driver = driver
        self._history = retention.agent_history
        self._arrivals = Arrivals()
        self._surplus = Surplus()
        texts = DefinitionTexts()
        # Over connections that take their time, one group is made while another is under way.
        at_once = 1 if self.exclusive else _REMOTE_AT_ONCE
        writers = [Writer(driver, texts, self._arrivals) for _ in range(at_once)]
        self._changes = Together("storage writer", [one.write for one in writers])
        self._facts = Together("storage reader", [self._agents_facts] * at_once)

    async def open(self) -> None:
        await self._driver.open()

    async def close(self) -> None:
        await self._changes.close()
        await self._facts.close()
        await self._driver.close()

    async def ping(self) -> None:
        await self._driver.write(leases.ping)

    def on_hint(self, wake: Callable[[], None]) -> None:
        self._driver.on_hint(wake)

    # --- deciding -------------------------------------------------------------------------

    async def agent_facts(self, agent_id: str, task_id: str | None = None) -> AgentFacts | None:
        return await self._facts.ask((agent_id, task_id))

    async def _agents_facts(
        self, asks: Sequence[reading.Ask]
    ) -> Sequence[AgentFacts | Exception | None]:
        try:
            return await self._driver.read(reading.agents_facts(self._driver.dialect, asks))
        except UNREADABLE as error:
            if len(asks) == 1:
                return [error]
            # One record that cannot be read must not hold up all the others.
            return [answer for one in asks for answer in await self._agents_facts([one])]

    async def registration_facts(
        self, agent_id: str, since: datetime, name: str | None = None
    ) -> RegistrationFacts:
        return await self._driver.read(reading.registration_facts(agent_id, since, name))

    async def task_facts(self, task_id: str) -> TaskFacts | None:
        return await self._driver.read(reading.task_facts(task_id))

    async def session_facts(self, session_id: str) -> SessionFacts | None:
        return await self._driver.read(reading.session_facts(session_id))

    async def apply(self, change: Change) -> None:
        await self._changes.ask(change)
        if change.may_ready:
            self._driver.hint()

    async def claim(
        self,
        owner: str,
        now: datetime,
        lease_until: datetime,
        limit: int,
        scope: ClaimScope = ClaimScope.ALL,
    ) -> Sequence[Claim]:
        dialect = self._driver.dialect
        for _ in range(_CLAIM_TRIES):
            pairs = await self._driver.read(claiming.look(dialect, limit, scope))
            if not pairs:
                break
            if claims := await self._take(pairs, owner, now, lease_until, scope):
                return claims
        return []

    async def _take(
        self,
        pairs: list[claiming.Pair],
        owner: str,
        now: datetime,
        lease_until: datetime,
        scope: ClaimScope,
    ) -> Sequence[Claim]:
        """Agents that others hold are waited for, or less urgent tasks would overtake.

        One that somebody holds for long must not keep the tasks of all others waiting.
        """
        take = partial(
            claiming.take,
            self._driver.dialect,
            self._arrivals,
            pairs,
            owner,
            now,
            lease_until,
            scope,
        )
        try:
            return await self._driver.write(partial(take, wait=True))
        except CommitUnknownError:
            raise
        except StorageError:
            return await self._driver.write(partial(take, wait=False))

    async def renew(
        self, owner: str, task_ids: Sequence[str], lease_until: datetime
    ) -> frozenset[str]:
        return await self._driver.write(
            lambda: leases.renew(self._driver.dialect, owner, task_ids, lease_until), urgent=True
        )

    async def due(self, now: datetime, limit: int) -> DueItems:
        return await self._driver.read(reading.due(now, limit))

    async def next_due(self) -> datetime | None:
        return await self._driver.read(reading.next_due())

    async def stranded(self, limit: int) -> Sequence[str]:
        return await self._driver.scan(reading.stranded(limit))

    async def keep_early_report(self, report: StateReport, received_at: datetime) -> None:
        dialect = self._driver.dialect
        await self._driver.write(lambda: leases.keep_early_report(dialect, report, received_at))

    # --- looking --------------------------------------------------------------------------

    async def agent(self, agent_id: str) -> Candidate | None:
        return await self._driver.read(reading.candidate(agent_id))

    async def agents(self, where: AgentFilter, cursor: str | None, limit: int) -> Page[Candidate]:
        return await self._driver.scan(listing.agents(where, cursor, limit))

    async def agent_tasks(self, agent_id: str) -> Sequence[Task]:
        return await self._driver.read(reading.agent_tasks(agent_id))

    async def agent_history(self, agent_id: str, cursor: str | None, limit: int) -> Page[Event]:
        program = listing.agent_history(agent_id, cursor, limit, self._history)
        return await self._driver.scan(program)

    async def silent_agents(self, before: datetime, limit: int) -> Sequence[Agent]:
        return await self._driver.scan(listing.silent_agents(before, limit))

    async def workflow(
        self, workflow_id: str, revision: int | None = None
    ) -> WorkflowRevision | None:
        return await self._driver.read(listing.workflow(workflow_id, revision))

    async def workflows(self, cursor: str | None, limit: int) -> Page[WorkflowRevision]:
        return await self._driver.scan(listing.workflows(cursor, limit))

    async def workflow_revisions(
        self, workflow_id: str, cursor: str | None, limit: int
    ) -> Page[RevisionInfo]:
        return await self._driver.read(listing.workflow_revisions(workflow_id, cursor, limit))

    async def session(self, session_id: str) -> WorkflowSession | None:
        return await self._driver.read(reading.session(session_id))

    async def sessions(
        self, where: SessionFilter, cursor: str | None, limit: int
    ) -> Page[WorkflowSession]:
        return await self._driver.scan(listing.sessions(where, cursor, limit))

    async def tasks(self, where: TaskFilter, cursor: str | None, limit: int) -> Page[Task]:
        return await self._driver.scan(listing.tasks(where, cursor, limit))

    async def lane(self, task: Task, limit: int) -> LaneFacts:
        return await self._driver.scan(reading.lane(task, limit))

    async def events(self, where: EventFilter, after: int, limit: int) -> Page[Event]:
        return await self._driver.scan(listing.events(where, after, limit))

    async def idempotency(self, key: str, now: datetime) -> IdempotencyRecord | None:
        record = await self._driver.read(leases.idempotency(key))
        if record is not None and record.expires_at <= now:
            await self._driver.write(lambda: leases.forget_key(key, now))
            return None
        return record

    async def agentkit_knowledge(self, agentkit: str) -> AgentKitKnowledge | None:
        return await self._driver.read(leases.agentkit_knowledge(agentkit))

    async def counts(self) -> Counts:
        return await self._driver.read(tallies.counts())

    # --- forgetting -----------------------------------------------------------------------

    async def prune(
        self, retention: Retention, now: datetime, took: Took = ignore
    ) -> dict[str, int]:
        make = partial(forgetting.prune, self._driver.dialect, retention, now, self._surplus)
        return await self._driver.write(lambda: timed(make(), took), long=True)

    async def prunable(self, retention: Retention, now: datetime) -> dict[str, int]:
        async with self._driver.transaction(writing=False) as run:
            return await run(forgetting.prunable(retention, now))

    # --- replicas -------------------------------------------------------------------------

    async def time(self) -> datetime | None:
        dialect = self._driver.dialect
        return await self._driver.read(replicas.time(dialect)) if dialect.remote else None

    async def beat(self, replica: Replica, forget_before: datetime) -> None:
        await self._driver.write(lambda: replicas.beat(replica, forget_before), urgent=True)

    async def leave(self, replica_id: str) -> None:
        await self._driver.write(lambda: replicas.leave(replica_id))

    async def replicas(self) -> Sequence[Replica]:
        return await self._driver.read(replicas.replicas())

    async def take_duty(self, name: str, owner: str, now: datetime, until: datetime) -> bool:
        return await self._driver.write(lambda: replicas.take_duty(name, owner, now, until))

    # --- auditing -------------------------------------------------------------------------

    async def odd_sessions(self, cursor: str | None, limit: int) -> Page[str]:
        return await self._driver.scan(auditing.odd_sessions(cursor, limit))

    async def timed_tasks(self, cursor: str | None, limit: int) -> Page[TaskFacts]:
        return await self._driver.scan(auditing.timed_tasks(cursor, limit))

    async def mend(self, cursor: str | None, limit: int, now: datetime) -> Page[Event]:
        dialect = self._driver.dialect
        found = await self._driver.scan(mending.look(dialect, cursor, limit))
        if not found.suspects:
            return Page((), found.next_cursor)
        events = await self._driver.write(lambda: mending.mend(dialect, found, now))
        return Page(tuple(events), found.next_cursor)

    # --- moving ---------------------------------------------------------------------------

    def export(self, batch: int = BATCH) -> AsyncGenerator[Sequence[Portable], None]:
        return transfer.export(self._driver, batch)

    async def load(self, batches: AsyncIterable[Sequence[Portable]]) -> None:
        await transfer.load(self._driver, batches)
