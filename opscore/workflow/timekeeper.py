"""The timekeeper: waits for whatever is due next and lets it be decided."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta

from opscore.crash_points import crash_point
from opscore.exceptions import StorageError, VersionConflictError
from opscore.models import Change
from opscore.workflow.engine import Engine

logger = logging.getLogger(__name__)

_BATCH = 200
_PAUSE = timedelta(seconds=1)
_PRECEDENCE = timedelta(seconds=2)
_PUT_OFF = timedelta(seconds=5)
# After less than this, holders have had their leases all the while.
_SILENCE = timedelta(seconds=5)
# What is due and yet changes nothing (someone else was quicker) must not become a tight loop,
# and if it stays so, it must not cost much.
_SHORTEST_WAIT = timedelta(milliseconds=10)
_LONGEST_IDLE_WAIT = timedelta(milliseconds=250)
# Claims, and other processes on the same storage, set timers without a word.
_LONGEST_WAIT = timedelta(seconds=2)

_Timer = tuple[str, str]
"""The kind and the id of a record."""


class Timekeeper:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clock = engine.clock
        self._wake = asyncio.Event()
        self._idle_wait = _SHORTEST_WAIT
        # Could not be written, oldest first, and when each is tried again.
        self._put_off: dict[_Timer, datetime] = {}
        self._ways: dict[str, Callable[[str], Awaitable[Change | None]]] = {
            "task": engine.task_due,
            "session": engine.session_due,
            "agent": engine.agent_due,
        }
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
        if made_changes or due > now:
            self._idle_wait = _SHORTEST_WAIT
            return min(max(due, now), now + _LONGEST_WAIT)
        wait, self._idle_wait = self._idle_wait, min(2 * self._idle_wait, _LONGEST_IDLE_WAIT)
        return now + wait

    async def process_due(self) -> int:
        """Decide everything that is due now; how many changes that made."""
        total = 0
        unchanged: set[_Timer] = set()
        while timers := await self._due_besides(unchanged | self._put_off.keys()):
            crash_point("timer.found")
            for timer in timers:
                if await self._decide(timer):
                    total += 1
                else:
                    unchanged.add(timer)
            await asyncio.sleep(0)
        return total + await self._try_again()

    async def _due_besides(self, passed: Collection[_Timer]) -> list[_Timer]:
        """Asks for more than have been passed over, so that they hide none of those behind."""
        due = await self._engine.storage.due(self._clock.now(), _BATCH + len(passed))
        found = {"task": due.tasks, "session": due.sessions, "agent": due.agents}
        timers = [(kind, record_id) for kind, ids in found.items() for record_id in ids]
        return [timer for timer in timers if timer not in passed]

    async def _try_again(self) -> bool:
        """One of those that were put off, after all others: it may take its time again."""
        timer = next(iter(self._put_off), None)
        if timer is None or self._clock.now() < self._put_off[timer]:
            return False
        del self._put_off[timer]
        return await self._decide(timer)

    async def _decide(self, timer: _Timer) -> bool:
        """Whether that changed anything.

        One record that keeps changing, or cannot be written, must not hold up all the others.
        """
        kind, record_id = timer
        began = self._clock.now()
        try:
            change = await self._ways[kind](record_id)
        except VersionConflictError as error:
            logger.warning("A timer is put off: %s", error.detail, extra={"record": record_id})
            return False
        except StorageError as error:
            self._put_off[timer] = self._clock.now() + _PUT_OFF
            if not await self._answers() or self._clock.now() - began > _SILENCE:
                raise
            logger.warning("A timer is put off: %s", error.detail, extra={"record": record_id})
            return False
        crash_point("timer.decided")
        return change is not None and change != Change()

    def _on_change(self, change: Change) -> None:
        """Anything that has a due time may be the next to be due."""
        moments = [task.due_at for task in change.tasks]
        moments += [session.due_at for session in change.sessions]
        moments += [agent.due_at for agent in change.agents]
        if any(moments):
            self._wake.set()
