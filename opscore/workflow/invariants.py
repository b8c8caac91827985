"""The invariant checker: looks for what should never be, repairs it, and tells.

It looks at what may have changed meanwhile, so whatever it finds is read again and decided anew,
like everything that changes. A healthy system gives it nothing to do.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import count

from opscore.exceptions import OpsCoreError, StorageError, VersionConflictError
from opscore.models import Change, Event, EventType, TaskFacts
from opscore.storage.damage import UNREADABLE, tell_once
from opscore.workflow import decisions
from opscore.workflow.decisions import Context
from opscore.workflow.engine import Engine
from opscore.workflow.replicas import on_duty

logger = logging.getLogger(__name__)

INTERVAL = timedelta(seconds=30)
_DUTY = "invariants"
_AT_ONCE = 200
_SESSIONS_AT_ONCE = 1000
# A round looks at so many stretches of each kind, and at more while this lasts; the next one goes
# on from there.
_STRETCHES = 20
_SECONDS = 1.0

Look = Callable[[str | None], Awaitable[tuple[Sequence[Event], str | None]]]


class Checker:
    """`repaired` counts what this process has found and repaired, by what was found."""

    def __init__(self, engine: Engine, owner: str, seconds: float = _SECONDS) -> None:
        self._engine = engine
        self._owner = owner
        self._seconds = seconds
        self.repaired: Counter[str] = Counter()
        self._cursors: dict[Look, str | None] = {}

    async def run(self) -> None:
        clock, storage = self._engine.clock, self._engine.storage
        while True:
            await clock.wait(asyncio.Event(), clock.now() + INTERVAL)
            try:
                if await on_duty(storage, clock, _DUTY, self._owner):
                    await self.round()
            except StorageError as error:
                _put_off(error)

    async def round(self) -> list[Event]:
        """Look at the next stretches of everything; what was repaired."""
        repaired: list[Event] = []
        for look in (self._mend, self._look_at_tasks, self._look_at_sessions):
            try:
                await self._go_on(look, repaired)
            except (StorageError, VersionConflictError) as error:
                _put_off(error)
            except Exception as error:
                logger.error("What is stored is damaged beyond repair.", exc_info=error)
        return repaired

    async def _go_on(self, look: Look, repaired: list[Event]) -> None:
        until = time.monotonic() + self._seconds
        for number in count(1):
            events, further = await look(self._cursors.get(look))
            self._cursors[look] = further
            repaired += events
            self.repaired.update(event.data["found"] for event in events)
            await asyncio.sleep(0)
            if further is None or (number >= _STRETCHES and time.monotonic() > until):
                break

    # --- what is looked at ----------------------------------------------------------------

    async def _mend(self, cursor: str | None) -> tuple[Sequence[Event], str | None]:
        page = await self._engine.storage.mend(cursor, _AT_ONCE, self._engine.clock.now())
        if page.items:
            self._engine.tell(Change(events=page.items, may_ready=True))
        return page.items, page.next_cursor

    async def _look_at_tasks(self, cursor: str | None) -> tuple[Sequence[Event], str | None]:
        page = await self._engine.storage.timed_tasks(cursor, _AT_ONCE)
        suspects = [facts.task.id for facts in page.items if self._is_wrong(facts)]
        changes = [await _each("tasks", self._engine.repair_task, one) for one in suspects]
        return _repairs(changes), page.next_cursor

    def _is_wrong(self, facts: TaskFacts) -> bool:
        clock = self._engine.clock
        ctx = Context(clock.now(), clock.wall(), self._engine.policy)
        return decisions.repair_task(facts, ctx) != Change()

    async def _look_at_sessions(self, cursor: str | None) -> tuple[Sequence[Event], str | None]:
        page = await self._engine.storage.odd_sessions(cursor, _SESSIONS_AT_ONCE)
        repair = self._engine.repair_session
        changes = [await _each("sessions", repair, one) for one in page.items]
        return _repairs(changes), page.next_cursor


async def _each(
    table: str, repair: Callable[[str], Awaitable[Change | None]], record_id: str
) -> Change | None:
    """One record that cannot be read must not hold up all the others."""
    try:
        return await repair(record_id)
    except UNREADABLE:
        tell_once(table, record_id)
        return None


def _put_off(error: OpsCoreError) -> None:
    logger.warning("Checking what is stored is put off: %s", error.detail)


def _repairs(changes: Sequence[Change | None]) -> list[Event]:
    events = [event for change in changes if change for event in change.events]
    return [event for event in events if event.type is EventType.STORAGE_REPAIRED]
