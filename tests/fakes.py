"""Fakes that tests pass in: a clock moved by hand, and a courier that answers as it is told."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from weakref import WeakKeyDictionary

from opscore.agentkit_client import SendControl
from opscore.models import Accepted, Agent, Claim, Delivery, Outcome, Task

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class ManualClock:
    """Steady and wall time move together unless `skew` parts them."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start
        self.skew = timedelta()
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []

    def now(self) -> datetime:
        return self._now

    def wall(self) -> datetime:
        return self._now + self.skew

    def agree(self, ahead: timedelta, *, at_once: bool = False) -> None:
        """Only whoever holds it moves it."""

    async def wait(self, event: asyncio.Event, until: datetime | None) -> None:
        if event.is_set() or (until is not None and until <= self._now):
            await asyncio.sleep(0)
            return
        wake = asyncio.Event()
        if until is not None:
            self._sleepers.append((until, wake))
        waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(wake.wait())]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def advance(self, seconds: float) -> None:
        """Move on, and wake whoever waited for that."""
        self._now += timedelta(seconds=seconds)
        due = [wake for until, wake in self._sleepers if until <= self._now]
        self._sleepers = [(until, wake) for until, wake in self._sleepers if until > self._now]
        for wake in due:
            wake.set()


class UnderWay:
    """Calls that wait for a thread or a socket. They belong to a loop, as tests do."""

    _of_loops: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, "UnderWay"]] = (
        WeakKeyDictionary()
    )

    def __init__(self) -> None:
        self._count = 0
        self._over = asyncio.Event()

    @classmethod
    def here(cls) -> "UnderWay":
        return cls._of_loops.setdefault(asyncio.get_running_loop(), cls())

    def __enter__(self) -> None:
        self._count += 1
        self._over.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            self._over.set()

    def stay(self, seconds: float) -> None:
        """Be under way for so long."""
        self.__enter__()
        asyncio.get_running_loop().call_later(seconds, self.__exit__)

    async def over(self) -> bool:
        """Whether there was any to wait for."""
        waits = self._count > 0
        if waits:
            await self._over.wait()
        return waits


async def settle(rounds: int = 20) -> None:
    """Let everything that can go on do so, and wait for what is under way meanwhile.

    It is over when nothing has been under way for so many rounds of the loop.
    """
    calm = 0
    while calm < rounds:
        await asyncio.sleep(0)
        calm = 0 if await UnderWay.here().over() else calm + 1


Answer = Outcome | Callable[[Claim], Outcome]


@dataclass
class FakeCourier:
    """Keeps what it was given. `hold` leaves messages under way until `release` is called."""

    through_agentkit: Answer = field(default_factory=Accepted)
    directly: Answer = field(default_factory=Accepted)
    hold: bool = False
    sent: list[tuple[Delivery, Claim]] = field(default_factory=list)
    cancelled: list[Task] = field(default_factory=list)
    _gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, claim: Claim, _seconds: float, _control: SendControl, /) -> Outcome:
        return await self._answer(Delivery.AGENTKIT, claim, self.through_agentkit)

    async def deliver(self, claim: Claim, _seconds: float, _control: SendControl, /) -> Outcome:
        return await self._answer(Delivery.DIRECT, claim, self.directly)

    async def cancel(self, task: Task, _agent: Agent, _via: Delivery, /) -> None:
        self.cancelled.append(task)

    def release(self) -> None:
        self._gate.set()

    async def _answer(self, via: Delivery, claim: Claim, answer: Answer) -> Outcome:
        self.sent.append((via, claim))
        if self.hold:
            await self._gate.wait()
        return answer(claim) if callable(answer) else answer
