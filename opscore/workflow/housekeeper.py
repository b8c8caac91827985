"""The housekeeper: what must be looked at now and then, and how late the event loop runs."""

import asyncio
import logging
import time

from opscore.crash_points import crash_point
from opscore.exceptions import OpsCoreError, StorageError, VersionConflictError
from opscore.storage.damage import UNREADABLE, await_or_none
from opscore.workflow.decisions import lose_silent_agent
from opscore.workflow.engine import Engine

logger = logging.getLogger(__name__)

_TICK = 1.0
_TICKS_BETWEEN_ROUNDS = 5
_LAG_WARNING = 1.0
_DRIFT_WARNING = 10.0
_BATCH = 100


class Housekeeper:
    """`lag` is how late the event loop was at the last tick, `worst_lag` at the worst one."""

    def __init__(self, engine: Engine, tick: float = _TICK) -> None:
        self._engine = engine
        self._tick_length = tick
        self.lag = 0.0
        self.worst_lag = 0.0
        self._drift = 0.0

    async def run(self) -> None:
        ticks = 0
        while True:
            await self._tick()
            ticks += 1
            if ticks % _TICKS_BETWEEN_ROUNDS == 0:
                await self.round()

    async def _tick(self) -> None:
        before = time.monotonic()
        await asyncio.sleep(self._tick_length)
        self.lag = max(0.0, time.monotonic() - before - self._tick_length)
        self.worst_lag = max(self.worst_lag, self.lag)
        if self.lag > _LAG_WARNING:
            logger.warning("The event loop was blocked for %.1f seconds.", self.lag)

    def _watch_the_clock(self) -> None:
        """Deadlines do not follow the wall clock, but whoever sets it should know."""
        drift = (self._engine.clock.wall() - self._engine.clock.now()).total_seconds()
        if abs(drift - self._drift) > _DRIFT_WARNING:
            self._drift = drift
            logger.warning(
                "This machine's clock is %.0f seconds ahead of the time that deadlines go by, "
                "which stays as it is.",
                drift,
            )

    async def round(self) -> None:
        """Do each duty once; log a failure and try again in the next round."""
        self._watch_the_clock()
        try:
            await self._lose_silent()
        except (StorageError, VersionConflictError) as error:
            _put_off(error)
        except UNREADABLE as error:
            logger.error("Housekeeping met what it cannot read.", exc_info=error)

    async def _lose_silent(self) -> None:
        threshold = self._engine.policy.silence_threshold
        if threshold is None:
            return
        before = self._engine.clock.now() - threshold
        for agent in await self._engine.storage.silent_agents(before, _BATCH):
            crash_point("silence.found")
            await self._lose(agent.id)

    async def _lose(self, agent_id: str) -> None:
        """One that cannot be read or written must not hold up all the others."""
        try:
            change = self._engine.change_agent(agent_id, lose_silent_agent)
            await await_or_none("agents", agent_id, change)
        except (StorageError, VersionConflictError) as error:
            # Raises where that is not for this one alone.
            await self._engine.storage.ping()
            _put_off(error)


def _put_off(error: OpsCoreError) -> None:
    logger.warning("Housekeeping is put off: %s", error.detail)
