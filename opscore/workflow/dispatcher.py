"""The dispatcher: claims ready tasks, sends them, and hands the outcome to the engine."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from opscore.agentkit_client import SendControl
from opscore.clock import Clock
from opscore.crash_points import crash_point
from opscore.exceptions import StorageError, VersionConflictError
from opscore.models import (
    Agent,
    Change,
    Claim,
    ClaimScope,
    Delivery,
    DispatchMode,
    Failure,
    FailureCode,
    Outcome,
    Task,
)
from opscore.storage import Storage
from opscore.tracing import Tracer
from opscore.workflow.decisions import run_deadline
from opscore.workflow.engine import Engine
from opscore.workflow.forwarding import claim_plan
from opscore.workflow.in_flight import InFlightMessage, InFlightMessages
from opscore.workflow.queue import Gate, Reason
from opscore.workflow.tool_agent import find_tool_agent
from opscore.workflow.upstream import Upstream, blames

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
# So many are prolonged at once: a part of the time that one write may take, on a slow day too.
_LEASES = 500
_STORAGE_PAUSE = timedelta(seconds=1)
# Work that another replica made is found by looking; a wake comes from this process only.
_LOOK_AGAIN = timedelta(seconds=5)
# The work is done and nobody else knows what came of it, so a storage may be away for long.
_WRITE_PATIENCE = timedelta(minutes=10)
_LAST_WORDS = 2.0
_BROKEN_OFF = Failure(
    FailureCode.OUTCOME_UNKNOWN, "The message was broken off while it was under way.", free=True
)
_HUNG = Failure(FailureCode.OUTCOME_UNKNOWN, "AgentKit is in trouble and did not answer in time.")
# AgentKit answers before it delivers: so long without an answer is trouble.
_HANGS_AFTER = timedelta(seconds=5)
_NO_AGENT_KNOWN = Failure(
    FailureCode.AGENT_UNKNOWN,
    "AgentKit runs a tool in the name of an agent, and no agent is registered; register one.",
)
_HOST_BUSY = Failure(
    FailureCode.HOST_BUSY,
    "The agent's host has as many messages under way as one host may have; the task waits on.",
    free=True,
)


class Courier(Protocol):
    """Who carries messages. Every failure comes back as an outcome, none is raised."""

    async def run(self, claim: Claim, seconds: float, control: SendControl, /) -> Outcome:
        """Through AgentKit."""

    async def deliver(self, claim: Claim, seconds: float, control: SendControl, /) -> Outcome:
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
        awaited_answers: int = 5000,
    ) -> None:
        self._engine = engine
        self._storage: Storage = engine.storage
        self._clock: Clock = engine.clock
        self._courier = courier
        self._tracer = tracer
        self._owner = owner
        self._agentkit_timeout = agentkit_timeout
        self.upstream = Upstream(engine.clock, concurrency)
        self._errands: set[asyncio.Task[None]] = set()
        self._claiming = asyncio.Lock()
        self._wake = asyncio.Event()
        self._posting = asyncio.Event()
        self._stopping = False
        self._messages = InFlightMessages(
            engine.clock, concurrency, awaited_answers, on_slot_freed=self._wake.set
        )
        engine.subscribe(self._on_change)
        self._storage.on_hint(self._wake.set)

    # --- running --------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and dispatch until `stop`; waits for a wake or for the next moment of interest."""
        while not self._stopping:
            self._wake.clear()
            try:
                self._abort_hanging_forwards()
                async with self._claiming:
                    crash_point("claim.before")
                    claims = await self._claim(self._messages.slots)
                    for claim in claims:
                        self._start(claim)
            except StorageError as error:
                logger.warning("Claiming failed: %s", error.detail)
                await self._clock.wait(self._wake, self._clock.now() + _STORAGE_PAUSE)
                continue
            if not claims:
                await self._clock.wait(self._wake, self._next_look())

    async def keep_leases(self) -> None:
        """Prolong the leases of messages that are under way; stop what is no longer ours."""
        pause = LEASE / 3
        while True:
            await self._posting.wait()
            await self._pause(pause)
            messages = list(self._messages.by_task.items())
            parts = [messages[at : at + _LEASES] for at in range(0, len(messages), _LEASES)]
            kept = [await self._keep(dict(part)) for part in parts]
            pause = LEASE / 3 if all(kept) else _STORAGE_PAUSE

    async def _keep(self, messages: dict[str, InFlightMessage]) -> bool:
        """Whether the storage has said which of them are still ours."""
        try:
            crash_point("lease.before-renewal")
            lease_until = self._clock.now() + LEASE
            held = await self._storage.renew(self._owner, tuple(messages), lease_until)
        except StorageError as error:
            logger.warning("Lease renewal failed: %s", error.detail)
            return False
        crash_point("lease.renewed")
        for task_id, message in messages.items():
            if task_id in held:
                message.lease_until = lease_until
            else:
                message.abort()
        return True

    async def stop(self, grace: float) -> None:
        """No more claims; what is under way gets `grace` seconds, the rest goes back."""
        self._stopping = True
        self._wake.set()
        # What is being claimed at this moment is under way a moment later.
        async with self._claiming:
            messages = self._messages.by_task.values()
            running = [message.running for message in messages if message.running]
        crash_point("drain.begun")
        if running:
            _, late = await asyncio.wait(running, timeout=grace)
            for post in late:
                post.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        crash_point("drain.posts-ended")
        if self._errands:
            await asyncio.wait(self._errands, timeout=_LAST_WORDS)

    async def process_next_task(self) -> bool:
        """Claim one task and see its dispatch through; False when none is ready."""
        claims = await self._claim(1)
        if claims:
            await asyncio.wait([self._start(claim) for claim in claims])
        return bool(claims)

    def gate(self) -> Gate | None:
        """What keeps every task waiting, if anything does."""
        if self._stopping:
            return Gate(Reason.STOPPING, "The service is shutting down.")
        goes_direct = self._engine.policy.mode is not DispatchMode.AGENTKIT
        still_open = ClaimScope.DIRECT if goes_direct else None
        gate = self.upstream.gate(self._messages.at_agentkit, still_open)
        if gate is not None:
            return gate
        if not self._messages.room():
            return Gate(Reason.DISPATCH_LIMIT, self._limit_reached())
        if not self._messages.tool_room():
            return Gate(Reason.DISPATCH_LIMIT, self._tools_limit(), open=ClaimScope.WITHOUT_TOOLS)
        return None

    def _tools_limit(self) -> str:
        return (
            f"{self._messages.tools} tools run at AgentKit, as many as half of "
            "OPSCORE_DISPATCH_CONCURRENCY allows."
        )

    def _limit_reached(self) -> str:
        if self._messages.awaited_answers >= self._messages.answers:
            return (
                f"The answers of {self._messages.awaited_answers} messages are awaited, as many as "
                "OPSCORE_AWAITED_ANSWERS allows."
            )
        return (
            f"{self._messages.slots} messages are under way, as many as "
            "OPSCORE_DISPATCH_CONCURRENCY allows."
        )

    @property
    def under_way(self) -> int:
        return len(self._messages)

    # --- claiming -------------------------------------------------------------------------

    async def _claim(self, limit: int) -> Sequence[Claim]:
        messages = self._messages
        room = min(limit, messages.room())
        agentkit_room = self.upstream.room(messages.at_agentkit)
        mode = self._engine.policy.mode
        claims: list[Claim] = []
        for scope, most in claim_plan(mode, room, agentkit_room, messages.tool_room()):
            wanted = most - len(claims)
            if not wanted:
                continue
            now = self._clock.now()
            try:
                found = await self._storage.claim(self._owner, now, now + LEASE, wanted, scope)
            except StorageError:
                if not claims:
                    raise
                # The tasks claimed so far must be sent.
                break
            claims += found
            if len(found) < wanted:
                # The next scope is within this one.
                break
        if claims:
            crash_point("claim.taken")
        return claims

    def _next_look(self) -> datetime | None:
        moments = [self.upstream.open_until]
        if self.upstream.is_on_trial:
            moments += [_hangs_from(message.claim) for message in self._spared_forwards()]
        if self._storage.durable:
            moments.append(self._clock.now() + _LOOK_AGAIN)
        return min((moment for moment in moments if moment), default=None)

    def _abort_hanging_forwards(self) -> None:
        """While AgentKit is in trouble, tasks that have another way do not wait for it."""
        if not self.upstream.is_on_trial:
            return
        for message in self._spared_forwards():
            if self._hangs(message.claim):
                message.hung = True
                message.abort()

    def _spared_forwards(self) -> list[InFlightMessage]:
        """Messages on their way to AgentKit whose tasks can go straight to their agents."""
        return [
            message
            for message in self._messages.by_task.values()
            if message.via is Delivery.AGENTKIT
            and not message.hung
            and self._has_other_way(message.claim)
        ]

    def _has_other_way(self, claim: Claim) -> bool:
        is_auto = self._engine.policy.mode is DispatchMode.AUTO
        return is_auto and ClaimScope.DIRECT.permits(claim.task, claim.agent)

    def _hangs(self, claim: Claim) -> bool:
        return self._has_other_way(claim) and self._clock.now() >= _hangs_from(claim)

    # --- sending --------------------------------------------------------------------------

    def _start(self, claim: Claim) -> asyncio.Task[None]:
        superseded = self._messages.by_task.get(claim.task.id)
        if superseded is not None:
            superseded.abort()
        has_room = self.upstream.room(self._messages.at_agentkit) > 0
        via = self._engine.routes.choose(claim.task, claim.agent, has_room)
        is_agentkit = via is Delivery.AGENTKIT
        message = self._messages.add(claim, via, probe=is_agentkit and self.upstream.is_on_trial)
        work = self._dispatch(message)
        message.running = asyncio.create_task(work, name=f"dispatch {claim.task.id}")
        message.running.add_done_callback(lambda done: self._finished(message, done))
        self._posting.set()
        return message.running

    def _finished(self, message: InFlightMessage, done: asyncio.Task[None]) -> None:
        task_id = message.claim.task.id
        self._messages.remove(message)
        if not self._messages:
            self._posting.clear()
        self._wake.set()
        if not done.cancelled() and (error := done.exception()) is not None:
            # The lease runs out and the task is taken back; nothing else is harmed.
            logger.error("A dispatch broke off.", exc_info=error, extra={"task_id": task_id})

    async def dispatch_task(self, claim: Claim) -> None:
        """Send one claimed task and tell the engine how that went."""
        await asyncio.wait([self._start(claim)])

    async def _dispatch(self, message: InFlightMessage) -> None:
        task = message.claim.task
        self._tracer.start_trace(
            task.id,
            "dispatch",
            attempt=task.attempt,
            agentId=task.agent_id,
            via=message.via.value,
        )
        crash_point("post.before")
        outcome = await self._send_or_break_off(message)
        crash_point("post.answered")
        self._messages.decide(message)
        status = outcome.code.value if isinstance(outcome, Failure) else "ok"
        self._tracer.end_trace(task.id, status)
        await self._record(message, outcome)

    async def _send_or_break_off(self, message: InFlightMessage) -> Outcome:
        try:
            if not await message.admit():
                return _HOST_BUSY
            claim = await self._addressed(message.claim)
            if claim is None:
                return _NO_AGENT_KNOWN
            outcome = await self._send(message, claim)
        except asyncio.CancelledError:
            if not message.hung:
                return _BROKEN_OFF
            outcome = _HUNG
        except StorageError as error:
            return Failure(FailureCode.NOT_SENT, error.detail, free=True)
        if message.via is Delivery.AGENTKIT:
            self.upstream.note(message.claim.task, outcome, self._hangs(message.claim))
        return outcome

    async def _record(self, message: InFlightMessage, outcome: Outcome) -> None:
        """Write the outcome, whatever becomes of the one who waits for that."""
        write = asyncio.create_task(self._write(message, outcome))
        self._errands.add(write)
        write.add_done_callback(self._errands.discard)
        await asyncio.shield(write)

    async def _write(self, message: InFlightMessage, outcome: Outcome) -> None:
        blamed = isinstance(outcome, Failure) and blames(message.claim.task, outcome)
        probe = message.probe and blamed
        until = self._clock.now() + _WRITE_PATIENCE
        while self._clock.now() < until:
            try:
                await self._engine.task_outcome(message.claim, message.via, outcome, probe)
            except (StorageError, VersionConflictError) as error:
                logger.warning("An outcome could not be written: %s", error.detail)
                await self._pause(_STORAGE_PAUSE)
            else:
                crash_point("post.recorded")
                return
        logger.error(
            "An outcome was given up; the task is dispatched again.",
            extra={"task_id": message.claim.task.id},
        )

    async def _pause(self, duration: timedelta) -> None:
        await self._clock.wait(asyncio.Event(), self._clock.now() + duration)

    async def _send(self, message: InFlightMessage, claim: Claim) -> Outcome:
        step = claim.session.definition.task(claim.task.step_id)
        deadline = run_deadline(claim.task, step, self._engine.policy)
        claim = replace(claim, task=replace(claim.task, run_deadline=deadline))
        remaining = max(0.001, (deadline - self._clock.now()).total_seconds())
        if message.via is Delivery.DIRECT:
            return await self._courier.deliver(claim, remaining, message)
        if self._has_other_way(claim):
            # So that a direct delivery still comes within the deadline.
            remaining /= 2
        if not claim.task.needs_agentkit:
            remaining = min(remaining, self._agentkit_timeout)
        return await self._courier.run(claim, remaining, message)

    async def _addressed(self, claim: Claim) -> Claim | None:
        """Return the claim with an agent for AgentKit's `/run`; None if no agent is known."""
        if not claim.task.needs_agentkit:
            return claim
        agent = await find_tool_agent(self._engine, claim)
        return replace(claim, agent=agent) if agent is not None else None

    # --- listening ------------------------------------------------------------------------

    def _on_change(self, change: Change) -> None:
        if change.may_ready:
            self._wake.set()
        for task in change.abandoned:
            message = self._messages.by_task.get(task.id)
            if message is not None:
                message.abort()
            via = message.via if message is not None else task.via
            errand = asyncio.create_task(self._tell_to_stop(task, via), name=f"cancel {task.id}")
            self._errands.add(errand)
            errand.add_done_callback(self._errands.discard)

    async def _tell_to_stop(self, task: Task, via: Delivery | None) -> None:
        try:
            candidate = await self._storage.agent(task.agent_id or "")
        except StorageError as error:
            logger.warning("An agent could not be told to stop: %s", error.detail)
            return
        if candidate is not None:
            crash_point("abandon.before")
            via = via or self._way_of_another_replica(candidate.agent)
            await self._courier.cancel(task, candidate.agent, via)
            crash_point("abandon.told")

    def _way_of_another_replica(self, agent: Agent) -> Delivery:
        """Return the channel to an agent whose answer another replica awaits.

        AgentKit answers at once, so it is most likely the agent's own answer.
        """
        is_direct = self._engine.policy.mode is not DispatchMode.AGENTKIT
        has_endpoint = agent.contact_endpoint is not None
        return Delivery.DIRECT if is_direct and has_endpoint else Delivery.AGENTKIT


def _hangs_from(claim: Claim) -> datetime:
    return (claim.task.dispatched_at or claim.task.waiting_since) + _HANGS_AFTER
