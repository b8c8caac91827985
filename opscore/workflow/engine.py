"""The engine: reads facts, has a decision made of them, writes the change, tells who listens."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

from opscore.clock import Clock
from opscore.crash_points import crash_point
from opscore.exceptions import VersionConflictError
from opscore.models import (
    Agent,
    Answered,
    Change,
    Claim,
    Delivery,
    Event,
    EventType,
    IdempotencyRecord,
    Outcome,
    Policy,
    Registration,
    StateReport,
    TaskFacts,
    TaskResult,
    WebhookReceipt,
    WorkflowDefinition,
    WorkflowRevision,
)
from opscore.storage import Storage
from opscore.storage.damage import await_or_none
from opscore.storage.interface import EARLY_REPORT_AGE
from opscore.workflow import decisions
from opscore.workflow.decisions import Context, Registered
from opscore.workflow.route_selector import RouteSelector
from opscore.workflow.turns import Turns

logger = logging.getLogger(__name__)

F = TypeVar("F")
R = TypeVar("R")
Listener = Callable[[Change], None]

_TRIES = 10
_EARLY_REPORT_SIZE = 16 * 1024
# With others writing the same record, trying again at once would only meet them again.
_LONGEST_PAUSE = 0.05


class Engine:
    """The one way by which agents, sessions and tasks change."""

    def __init__(self, storage: Storage, clock: Clock, policy: Policy, agentkit: str = "") -> None:
        """`agentkit` is the address of AgentKit: what is learned, is learned of it."""
        self.storage = storage
        self.clock = clock
        self.policy = policy
        self.routes = RouteSelector(storage, clock, policy, agentkit, self.apply)
        self._listeners: list[Listener] = []
        self._turns = Turns()

    def subscribe(self, listener: Listener) -> None:
        """The listener is called after each applied change; it must not wait for anything."""
        self._listeners.append(listener)

    # --- agents ---------------------------------------------------------------------------

    async def register(
        self, registration: Registration, receipt: WebhookReceipt | None = None
    ) -> Registered:
        return await self._in_turn(
            registration.agent_id, lambda: self._register(registration, receipt)
        )

    async def _register(
        self, registration: Registration, receipt: WebhookReceipt | None
    ) -> Registered:
        for _ in range(_TRIES):
            ctx = self._context()
            name = registration.name if registration.by_agentkit else None
            facts = await self.storage.registration_facts(
                registration.agent_id, ctx.now - EARLY_REPORT_AGE, name
            )
            at_work = [await self.storage.agent_tasks(one.id) for one in facts.namesakes]
            facts = replace(facts, at_work=tuple(chain.from_iterable(at_work)))
            outcome = decisions.register_agent(facts, registration, ctx, receipt)
            if await self._applied(outcome.change):
                return outcome
        raise _kept_changing()

    async def change_agent(
        self, agent_id: str, decide: Callable[[Agent, Context], Change]
    ) -> Change | None:
        """None when there is no such agent."""

        async def read() -> Agent | None:
            candidate = await self.storage.agent(agent_id)
            return candidate.agent if candidate else None

        return await self._in_turn(agent_id, lambda: self._change(read, decide))

    async def keep_receipt(self, receipt: WebhookReceipt) -> None:
        """Store the receipt of a webhook that changes nothing, so that its replay is known."""
        await self.apply(Change(receipt=receipt))

    async def agent_reported(self, report: StateReport) -> Change | None:
        """None when the agent is unknown; the report is kept for a registration that follows."""
        return await self._in_turn(report.agent_id, lambda: self._reported(report))

    async def _reported(self, report: StateReport) -> Change | None:
        change = await self._take_report(report)
        if change is None:
            large = report.size > _EARLY_REPORT_SIZE
            early = replace(report, details={}) if large else report
            await self.storage.keep_early_report(early, self.clock.now())
            crash_point("report.kept-early")
            # A registration that came in between has not seen it.
            change = await self._take_report(report)
        return change

    async def _take_report(self, report: StateReport) -> Change | None:
        task_id = decisions.named_task(report.details)
        return await self._change(
            lambda: self.storage.agent_facts(report.agent_id, task_id),
            lambda facts, ctx: decisions.on_state_report(facts, report, ctx),
        )

    # --- sessions -------------------------------------------------------------------------

    async def start_session(
        self,
        session_id: str,
        definition: WorkflowDefinition,
        revision: int,
        agent_id: str | None,
        payload: dict[str, Any],
        idempotency: IdempotencyRecord | None = None,
        saved: WorkflowRevision | None = None,
    ) -> Change:
        ctx = self._context()
        change = decisions.start_session(
            session_id, definition, revision, agent_id, payload, ctx, idempotency, saved
        )
        await self.apply(change)
        return change

    async def cancel_session(self, session_id: str, reason: str) -> Change | None:
        return await self._change(
            lambda: self.storage.session_facts(session_id),
            lambda facts, ctx: decisions.cancel_session(facts, reason, ctx),
        )

    async def retry_session(self, session_id: str) -> Change | None:
        return await self._change(
            lambda: self.storage.session_facts(session_id), decisions.retry_session
        )

    async def update_session(self, session_id: str, metadata: dict[str, Any]) -> Change | None:
        return await self._change(
            lambda: self.storage.session(session_id),
            lambda session, ctx: decisions.update_session(session, metadata, ctx),
        )

    # --- tasks ----------------------------------------------------------------------------

    async def task_outcome(
        self, claim: Claim, via: Delivery, outcome: Outcome, probe: bool = False
    ) -> Change | None:
        task = claim.task
        return await self._in_turn(
            task.agent_id or task.id,
            lambda: self._change(
                lambda: self.storage.task_facts(task.id),
                lambda facts, ctx: decisions.on_outcome(
                    facts, task.attempt, task.owner or "", via, outcome, ctx, probe
                ),
                _as_claimed(claim, outcome),
            ),
        )

    async def task_reported(self, task_id: str, report: TaskResult) -> Change | None:
        return await self._change_task(
            task_id, lambda facts, ctx: decisions.on_task_result(facts, report, ctx)
        )

    async def task_heartbeat(
        self, task_id: str, progress: Any, attempt: int | None
    ) -> Change | None:
        return await self._change_task(
            task_id, lambda facts, ctx: decisions.on_heartbeat(facts, progress, attempt, ctx)
        )

    async def retry_task(self, task_id: str, attempt: int | None) -> Change | None:
        return await self._change(
            lambda: self.storage.task_facts(task_id),
            lambda facts, ctx: decisions.retry_task_now(facts, attempt, ctx),
        )

    async def cancel_task(self, task_id: str, reason: str) -> Change | None:
        return await self._change(
            lambda: self.storage.task_facts(task_id),
            lambda facts, ctx: decisions.cancel_task(facts, reason, ctx),
        )

    # --- time -----------------------------------------------------------------------------

    async def task_due(self, task_id: str) -> Change | None:
        return await self._change(lambda: self._task_or_none(task_id), decisions.on_task_due)

    async def session_due(self, session_id: str) -> Change | None:
        return await self._change(
            lambda: await_or_none("sessions", session_id, self.storage.session_facts(session_id)),
            decisions.on_session_due,
        )

    async def agent_due(self, agent_id: str) -> Change | None:
        return await self._change(lambda: self._agent_or_none(agent_id), decisions.on_agent_due)

    async def task_stranded(self, task_id: str) -> Change | None:
        async def read() -> tuple[TaskFacts, Agent | None] | None:
            facts = await self._task_or_none(task_id)
            if facts is None:
                return None
            return facts, await self.find_current_agent(facts.task.wanted_agent or "")

        return await self._change(read, lambda both, ctx: decisions.on_stranded(*both, ctx))

    # What cannot be read must not hold up the other timers.

    async def _task_or_none(self, task_id: str) -> TaskFacts | None:
        return await await_or_none("tasks", task_id, self.storage.task_facts(task_id))

    async def _agent_or_none(self, agent_id: str) -> Agent | None:
        found = await await_or_none("agents", agent_id, self.storage.agent(agent_id))
        return found.agent if found else None

    async def find_current_agent(self, agent_id: str) -> Agent | None:
        """Return the agent, or the newest of its successors that is known."""
        agent = await self._agent_or_none(agent_id)
        # An import may hold agents that replace each other in a circle.
        seen: set[str] = set()
        while agent is not None and agent.replaced_by is not None and agent.id not in seen:
            seen.add(agent.id)
            successor = await self._agent_or_none(agent.replaced_by)
            if successor is None:
                break
            agent = successor
        return agent

    # --- repairs --------------------------------------------------------------------------

    async def repair_task(self, task_id: str) -> Change | None:
        return await self._change(lambda: self.storage.task_facts(task_id), decisions.repair_task)

    async def repair_session(self, session_id: str) -> Change | None:
        return await self._change(
            lambda: self.storage.session_facts(session_id), decisions.repair_session
        )

    # --- workflows ------------------------------------------------------------------------

    async def save_workflow(self, saved: WorkflowRevision) -> None:
        data = {"workflowId": saved.id, "revision": saved.revision}
        event = Event(EventType.WORKFLOW_SAVED, saved.saved_at, data=data)
        await self.apply(Change(workflow=saved, events=(event,)))

    async def delete_workflow(self, workflow_id: str) -> None:
        data = {"workflowId": workflow_id}
        event = Event(EventType.WORKFLOW_DELETED, self.clock.now(), data=data)
        await self.apply(Change(deleted_workflow=workflow_id, events=(event,)))

    # --- the one way of writing -----------------------------------------------------------

    async def apply(self, change: Change) -> None:
        await self.storage.apply(change)
        crash_point("apply.committed")
        self.tell(change)
        crash_point("apply.told")
        if change.observation is not None:
            await self.routes.observe(change.observation)

    def tell(self, change: Change) -> None:
        """Tell who listens of a change that is stored."""
        for listener in self._listeners:
            listener(change)

    async def _applied(self, change: Change) -> bool:
        """False when a record changed meanwhile."""
        try:
            await self.apply(change)
        except VersionConflictError:
            return False
        return True

    async def _change(
        self,
        read: Callable[[], Awaitable[F | None]],
        decide: Callable[[F, Context], Change],
        known: F | None = None,
    ) -> Change | None:
        """Read, decide, write; on a version conflict read and decide again, with a limit.

        With `known` facts the first reading is left out, and there is no pause if they were old.
        """
        if known is not None and (change := await self._decided(known, decide)) is not None:
            return change
        for _ in range(_TRIES):
            facts = await read()
            if facts is None:
                return None
            crash_point("decide.facts-read")
            if (change := await self._decided(facts, decide)) is not None:
                return change
            await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE))
        raise _kept_changing()

    async def _decided(self, facts: F, decide: Callable[[F, Context], Change]) -> Change | None:
        """The change, once it is stored; None if the facts were not true any more."""
        change = decide(facts, self._context())
        crash_point("decide.decided")
        return change if change == Change() or await self._applied(change) else None

    async def _in_turn(self, agent_id: str, work: Callable[[], Awaitable[R]]) -> R:
        """Serialise changes of one agent: they would only conflict, and none may be lost."""
        return await self._turns.run(agent_id, work)

    async def _change_task(
        self, task_id: str, decide: Callable[[TaskFacts, Context], Change]
    ) -> Change | None:
        """Change a task in the turn of its agent; None when there is no such task."""
        facts = await self.storage.task_facts(task_id)
        if facts is None:
            return None
        holder = facts.task.agent_id or task_id
        # Facts that were read while others wrote would only conflict.
        known = facts if self._turns.is_free(holder) else None
        return await self._in_turn(
            holder, lambda: self._change(lambda: self.storage.task_facts(task_id), decide, known)
        )

    def _context(self) -> Context:
        return Context(
            now=self.clock.now(),
            wall=self.clock.wall(),
            policy=self.policy,
            forwards=self.routes.known.forwards,
        )


def _as_claimed(claim: Claim, outcome: Outcome) -> TaskFacts | None:
    """Mostly nothing has changed since the claim; where it has, the write finds out.

    An answer is noted at the agent, and so are those of all else that it does meanwhile.
    """
    if isinstance(outcome, Answered) and claim.agent.concurrency > 1:
        return None
    agent = claim.agent if claim.task.agent_id else None
    return TaskFacts(claim.task, claim.session, agent)


def _kept_changing() -> VersionConflictError:
    return VersionConflictError(
        "The record was changed by others again and again; try once more.", retry_after=1
    )
