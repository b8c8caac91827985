"""The dispatcher: claims ready tasks, sends them, and hands the outcome to the engine."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from opscore.clock import Clock
from opscore.exceptions import StorageError
from opscore.models import (
    Agent,
    Change,
    Claim,
    Delivery,
    DispatchMode,
    Failure,
    FailureCode,
    MessageType,
    Outcome,
    Task,
)
from opscore.storage import Storage
from opscore.tracing import Tracer
from opscore.workflow.breaker import Breaker
from opscore.workflow.decisions import run_deadline
from opscore.workflow.engine import Engine
from opscore.workflow.forwarding import Forwards, after_probe, is_probe_due, route
from opscore.workflow.queue import Gate, Reason

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
_STORAGE_PAUSE = timedelta(seconds=1)

_AGENTKIT_AT_FAULT = frozenset(
    {
        FailureCode.UNREACHABLE,
        FailureCode.OUTCOME_UNKNOWN,
        FailureCode.UPSTREAM_ERROR,
        FailureCode.UNAUTHORIZED,
        FailureCode.TLS,
    }
)


class Courier(Protocol):
    """Who carries messages. Every failure comes back as an outcome, none is raised."""

    async def run(self, claim: Claim, seconds: float, /) -> Outcome:
        """Through AgentKit."""

    async def deliver(self, claim: Claim, seconds: float, /) -> Outcome:
        """To the agent itself."""

    async def cancel(self, task: Task, agent: Agent, via: Delivery, /) -> None:
        """Tell the agent to stop, as well as can be."""


class Dispatcher:
    def __init__(
        self,
        engine: Engine,
        courier: Courier,
        tracer: Tracer,
        owner: str,
        concurrency: int,
        agentkit_timeout: float,
    ) -> None:
        self._engine = engine
        self._storage: Storage = engine.storage
        self._clock: Clock = engine.clock
        self._courier = courier
        self._tracer = tracer
        self._owner = owner
        self._concurrency = concurrency
        self._agentkit_timeout = agentkit_timeout
        self._breaker = Breaker()
        self._breaker_opened_at: datetime | None = None
        self._posts: dict[str, asyncio.Task[None]] = {}
        self._routes: dict[str, Delivery] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._claiming = asyncio.Lock()
        self._wake = asyncio.Event()
        self._posting = asyncio.Event()
        self._stopping = False
        engine.subscribe(self._on_change)

    # --- running --------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and dispatch until `stop`; waits for a wake or for the next moment of interest."""
        while not self._stopping:
            self._wake.clear()
            try:
                async with self._claiming:
                    claims = await self._claim(self._concurrency)
                    for claim in claims:
                        self._start(claim)
            except StorageError as error:
                logger.warning("Claiming failed: %s", error.detail)
                await self._clock.wait(self._wake, self._clock.now() + _STORAGE_PAUSE)
                continue
            if not claims:
                await self._clock.wait(self._wake, self._breaker_reopens())

    async def keep_leases(self) -> None:
        """Prolong the leases of messages that are under way."""
        never = asyncio.Event()
        while True:
            await self._posting.wait()
            await self._clock.wait(never, self._clock.now() + LEASE / 3)
            try:
                lease_until = self._clock.now() + LEASE
                await self._storage.renew(self._owner, tuple(self._posts), lease_until)
            except StorageError as error:
                logger.warning("Leases could not be prolonged: %s", error.detail)

    async def stop(self, grace: float) -> None:
        """No more claims; what is under way gets `grace` seconds, the rest goes back."""
        self._stopping = True
        self._wake.set()
        # What is being claimed at this moment is under way a moment later.
        async with self._claiming:
            under_way = (*self._posts.values(), *self._errands)
        if not under_way:
            return
        _, late = await asyncio.wait(under_way, timeout=grace)
        for post in late:
            post.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def process_next_task(self) -> bool:
        """Claim one task and see its dispatch through; False when none is ready."""
        claims = await self._claim(1)
        if claims:
            await asyncio.wait([self._start(claim) for claim in claims])
        return bool(claims)

    def gate(self) -> Gate | None:
        """What keeps every task waiting, if anything does."""
        now = self._clock.now()
        if self._stopping:
            return Gate(Reason.STOPPING, "The service is shutting down.")
        if self._breaker.is_open(now) and self._needs_agentkit(now):
            return Gate(
                Reason.BREAKER_OPEN,
                "AgentKit failed several times in a row; it is tried again shortly.",
                self._breaker_opened_at,
                self._breaker.open_until,
                spares_direct=self._engine.policy.mode is DispatchMode.AUTO,
            )
        if len(self._posts) >= self._concurrency:
            return Gate(
                Reason.DISPATCH_LIMIT,
                f"{len(self._posts)} messages are under way, as many as "
                "OPSCORE_DISPATCH_CONCURRENCY allows.",
            )
        return None

    @property
    def under_way(self) -> int:
        return len(self._posts)

    @property
    def breaker(self) -> Breaker:
        return self._breaker

    # --- claiming -------------------------------------------------------------------------

    async def _claim(self, limit: int) -> Sequence[Claim]:
        now = self._clock.now()
        room = min(limit, self._concurrency - len(self._posts))
        only_direct = False
        if self._needs_agentkit(now):
            allowed = self._breaker.room(now, self._at_agentkit(), self._concurrency)
            only_direct = allowed == 0 and self._engine.policy.mode is DispatchMode.AUTO
            room = room if only_direct else min(room, allowed)
        if room <= 0:
            return ()
        return await self._storage.claim(self._owner, now, now + LEASE, room, only_direct)

    def _at_agentkit(self) -> int:
        """How many messages are under way to AgentKit, or perhaps are: an agent may be slow."""
        return len(self._posts) - sum(via is Delivery.DIRECT for via in self._routes.values())

    def _needs_agentkit(self, now: datetime) -> bool:
        """Whether tasks that have a choice would go through AgentKit now."""
        mode, known = self._engine.policy.mode, self._engine.forwarding
        if mode is DispatchMode.DIRECT:
            return False
        if mode is DispatchMode.AGENTKIT or known.state is not Forwards.DISPROVED:
            return True
        return is_probe_due(known, now)

    def _breaker_reopens(self) -> datetime | None:
        until = self._breaker.open_until
        return until if until is not None and until > self._clock.now() else None

    # --- sending --------------------------------------------------------------------------

    def _start(self, claim: Claim) -> asyncio.Task[None]:
        superseded = self._posts.get(claim.task.id)
        if superseded is not None:
            superseded.cancel()
        post = asyncio.create_task(self.dispatch_task(claim), name=f"dispatch {claim.task.id}")
        self._posts[claim.task.id] = post
        self._posting.set()
        post.add_done_callback(lambda done: self._finished(claim.task.id, done))
        return post

    def _finished(self, task_id: str, post: asyncio.Task[None]) -> None:
        if self._posts.get(task_id) is post:
            del self._posts[task_id]
            self._routes.pop(task_id, None)
        if not self._posts:
            self._posting.clear()
        self._wake.set()
        if not post.cancelled() and (error := post.exception()) is not None:
            # The lease runs out and the task is taken back; nothing else is harmed.
            logger.error("A dispatch broke off.", exc_info=error, extra={"task_id": task_id})

    async def dispatch_task(self, claim: Claim) -> None:
        """Send one claimed task and tell the engine how that went."""
        now = self._clock.now()
        via = self._routes[claim.task.id] = self._route(claim, now)
        probe = via is Delivery.AGENTKIT and self._breaker.ramp is not None
        self._start_trace(claim, via)
        try:
            outcome = await self._send(claim, via, now)
        except asyncio.CancelledError:
            message = "The service stopped while the message was under way."
            failure = Failure(FailureCode.OUTCOME_UNKNOWN, message, free=True)
            self._tracer.end_trace(claim.task.id, failure.code.value)
            await self._engine.task_outcome(claim, via, failure)
            raise
        status = outcome.code.value if isinstance(outcome, Failure) else "ok"
        self._tracer.end_trace(claim.task.id, status)
        if via is Delivery.AGENTKIT:
            self._note(claim.task, outcome)
        await self._engine.task_outcome(claim, via, outcome, probe)

    def _start_trace(self, claim: Claim, via: Delivery) -> None:
        task = claim.task
        self._tracer.start_trace(
            task.id, "dispatch", attempt=task.attempt, agentId=task.agent_id, via=via.value
        )

    def _route(self, claim: Claim, now: datetime) -> Delivery:
        known = self._engine.forwarding
        via = route(self._engine.policy.mode, known, claim.task, claim.agent, now)
        if via is Delivery.AGENTKIT and is_probe_due(known, now):
            every = self._engine.policy.probe_interval
            self._engine.forwarding = after_probe(known, now, every)
        return via

    async def _send(self, claim: Claim, via: Delivery, now: datetime) -> Outcome:
        step = claim.session.definition.task(claim.task.step_id)
        deadline = run_deadline(claim.task, step, self._engine.policy)
        claim = replace(claim, task=replace(claim.task, run_deadline=deadline))
        remaining = max(0.001, (deadline - now).total_seconds())
        if via is Delivery.DIRECT:
            return await self._courier.deliver(claim, remaining)
        if claim.task.message_type is MessageType.TOOL_INVOCATION:
            return await self._courier.run(claim, remaining)
        return await self._courier.run(claim, min(remaining, self._agentkit_timeout))

    def _note(self, task: Task, outcome: Outcome) -> None:
        """Keep the breaker; a tool that fails is not AgentKit's fault."""
        if not isinstance(outcome, Failure) or outcome.code not in _AGENTKIT_AT_FAULT:
            self._trust()
            return
        is_tool = task.message_type is MessageType.TOOL_INVOCATION
        if not (is_tool and outcome.code is FailureCode.UPSTREAM_ERROR):
            self._distrust(outcome)

    def _trust(self) -> None:
        self._breaker = self._breaker.succeeded(self._concurrency)
        if self._breaker.ramp is None:
            self._breaker_opened_at = None

    def _distrust(self, failure: Failure) -> None:
        now = self._clock.now()
        was_open = self._breaker.is_open(now)
        at_once = failure.code is FailureCode.UNAUTHORIZED
        self._breaker = self._breaker.failed(now, at_once)
        if self._breaker.is_open(now) and not was_open:
            self._breaker_opened_at = self._breaker_opened_at or now
            logger.warning("AgentKit is given a rest: %s", failure.message)

    # --- listening ------------------------------------------------------------------------

    def _on_change(self, change: Change) -> None:
        if change.may_ready:
            self._wake.set()
        for task in change.abandoned:
            post = self._posts.get(task.id)
            if post is not None:
                post.cancel()
            via = self._routes.get(task.id, task.via)
            errand = asyncio.create_task(self._tell_to_stop(task, via), name=f"cancel {task.id}")
            self._errands.add(errand)
            errand.add_done_callback(self._errands.discard)

    async def _tell_to_stop(self, task: Task, via: Delivery | None) -> None:
        try:
            candidate = await self._storage.agent(task.agent_id or "")
        except StorageError as error:
            logger.warning("An agent could not be told to stop: %s", error.detail)
            return
        if candidate is not None and via is not None:
            await self._courier.cancel(task, candidate.agent, via)
