"""The route selector: what was learned of AgentKit, shared with other replicas and kept."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

from opscore.clock import Clock
from opscore.crash_points import crash_point
from opscore.exceptions import StorageError, VersionConflictError
from opscore.models import (
    Agent,
    AgentKitKnowledge,
    Change,
    Delivery,
    Event,
    EventType,
    ForwardObservation,
    MessageType,
    Policy,
    Task,
)
from opscore.storage import Storage
from opscore.workflow.forwarding import after_probe, choose, describe, is_probe_due, observe

logger = logging.getLogger(__name__)

_POLL_INTERVAL = timedelta(seconds=5)
_MAX_ATTEMPTS = 5


class RouteSelector:
    """`known` is what was learned of the AgentKit at one address; probes are of this process."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        policy: Policy,
        agentkit: str,
        apply: Callable[[Change], Awaitable[None]],
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._policy = policy
        self._apply = apply
        self.known = AgentKitKnowledge(agentkit_name(agentkit))

    async def run(self) -> None:
        """Follow what other replicas learn."""
        while True:
            await self._clock.wait(asyncio.Event(), self._clock.now() + _POLL_INTERVAL)
            try:
                await self.load()
            except StorageError as error:
                logger.warning("Reading what was learned of AgentKit failed: %s", error.detail)

    async def load(self) -> None:
        """Take over what is stored, if it is newer."""
        stored = await self._storage.agentkit_knowledge(self.known.agentkit)
        if stored is None or stored.rev <= self.known.rev:
            return
        is_news = stored.forwards is not self.known.forwards
        self.known = stored
        if is_news:
            logger.info("%s", describe(stored, self._policy.mode))

    def choose(self, task: Task, agent: Agent, agentkit_has_room: bool) -> Delivery:
        """Return the channel of a claimed task; a task that tries AgentKit puts the next off."""
        known, now = self.known, self._clock.now()
        via = choose(self._policy.mode, known, task, agent, now, agentkit_has_room)
        is_work = task.message_type is MessageType.WORKFLOW_TASK
        if via is Delivery.AGENTKIT and is_work and is_probe_due(known, now):
            self.known = after_probe(known, now, self._policy.probe_interval)
        return via

    async def observe(self, seen: ForwardObservation) -> None:
        """Learn from a sign of life, and store what is new."""
        for _ in range(_MAX_ATTEMPTS):
            before, now = self.known, self._clock.now()
            after = observe(before, seen, now, self._policy.probe_interval)
            if after == before:
                return
            self.known = after
            crash_point("forwarding.learned")
            try:
                await self._store(before, after, seen.agent_id)
            except VersionConflictError:
                self.known = before
                await self.load()
            except StorageError as error:
                # The change that held the evidence is stored, so the caller must not try again.
                logger.warning("What was learned of AgentKit is not stored: %s", error.detail)
                return
            else:
                return
        logger.warning(
            "What was learned of AgentKit is not stored: other replicas kept changing it."
        )

    async def _store(
        self, before: AgentKitKnowledge, after: AgentKitKnowledge, agent_id: str
    ) -> None:
        stored = replace(after, rev=before.rev + 1)
        data = {"forwards": after.forwards.value, "before": before.forwards.value}
        event = Event(EventType.DELIVERY_LEARNED, self._clock.now(), data=data)
        events = () if after.forwards is before.forwards else (event,)
        logger.warning("%s", describe(after, self._policy.mode), extra={"agent_id": agent_id})
        await self._apply(Change(agentkit=stored, events=events))
        # A probe may have begun meanwhile.
        self.known = replace(self.known, rev=stored.rev)


def agentkit_name(url: str) -> str:
    """Return the address under which AgentKit's knowledge is kept, without any credentials."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    path = parts.path.rstrip("/").removesuffix("/v1")
    return f"{parts.scheme}://{host}{path}" if host else url
