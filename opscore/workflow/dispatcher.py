"""The dispatcher: claims ready tasks, sends them, and hands the outcome to the engine."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from opscore.clock import Clock
from opscore.crash_points import crash_point
from opscore.exceptions import StorageError, VersionConflictError
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
from opscore.workflow.decisions import run_deadline
from opscore.workflow.engine import Engine
from opscore.workflow.forwarding import after_probe, choose, claim_plan, is_probe_due
from opscore.workflow.queue import Gate, Reason
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


class Courier(Protocol):
    """Who carries messages. Every failure comes back as an outcome, none is raised."""

    async def run(self, claim: Claim, seconds: float, /) -> Outcome:
        """Through AgentKit."""

    async def deliver(self, claim: Claim, seconds: float, /) -> Outcome:
        """To the agent itself."""

    async def cancel(self, task: Task, agent: Agent, via: Delivery, /) -> None:
        """Tell the agent to stop, as well as can be."""


@dataclass
class Post:
    """A message under way. Only while it is `sending` may it be cut off."""

    claim: Claim
    via: Delivery
    probe: bool
    sending: bool = True
    running: asyncio.Task[None] | None = None

    def cut_off(self) -> None:
        if self.sending and self.running is not None:
            self.running.cancel()


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
        self.upstream = Upstream(engine.clock, concurrency)
        self._posts: dict[str, Post] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._claiming = asyncio.Lock()
        self._wake = asyncio.Event()
        self._posting = asyncio.Event()
        self._stopping = False
        engine.subscribe(self._on_change)
        self._storage.on_hint(self._wake.set)

    # --- running --------------------------------------------------------------------------

    async def run(self) -> None:
        """Claim and dispatch until `stop`; waits for a wake or for the next moment of interest."""
        while not self._stopping:
            self._wake.clear()
            try:
                async with self._claiming:
                    crash_point("claim.before")
                    claims = await self._claim(self._concurrency)
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
            posts = list(self._posts.items())
            parts = [posts[at : at + _LEASES] for at in range(0, len(posts), _LEASES)]
            kept = [await self._keep(dict(part)) for part in parts]
            pause = LEASE / 3 if all(kept) else _STORAGE_PAUSE

    async def _keep(self, posts: dict[str, Post]) -> bool:
        """Whether the storage has said which of them are still ours."""
        try:
            crash_point("lease.before-renewal")
            lease_until = self._clock.now() + LEASE
            held = await self._storage.renew(self._owner, tuple(posts), lease_until)
        except StorageError as error:
            logger.warning("Leases could not be prolonged: %s", error.detail)
            return False
        crash_point("lease.renewed")
        for task_id, post in posts.items():
            if task_id not in held:
                post.cut_off()
        return True

    async def stop(self, grace: float) -> None:
        """No more claims; what is under way gets `grace` seconds, the rest goes back."""
        self._stopping = True
        self._wake.set()
        # What is being claimed at this moment is under way a moment later.
        async with self._claiming:
            running = [post.running for post in self._posts.values() if post.running]
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
        spares_direct = self._engine.policy.mode is not DispatchMode.AGENTKIT
        gate = self.upstream.gate(self._at_agentkit(), spares_direct)
        if gate is not None:
            return gate
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

    # --- claiming -------------------------------------------------------------------------

    async def _claim(self, limit: int) -> Sequence[Claim]:
        room = min(limit, self._concurrency - len(self._posts))
        agentkit_room = self.upstream.room(self._at_agentkit())
        claims: list[Claim] = []
        for scope, most in claim_plan(self._engine.policy.mode, room, agentkit_room):
            wanted = min(most, room - len(claims))
            if not wanted:
                break
            now = self._clock.now()
            try:
                found = await self._storage.claim(self._owner, now, now + LEASE, wanted, scope)
            except StorageError:
                if not claims:
                    raise
                # What is claimed already must be sent.
                break
            claims += found
            if len(found) < wanted:
                # The next scope is within this one.
                break
        if claims:
            crash_point("claim.taken")
        return claims

    def _at_agentkit(self) -> int:
        return sum(post.via is Delivery.AGENTKIT for post in self._posts.values())

    def _next_look(self) -> datetime | None:
        moments = [self.upstream.open_until]
        if self._storage.durable:
            moments.append(self._clock.now() + _LOOK_AGAIN)
        return min((moment for moment in moments if moment), default=None)

    # --- sending --------------------------------------------------------------------------

    def _start(self, claim: Claim) -> asyncio.Task[None]:
        superseded = self._posts.get(claim.task.id)
        if superseded is not None:
            superseded.cut_off()
        via = self._route(claim)
        is_agentkit = via is Delivery.AGENTKIT
        post = Post(claim, via, probe=is_agentkit and self.upstream.is_on_trial)
        self._posts[claim.task.id] = post
        post.running = asyncio.create_task(self._dispatch(post), name=f"dispatch {claim.task.id}")
        post.running.add_done_callback(lambda done: self._finished(post, done))
        self._posting.set()
        return post.running

    def _finished(self, post: Post, done: asyncio.Task[None]) -> None:
        task_id = post.claim.task.id
        if self._posts.get(task_id) is post:
            del self._posts[task_id]
        if not self._posts:
            self._posting.clear()
        self._wake.set()
        if not done.cancelled() and (error := done.exception()) is not None:
            # The lease runs out and the task is taken back; nothing else is harmed.
            logger.error("A dispatch broke off.", exc_info=error, extra={"task_id": task_id})

    async def dispatch_task(self, claim: Claim) -> None:
        """Send one claimed task and tell the engine how that went."""
        await asyncio.wait([self._start(claim)])

    async def _dispatch(self, post: Post) -> None:
        task = post.claim.task
        self._tracer.start_trace(
            task.id,
            "dispatch",
            attempt=task.attempt,
            agentId=task.agent_id,
            via=post.via.value,
        )
        crash_point("post.before")
        outcome = await self._send_or_break_off(post)
        crash_point("post.answered")
        post.sending = False
        status = outcome.code.value if isinstance(outcome, Failure) else "ok"
        self._tracer.end_trace(task.id, status)
        await self._record(post, outcome)

    async def _send_or_break_off(self, post: Post) -> Outcome:
        try:
            outcome = await self._send(post.claim, post.via)
        except asyncio.CancelledError:
            message = "The message was broken off while it was under way."
            return Failure(FailureCode.OUTCOME_UNKNOWN, message, free=True)
        if post.via is Delivery.AGENTKIT:
            self.upstream.note(post.claim.task, outcome)
        return outcome

    async def _record(self, post: Post, outcome: Outcome) -> None:
        """Write the outcome, whatever becomes of the one who waits for that."""
        write = asyncio.create_task(self._write(post, outcome))
        self._errands.add(write)
        write.add_done_callback(self._errands.discard)
        await asyncio.shield(write)

    async def _write(self, post: Post, outcome: Outcome) -> None:
        blamed = isinstance(outcome, Failure) and blames(post.claim.task, outcome)
        probe = post.probe and blamed
        until = self._clock.now() + _WRITE_PATIENCE
        while self._clock.now() < until:
            try:
                await self._engine.task_outcome(post.claim, post.via, outcome, probe)
            except (StorageError, VersionConflictError) as error:
                logger.warning("An outcome could not be written: %s", error.detail)
                await self._pause(_STORAGE_PAUSE)
            else:
                crash_point("post.recorded")
                return
        logger.error(
            "An outcome was given up; the task is dispatched again.",
            extra={"task_id": post.claim.task.id},
        )

    async def _pause(self, duration: timedelta) -> None:
        await self._clock.wait(asyncio.Event(), self._clock.now() + duration)

    def _route(self, claim: Claim) -> Delivery:
        known, now = self._engine.agentkit, self._clock.now()
        has_room = self.upstream.room(self._at_agentkit()) > 0
        via = choose(self._engine.policy.mode, known, claim.task, claim.agent, now, has_room)
        tests_forwards = claim.task.message_type is MessageType.WORKFLOW_TASK
        if via is Delivery.AGENTKIT and tests_forwards and is_probe_due(known, now):
            every = self._engine.policy.probe_interval
            self._engine.agentkit = after_probe(known, now, every)
        return via

    async def _send(self, claim: Claim, via: Delivery) -> Outcome:
        step = claim.session.definition.task(claim.task.step_id)
        deadline = run_deadline(claim.task, step, self._engine.policy)
        claim = replace(claim, task=replace(claim.task, run_deadline=deadline))
        remaining = max(0.001, (deadline - self._clock.now()).total_seconds())
        if via is Delivery.DIRECT:
            return await self._courier.deliver(claim, remaining)
        if claim.task.message_type is MessageType.TOOL_INVOCATION:
            return await self._courier.run(claim, remaining)
        return await self._courier.run(claim, min(remaining, self._agentkit_timeout))

    # --- listening ------------------------------------------------------------------------

    def _on_change(self, change: Change) -> None:
        if change.may_ready:
            self._wake.set()
        for task in change.abandoned:
            post = self._posts.get(task.id)
            if post is not None:
                post.cut_off()
            via = post.via if post is not None else task.via
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
            crash_point("abandon.before")
            await self._courier.cancel(task, candidate.agent, via)
            crash_point("abandon.told")
