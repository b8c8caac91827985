"""The timekeeper: waits for whatever is due next and lets it be decided."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from opscore.crash_points import crash_point
from opscore.exceptions import StorageError, VersionConflictError
from opscore.models import Change
from opscore.workflow.engine import Engine

logger = logging.getLogger(__name__)

_BATCH = 200
_PAUSE = timedelta(seconds=1)
_PRECEDENCE = timedelta(seconds=2)
# What is due and yet changes nothing (someone else was quicker) must not become a tight loop.
_SHORTEST_WAIT = timedelta(milliseconds=10)
# Claims, and other processes on the same storage, set timers without a word.
_LONGEST_WAIT = timedelta(seconds=2)


class Timekeeper:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._wake = asyncio.Event()
        engine.subscribe(self._on_change)

    async def run(self) -> None:
        while True:
            self._wake.clear()
            try:
                made = await self.process_due()
                until = await self._next_look(bool(made))
            except VersionConflictError as error:
                logger.warning("Timers are put off: %s", error.detail)
                until = self._clock.now() + _PAUSE
            except StorageError as error:
                logger.warning("Timers are put off: %s", error.detail)
                await self._let_holders_go_first()
                continue
            await self._clock.wait(self._wake, until)

    async def _let_holders_go_first(self) -> None:
        """Wait for the storage, and a moment longer.

        Leases have run out meanwhile that their holders could not prolong, and answers have come
        that they could not write. Taking their tasks back at once would have work done again.
        """
        await self._pause(_PAUSE)
        while not await self._answers():
            await self._pause(_PAUSE)
        await self._pause(_PRECEDENCE)

    async def _answers(self) -> bool:
        try:
            await self._engine.storage.ping()
        except StorageError:
            return False
        return True

    async def _pause(self, duration: timedelta) -> None:
        await self._clock.wait(asyncio.Event(), self._clock.now() + duration)

    async def _next_look(self, made_changes: bool) -> datetime:
        now = self._clock.now()
        due = await self._engine.storage.next_due() or now + _LONGEST_WAIT
        soonest = now if made_changes else now + _SHORTEST_WAIT
        return min(max(due, soonest), now + _LONGEST_WAIT)

    async def process_due(self) -> int:
        """Decide everything that is due now; how many changes that made."""
        total = 0
        while due := await self._engine.storage.due(self._clock.now(), _BATCH):
            crash_point("timer.found")
            changes = [await self._decide(self._engine.task_due, one) for one in due.tasks]
            changes += [await self._decide(self._engine.session_due, one) for one in due.sessions]
            changes += [await self._decide(self._engine.agent_due, one) for one in due.agents]
            made = sum(change is not None and change != Change() for change in changes)
            if not made:
                break
            total += made
            await asyncio.sleep(0)
        return total

    async def _decide(
        self, decide: Callable[[str], Awaitable[Change | None]], record_id: str
    ) -> Change | None:
        """One record that keeps changing must not hold up all the others."""
        try:
            change = await decide(record_id)
        except VersionConflictError as error:
            logger.warning("A timer is put off: %s", error.detail, extra={"record": record_id})
            return None
        crash_point("timer.decided")
        return change

    def _on_change(self, change: Change) -> None:
        """Anything that has a due time may be the next to be due."""
        moments = [task.due_at for task in change.tasks]
        moments += [session.due_at for session in change.sessions]
        moments += [agent.due_at for agent in change.agents]
        if any(moments):
            self._wake.set()
