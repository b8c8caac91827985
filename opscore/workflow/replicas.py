"""A process among others on one storage: it shares their time, says that it lives, and leaves."""

import asyncio
import logging
import time
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta

from opscore.clock import Clock
from opscore.crash_points import crash_point
from opscore.exceptions import StorageError
from opscore.models import Replica, Task, TaskFilter, TaskStatus
from opscore.processes import has_exited
from opscore.storage import Storage

logger = logging.getLogger(__name__)

BEAT = timedelta(seconds=5)
_FORGOTTEN_AFTER = timedelta(minutes=10)
_TERM = timedelta(seconds=30)
_PATIENCE_AT_START = 30.0
_PAUSE_AT_START = 0.5
_ODD = timedelta(seconds=1)
_STEP = timedelta(minutes=1)
# With each beat. Leases are prolonged in time though the clock goes that much faster.
_STRIDE = timedelta(seconds=2)
_AT_ONCE = 500


class Presence:
    """Leases do not depend on it: what a silent replica holds is taken back when it runs out."""

    def __init__(self, storage: Storage, clock: Clock, replica: Replica) -> None:
        self._storage = storage
        self._clock = clock
        self._replica = replica
        self._differs = False

    async def join(self) -> None:
        """Take over the storage's time. Nothing that has a due time may run before."""
        deadline = time.monotonic() + _PATIENCE_AT_START
        while True:
            try:
                await share_time(self._storage, self._clock, at_once=True)
                self._replica = replace(self._replica, started_at=self._clock.now())
                await self._be_listed()
                await self._end_leases_of_the_dead()
            except StorageError as error:
                if time.monotonic() > deadline:
                    raise
                logger.warning("Waiting for the storage: %s", error.detail)
                await asyncio.sleep(_PAUSE_AT_START)
            else:
                return

    async def run(self) -> None:
        while True:
            await self._clock.wait(asyncio.Event(), self._clock.now() + BEAT)
            await self.beat()

    async def beat(self) -> None:
        try:
            await self._share_time()
            await self._be_listed()
        except StorageError as error:
            logger.warning("This replica could not say that it lives: %s", error.detail)

    async def _share_time(self) -> None:
        step = await share_time(self._storage, self._clock)
        if step and not self._differs:
            logger.warning(
                "The storage's clock was set by %.0f s, or this machine stood still; deadlines "
                "stand. Restart a replica to have all go by the storage's clock.",
                step.total_seconds(),
            )
        self._differs = bool(step)

    async def leave(self) -> None:
        try:
            await self._storage.leave(self._replica.id)
            crash_point("replica.left")
        except StorageError as error:
            logger.warning("This replica is listed for some minutes more: %s", error.detail)

    async def _end_leases_of_the_dead(self) -> None:
        """Those who cannot live any more hold what they had until it runs out; that is now."""
        dead = [one for one in await self._storage.replicas() if self._is_dead(one)]
        held: defaultdict[str, list[str]] = defaultdict(list)
        for task in await leased_tasks(self._storage):
            held[task.owner or ""].append(task.id)
        owners = held.keys() if self._storage.exclusive else {one.id for one in dead}
        for owner in owners - {self._replica.id}:
            await self._end_leases(owner, held.get(owner, []))
        for one in dead:
            await self._storage.leave(one.id)

    async def _end_leases(self, owner: str, task_ids: list[str]) -> None:
        for at in range(0, len(task_ids), _AT_ONCE):
            part = task_ids[at : at + _AT_ONCE]
            await self._storage.renew(owner, part, self._clock.now())
        crash_point("replica.leases-ended")

    def _is_dead(self, other: Replica) -> bool:
        if other.id == self._replica.id:
            return False
        return self._storage.exclusive or has_exited(other, self._replica.place)

    async def _be_listed(self) -> None:
        now = self._clock.now()
        self._replica = replace(self._replica, beat_at=now)
        await self._storage.beat(self._replica, forget_before=now - _FORGOTTEN_AFTER)
        crash_point("replica.beat")


async def leased_tasks(storage: Storage) -> list[Task]:
    """Tasks whose message is under way, or was when its sender ended."""
    found: list[Task] = []
    for status in (TaskStatus.DISPATCHED, TaskStatus.RUNNING):
        cursor: str | None = None
        while True:
            page = await storage.tasks(TaskFilter(frozenset({status})), cursor, _AT_ONCE)
            found += [task for task in page.items if task.lease_until is not None]
            cursor = page.next_cursor
            if cursor is None:
                break
    return found


async def share_time(storage: Storage, clock: Clock, *, at_once: bool = False) -> timedelta:
    """Set the clock by the storage's, which all its replicas go by; return what is not followed.

    While it runs, a small step of the storage's clock is followed little by little, and with a
    large one deadlines stand. Where other replicas are, a replica goes at once: a large step is
    followed only together with one that has started since and goes by the new time.
    """
    asked = clock.now()
    told = await storage.time()
    if told is None:
        return timedelta()
    # What was told was true somewhere between the question and the answer.
    half_way = (clock.now() - asked) / 2
    here = asked + half_way
    ahead = told - here
    if abs(ahead) <= half_way:
        return timedelta()
    if abs(ahead) > _ODD:
        if not at_once and not await _somebody_goes_by(storage, told, here):
            if abs(ahead) > _STEP:
                return ahead
            ahead = max(-_STRIDE, min(ahead, _STRIDE))
        seconds = (told - here).total_seconds()
        logger.warning("The storage's clock is %.1f s ahead of this one; it counts.", seconds)
    clock.agree(ahead, at_once=at_once)
    return timedelta()


async def _somebody_goes_by(storage: Storage, told: datetime, here: datetime) -> bool:
    """Whether a replica lives whose beat is nearer to that time than to the time here.

    This replica's own beat is not, and neither is that of another one that goes by its time.
    Times that are closer to each other than beats cannot be told apart.
    """
    if abs(told - here) < BEAT:
        return False
    beats = [one.beat_at for one in await storage.replicas()]
    return any(abs(told - beat) < min(3 * BEAT, abs(here - beat)) for beat in beats)


async def on_duty(storage: Storage, clock: Clock, name: str, owner: str) -> bool:
    """Whether the owner is the one replica that does this now; asking prolongs its term."""
    now = clock.now()
    return await storage.take_duty(name, owner, now, now + _TERM)
