"""The retention loop: prunes what has ended and is too old or too much, a batch at a time."""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta

from opscore.crash_points import crash_point
from opscore.exceptions import StorageError, VersionConflictError
from opscore.models import Change, Event, EventType, Retention
from opscore.storage.damage import UNREADABLE
from opscore.workflow.engine import Engine
from opscore.workflow.replicas import on_duty

logger = logging.getLogger(__name__)

_ROLE = "retention"
_INTERVAL = timedelta(seconds=5)

_SHARE = 0.2
# While a batch is deleted, every other write waits for it.
_LONGEST_BATCH = timedelta(milliseconds=200)
_SHORTEST_BATCH = timedelta(milliseconds=50)
_SMALLEST_BATCH = 20


@dataclass(frozen=True, slots=True)
class Pace:
    """The size of the next batch; pruning leaves most of the storage's time to others."""

    batch: int
    largest: int

    def after(self, taken: timedelta) -> tuple["Pace", timedelta]:
        """Return the pace and the pause after a batch that took so long."""
        batch = self.batch
        if taken > _LONGEST_BATCH:
            batch = max(batch // 2, min(_SMALLEST_BATCH, self.largest))
        elif taken < _SHORTEST_BATCH:
            batch = min(batch * 2, self.largest)
        return replace(self, batch=batch), taken * ((1 - _SHARE) / _SHARE)


class RetentionLoop:
    """Prunes on one replica at a time.

    `forgotten` counts the records that this process has pruned, by kind; `pace` is that of the
    next batch.
    """

    def __init__(
        self,
        engine: Engine,
        retention: Retention,
        owner: str,
        interval: timedelta = _INTERVAL,
    ) -> None:
        self._engine = engine
        self._retention = retention
        self._owner = owner
        self._interval = interval
        self.pace = Pace(retention.batch, retention.batch)
        self.forgotten: Counter[str] = Counter()

    async def run(self) -> None:
        while True:
            await self._pause(self._interval)
            try:
                await self.prune()
            except (StorageError, VersionConflictError) as error:
                logger.warning("Retention is put off: %s", error.detail)
            except UNREADABLE as error:
                logger.error("Retention met a record that cannot be read.", exc_info=error)

    async def prune(self) -> None:
        """Prune batch after batch while this replica has the role; pause after each of them."""
        total: Counter[str] = Counter()
        storage, clock = self._engine.storage, self._engine.clock
        now = clock.now()
        while await on_duty(storage, clock, _ROLE, self._owner):
            crash_point("prune.before")
            busy: list[timedelta] = []
            batch = replace(self._retention, batch=self.pace.batch)
            counts = await storage.prune(batch, now, busy.append)
            if not counts:
                break
            total.update(counts)
            self.forgotten.update(counts)
            crash_point("prune.batch-done")
            self.pace, pause = self.pace.after(max(busy, default=timedelta()))
            await self._pause(pause)
        if total:
            logger.info("Pruned by retention: %s", dict(total))
            event = Event(EventType.STORAGE_PRUNED, now, data=dict(total))
            await self._engine.apply(Change(events=(event,)))
            crash_point("prune.recorded")

    async def _pause(self, duration: timedelta) -> None:
        clock = self._engine.clock
        await clock.wait(asyncio.Event(), clock.now() + duration)
