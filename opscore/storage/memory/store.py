"""Everything in dictionaries behind one lock."""

import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice

from opscore.exceptions import ConfigurationError
from opscore.models import (
    NO_AGENT,
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
    Retention,
    RevisionInfo,
    SessionFacts,
    SessionFilter,
    Standing,
    StateReport,
    Task,
    TaskFacts,
    TaskFilter,
    TaskStatus,
    WebhookReceipt,
    WorkflowRevision,
    WorkflowSession,
)
from opscore.storage.claimed import claimed_task, dispatched_event
from opscore.storage.cursors import decode, encode, page, sequence, time_cursor
from opscore.storage.interface import DueItems, Took, ignore
from opscore.storage.matching import agent_matches
from opscore.storage.memory.auditing import odd_sessions, timed_tasks
from opscore.storage.memory.checking import check
from opscore.storage.memory.contents import Contents, count_expired, forget_expired
from opscore.storage.memory.listing import session_matches, task_matches
from opscore.storage.memory.pruning import prunable, prune
from opscore.storage.memory.records import Records
from opscore.storage.memory.replicas import MemoryReplicas
from opscore.storage.memory.timers import Kind
from opscore.storage.memory.transfer import in_order, restore, snapshot
from opscore.storage.portable import BATCH, Portable

_EARLY_REPORTS = 1000


class MemoryStorage(MemoryReplicas):
    """No method awaits while it holds the lock, so each is one step for every other."""

    durable = False
    exclusive = True

    def __init__(self, retention: Retention | None = None) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._retention = retention or Retention()
        self._records = Records(self._retention)
        self._early: dict[str, tuple[datetime, StateReport]] = {}
        self._receipts: dict[str, WebhookReceipt] = {}
        self._keys: dict[str, IdempotencyRecord] = {}
        self._agentkits: dict[str, AgentKitKnowledge] = {}

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to give back; what was stored goes with the process."""

    async def ping(self) -> None:
        """Memory always answers."""

    # --- deciding -------------------------------------------------------------------------

    async def agent_facts(self, agent_id: str, task_id: str | None = None) -> AgentFacts | None:
        with self._lock:
            agent = self._records.agents.get(agent_id)
            if agent is None:
                return None
            in_flight = self._records.in_flight(agent_id)
            if task_id is None:
                only = self._records.task_facts(in_flight[0]) if len(in_flight) == 1 else None
                return AgentFacts(agent, len(in_flight), only)
            named = self._records.tasks.get(task_id)
            facts = self._records.task_facts(named) if named else None
            return AgentFacts(agent, len(in_flight), named=facts)

    async def registration_facts(
        self, agent_id: str, since: datetime, name: str | None = None
    ) -> RegistrationFacts:
        with self._lock:
            received_at, report = self._early.get(agent_id, (since, None))
            return RegistrationFacts(
                self._records.agents.get(agent_id),
                report if received_at >= since else None,
                self._records.namesakes(agent_id, name) if name else (),
            )

    async def task_facts(self, task_id: str) -> TaskFacts | None:
        with self._lock:
            task = self._records.tasks.get(task_id)
            return self._records.task_facts(task) if task else None

    async def session_facts(self, session_id: str) -> SessionFacts | None:
        with self._lock:
            session = self._records.sessions.get(session_id)
            if session is None:
                return None
            tasks = self._records.tasks_of(session_id)
            at_work = {task.agent_id for task in tasks if task.status.in_flight and task.agent_id}
            agents = (self._records.agents.get(agent_id) for agent_id in sorted(at_work))
            return SessionFacts(session, tasks, tuple(one for one in agents if one is not None))

    async def apply(self, change: Change) -> None:
        with self._lock:
            check(self._contents, change)
            for session in change.sessions:
                self._records.put_session(session)
            for task in change.tasks:
                self._records.put_task(task)
            for agent in change.agents:
                self._records.put_agent(agent)
                if agent.rev == 1:
                    self._early.pop(agent.id, None)
            self._write_rest(change)
            self._records.events.append(change.events)

    def _write_rest(self, change: Change) -> None:
        if change.workflow is not None:
            self._records.put_workflow(change.workflow)
        if change.deleted_workflow is not None:
            self._records.workflows.pop(change.deleted_workflow, None)
        if change.receipt is not None:
            self._receipts[change.receipt.signature] = change.receipt
        if change.idempotency is not None:
            self._keys[change.idempotency.key] = change.idempotency
        if change.agentkit is not None:
            self._agentkits[change.agentkit.agentkit] = change.agentkit

    async def claim(
        self,
        owner: str,
        now: datetime,
        lease_until: datetime,
        limit: int,
        scope: ClaimScope = ClaimScope.ALL,
    ) -> Sequence[Claim]:
        claims: list[Claim] = []

        def assign(task: Task, agent_id: str | None) -> None:
            claimed = claimed_task(task, agent_id, owner, now, lease_until)
            self._records.put_task(claimed)
            self._records.events.append((dispatched_event(claimed),))
            facts = self._records.task_facts(claimed)
            agent = self._records.agents[agent_id] if agent_id else NO_AGENT
            claims.append(Claim(claimed, facts.session, agent))

        with self._lock:
            self._records.lanes.take(limit, scope, assign)
        return claims

    async def renew(
        self, owner: str, task_ids: Sequence[str], lease_until: datetime
    ) -> frozenset[str]:
        held: set[str] = set()
        with self._lock:
            for task_id in task_ids:
                task = self._records.tasks.get(task_id)
                if task is None or task.owner != owner or not task.status.in_flight:
                    continue
                held.add(task_id)
                if task.lease_until is not None:
                    self._records.put_task(replace(task, lease_until=lease_until, rev=task.rev + 1))
        return frozenset(held)

    async def due(self, now: datetime, limit: int) -> DueItems:
        with self._lock:
            found = self._records.timers.due(now, limit)
        return DueItems(*(tuple(i for k, i in found if k is kind) for kind in _DUE_ORDER))

    async def next_due(self) -> datetime | None:
        with self._lock:
            return self._records.timers.next()

    async def stranded(self, limit: int) -> Sequence[str]:
        with self._lock:
            return list(islice(self._records.stranded(), limit))

    async def keep_early_report(self, report: StateReport, received_at: datetime) -> None:
        with self._lock:
            self._early.pop(report.agent_id, None)
            self._early[report.agent_id] = (received_at, report)
            if len(self._early) > _EARLY_REPORTS:
                del self._early[next(iter(self._early))]

    # --- looking --------------------------------------------------------------------------

    async def agent(self, agent_id: str) -> Candidate | None:
        with self._lock:
            agent = self._records.agents.get(agent_id)
            return self._records.candidate(agent) if agent else None

    async def agents(self, where: AgentFilter, cursor: str | None, limit: int) -> Page[Candidate]:
        with self._lock:
            after = decode(cursor) if cursor else ""
            ids = (agent_id for agent_id in self._records.agent_ids if agent_id > after)
            candidates = (self._records.candidate(self._records.agents[i]) for i in ids)
            found = (candidate for candidate in candidates if agent_matches(where, candidate))
            return page(found, limit, lambda candidate: encode(candidate.agent.id))

    async def agent_tasks(self, agent_id: str) -> Sequence[Task]:
        with self._lock:
            return self._records.in_flight(agent_id)

    async def agent_history(self, agent_id: str, cursor: str | None, limit: int) -> Page[Event]:
        with self._lock:
            before = sequence(cursor)
            history = self._records.events.history(agent_id)
            found = (event for event in history if before is None or event.seq < before)
            return page(found, limit, lambda event: encode(str(event.seq)))

    async def silent_agents(self, before: datetime, limit: int) -> Sequence[Agent]:
        with self._lock:
            silent = [
                (agent.last_seen_at or agent.registered_at, agent.id)
                for agent in self._records.agents.values()
                if agent.standing is Standing.REGISTERED
                and (agent.last_seen_at or agent.registered_at) < before
            ]
            return [self._records.agents[agent_id] for _, agent_id in sorted(silent)[:limit]]

    async def workflow(
        self, workflow_id: str, revision: int | None = None
    ) -> WorkflowRevision | None:
        with self._lock:
            revisions = self._records.workflows.get(workflow_id, [])
        if revision is None:
            return revisions[-1] if revisions else None
        return next((saved for saved in revisions if saved.revision == revision), None)

    async def workflows(self, cursor: str | None, limit: int) -> Page[WorkflowRevision]:
        with self._lock:
            after = decode(cursor) if cursor else ""
            ids = sorted(key for key in self._records.workflows if key > after)
            newest = (self._records.workflows[workflow_id][-1] for workflow_id in ids)
            return page(newest, limit, lambda saved: encode(saved.id))

    async def workflow_revisions(
        self, workflow_id: str, cursor: str | None, limit: int
    ) -> Page[RevisionInfo]:
        before = sequence(cursor)
        with self._lock:
            saved = reversed(self._records.workflows.get(workflow_id, []))
            found = (
                RevisionInfo(workflow_id, one.revision, one.saved_at)
                for one in saved
                if before is None or one.revision < before
            )
            return page(found, limit, lambda one: encode(str(one.revision)))

    async def session(self, session_id: str) -> WorkflowSession | None:
        with self._lock:
            return self._records.sessions.get(session_id)

    async def sessions(
        self, where: SessionFilter, cursor: str | None, limit: int
    ) -> Page[WorkflowSession]:
        with self._lock:
            ids = self._records.sessions_by_age.before(cursor)
            sessions = (self._records.sessions[session_id] for session_id in ids)
            found: Iterator[WorkflowSession] = (
                session for session in sessions if session_matches(where, session)
            )
            if where.statuses and cursor is None:
                # Stop after the last one instead of looking through all older sessions.
                statuses = self._records.session_statuses
                found = islice(found, sum(statuses[status] for status in where.statuses))
            return page(found, limit, lambda one: time_cursor(one.created_at, one.id))

    async def tasks(self, where: TaskFilter, cursor: str | None, limit: int) -> Page[Task]:
        with self._lock:
            tasks = self._records.newest_tasks(where.session_id, cursor)
            found: Iterator[Task] = (task for task in tasks if task_matches(where, task))
            if where.statuses and cursor is None:
                statuses = self._records.statuses
                found = islice(found, sum(statuses[status] for status in where.statuses))
            return page(found, limit, lambda one: time_cursor(one.created_at, one.id))

    async def lane(self, task: Task, limit: int) -> LaneFacts:
        with self._lock:
            serving = self._records.serving(task.lane)
            return LaneFacts(
                tuple(map(self._records.candidate, islice(serving, limit))),
                len(serving),
                self._records.lanes.ahead(task) if task.status is TaskStatus.QUEUED else None,
                self._records.lanes.waiting(task.lane),
            )

    async def events(self, where: EventFilter, after: int, limit: int) -> Page[Event]:
        with self._lock:
            return self._records.events.read(where, after, limit)

    async def idempotency(self, key: str, now: datetime) -> IdempotencyRecord | None:
        with self._lock:
            record = self._keys.get(key)
            if record is not None and record.expires_at <= now:
                del self._keys[key]
                return None
            return record

    async def agentkit_knowledge(self, agentkit: str) -> AgentKitKnowledge | None:
        with self._lock:
            return self._agentkits.get(agentkit)

    async def counts(self) -> Counts:
        with self._lock:
            statuses = self._records.statuses
            return Counts(
                agents=len(self._records.agents),
                sessions=len(self._records.sessions),
                tasks=len(self._records.tasks),
                waiting=sum(count for status, count in statuses.items() if status.waiting),
                waiting_bytes=self._records.waiting_bytes,
                in_flight=sum(count for status, count in statuses.items() if status.in_flight),
                events=len(self._records.events),
                by_status={status.value: count for status, count in statuses.items() if count},
            )

    # --- forgetting -----------------------------------------------------------------------

    async def prune(
        self, retention: Retention, now: datetime, took: Took = ignore
    ) -> dict[str, int]:
        began = time.perf_counter()
        with self._lock:
            counts = prune(self._records, retention, now)
            counts |= forget_expired(self._contents, retention, now)
        took(timedelta(seconds=time.perf_counter() - began))
        return counts

    async def prunable(self, retention: Retention, now: datetime) -> dict[str, int]:
        with self._lock:
            counts = prunable(self._records, retention, now) | count_expired(
                self._contents, retention, now
            )
        return {kind: count for kind, count in counts.items() if count}

    # --- auditing -------------------------------------------------------------------------

    async def odd_sessions(self, cursor: str | None, limit: int) -> Page[str]:
        with self._lock:
            return odd_sessions(self._records, cursor, limit)

    async def timed_tasks(self, cursor: str | None, limit: int) -> Page[TaskFacts]:
        with self._lock:
            return timed_tasks(self._records, cursor, limit)

    # --- moving ---------------------------------------------------------------------------

    async def export(self, batch: int = BATCH) -> AsyncGenerator[Sequence[Portable], None]:
        with self._lock:
            kinds = snapshot(self._contents)
        for records in map(iter, kinds):
            while portion := list(islice(records, batch)):
                yield portion

    async def load(self, batches: AsyncIterable[Sequence[Portable]]) -> None:
        contents = Contents(Records(self._retention))
        async for batch in batches:
            for record in batch:
                restore(contents, record)
        in_order(contents)
        with self._lock:
            if any(any(records) for records in snapshot(self._contents)[1:]):
                raise ConfigurationError(
                    "The storage is not empty, and what is loaded would mix with what is there."
                )
            self._records, self._early = contents.records, contents.early
            self._receipts, self._keys = contents.receipts, contents.keys
            self._agentkits = contents.agentkits

    @property
    def _contents(self) -> Contents:
        return Contents(self._records, self._early, self._receipts, self._keys, self._agentkits)


_DUE_ORDER = (Kind.TASK, Kind.SESSION, Kind.AGENT)
