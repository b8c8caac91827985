"""In-flight messages: the dispatch slots they hold, and the share of them that one host may have.

A message holds a slot while it connects, while it is sent, and while its outcome is written. It
holds none while it waits for room at its host, nor once it is sent directly and only its agent's
answer is awaited: an answer may take as long as the task's deadline allows. AgentKit answers for
a tool as late, so tools have at most half of the slots.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from urllib.parse import urlsplit

from opscore.clock import Clock
from opscore.models import Agent, Claim, Delivery

HOST_PATIENCE = timedelta(seconds=1)
"""The longest wait of a message for room at its host; a host that responds has room sooner."""


class Phase(Enum):
    """Where a message is on its way."""

    QUEUED = auto()
    SENDING = auto()
    AWAITING_ANSWER = auto()
    DECIDED = auto()


class HostLoad:
    """The messages to one host: those being sent, those whose answer is awaited, and a queue."""

    def __init__(self, clock: Clock, slots: int, answers: int) -> None:
        self.messages = 0
        self._clock = clock
        self._slots = slots
        self._answers = answers
        self._sending: dict[InFlightMessage, datetime] = {}
        self._awaited: set[InFlightMessage] = set()
        self._queue: dict[InFlightMessage, asyncio.Event] = {}
        self._was_slow = False

    def try_admit(self, message: "InFlightMessage") -> bool:
        if self._queue or not self._has_room():
            return False
        self._sending[message] = self._clock.now()
        return True

    async def wait_for_room(self, message: "InFlightMessage") -> bool:
        """Wait a moment for the messages before it; False if that cannot help or did not."""
        if len(self._awaited) >= self._answers or self._is_slow():
            return False
        admitted = self._queue[message] = asyncio.Event()
        await self._clock.wait(admitted, self._clock.now() + HOST_PATIENCE)
        self._queue.pop(message, None)
        return admitted.is_set()

    def mark_sent(self, message: "InFlightMessage") -> None:
        self._end_sending(message)
        self._awaited.add(message)
        self._admit_next()

    def leave(self, message: "InFlightMessage") -> None:
        self._end_sending(message)
        self._awaited.discard(message)
        self._queue.pop(message, None)
        self._admit_next()

    def _has_room(self) -> bool:
        sending = len(self._sending)
        return sending < self._slots and sending + len(self._awaited) < self._answers

    def _is_slow(self) -> bool:
        oldest = next(iter(self._sending.values()), None)
        return self._was_slow or (oldest is not None and self._took_long(oldest))

    def _took_long(self, since: datetime) -> bool:
        return self._clock.now() - since >= HOST_PATIENCE

    def _end_sending(self, message: "InFlightMessage") -> None:
        since = self._sending.pop(message, None)
        if since is not None:
            self._was_slow = self._took_long(since)

    def _admit_next(self) -> None:
        while self._queue and self._has_room():
            message = next(iter(self._queue))
            self._sending[message] = self._clock.now()
            self._queue.pop(message).set()


@dataclass(eq=False)
class InFlightMessage:
    """One message under way. It may be aborted until its outcome is known.

    `lease_until` is the last lease that the storage confirmed. `host` is None where the message
    goes through AgentKit. `hung`: it was aborted because AgentKit kept it waiting.
    """

    claim: Claim
    via: Delivery
    probe: bool
    lease_until: datetime
    messages: "InFlightMessages"
    host: HostLoad | None = None
    phase: Phase = Phase.SENDING
    hung: bool = False
    running: asyncio.Task[None] | None = None

    async def admit(self) -> bool:
        """Return whether the message may be sent to its host now, after a moment at most."""
        return await self.messages.admit(self)

    def may_send(self) -> bool:
        """Return whether the lease still holds, by the steady clock."""
        return self.messages.clock.now() < self.lease_until

    def mark_sent(self) -> None:
        """Note that the whole request is out."""
        if self.host is not None and self.phase is Phase.SENDING:
            self.messages.mark_sent(self, self.host)

    def abort(self) -> None:
        if self.phase is not Phase.DECIDED and self.running is not None:
            self.running.cancel()


class InFlightMessages:
    """All messages under way, by task, and how many more there may be."""

    def __init__(
        self, clock: Clock, slots: int, answers: int, on_slot_freed: Callable[[], None]
    ) -> None:
        self.clock = clock
        self.slots = slots
        self.answers = answers
        self.at_agentkit = 0
        self.tools = 0
        self.by_task: dict[str, InFlightMessage] = {}
        self._on_slot_freed = on_slot_freed
        self._counts: Counter[Phase] = Counter()
        self._hosts: dict[str, HostLoad] = {}

    def __len__(self) -> int:
        return self._counts.total()

    @property
    def slots_in_use(self) -> int:
        """Writing an outcome holds a slot too, so that claims wait for a storage that is slow."""
        return self._counts[Phase.SENDING] + self._counts[Phase.DECIDED]

    @property
    def awaited_answers(self) -> int:
        return self._counts[Phase.AWAITING_ANSWER]

    def room(self) -> int:
        """Return how many more messages may be claimed."""
        most_in_use = max(self.slots_in_use, self._counts[Phase.QUEUED])
        return max(0, min(self.slots - most_in_use, self.answers - self.awaited_answers))

    def tool_room(self) -> int:
        """Return how many more tool steps may be claimed."""
        return max(0, (self.slots + 1) // 2 - self.tools)

    def add(self, claim: Claim, via: Delivery, *, probe: bool) -> InFlightMessage:
        host = self._host(claim.agent) if via is Delivery.DIRECT else None
        lease_until = claim.task.lease_until or self.clock.now()
        message = InFlightMessage(claim, via, probe, lease_until, self, host)
        self.by_task[claim.task.id] = message
        self._counts[message.phase] += 1
        self.at_agentkit += via is Delivery.AGENTKIT
        self.tools += claim.task.needs_agentkit
        return message

    async def admit(self, message: InFlightMessage) -> bool:
        if message.host is None or message.host.try_admit(message):
            return True
        self._move(message, Phase.QUEUED)
        self._on_slot_freed()
        is_admitted = await message.host.wait_for_room(message)
        self._move(message, Phase.SENDING)
        return is_admitted

    def mark_sent(self, message: InFlightMessage, host: HostLoad) -> None:
        host.mark_sent(message)
        self._move(message, Phase.AWAITING_ANSWER)
        self._on_slot_freed()

    def decide(self, message: InFlightMessage) -> None:
        """Note that the outcome is known."""
        self._move(message, Phase.DECIDED)
        if message.host is not None:
            message.host.leave(message)

    def remove(self, message: InFlightMessage) -> None:
        self.decide(message)
        self._counts[message.phase] -= 1
        self.at_agentkit -= message.via is Delivery.AGENTKIT
        self.tools -= message.claim.task.needs_agentkit
        if self.by_task.get(message.claim.task.id) is message:
            del self.by_task[message.claim.task.id]
        if message.host is not None:
            self._forget_host(message.claim.agent, message.host)

    def _move(self, message: InFlightMessage, phase: Phase) -> None:
        self._counts[message.phase] -= 1
        self._counts[phase] += 1
        message.phase = phase

    def _host(self, agent: Agent) -> HostLoad | None:
        """Return the load of the agent's host. No host has more than half of the room."""
        name = _host_name(agent)
        if name is None:
            return None
        load = self._hosts.get(name)
        if load is None:
            load = HostLoad(self.clock, (self.slots + 1) // 2, (self.answers + 1) // 2)
            self._hosts[name] = load
        load.messages += 1
        return load

    def _forget_host(self, agent: Agent, load: HostLoad) -> None:
        load.messages -= 1
        if not load.messages:
            del self._hosts[_host_name(agent) or ""]


def _host_name(agent: Agent) -> str | None:
    """Return the host of the agent's contact endpoint, whatever its port."""
    try:
        return urlsplit(agent.contact_endpoint or "").hostname
    except ValueError:
        return None
