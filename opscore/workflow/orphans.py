"""Orphaned tasks: waiting tasks that only a deregistered agent could do are failed."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta

from opscore.crash_points import crash_point
from opscore.exceptions import StorageError, VersionConflictError
from opscore.models import Change, Standing
from opscore.storage.damage import UNREADABLE
from opscore.workflow.engine import Engine

logger = logging.getLogger(__name__)

# A next step for an agent that was deregistered meanwhile, or one that another replica left
# behind, is found by looking.
_INTERVAL = timedelta(seconds=5)
_BATCH_SIZE = 1000
# Written at once they share commits; more would take the connections of all others.
_CONCURRENCY = 20


class OrphanedTasks:
    """Fails orphaned tasks as soon as an agent is deregistered, and whatever a crash left.

    An agent may have thousands of them, so whoever deregisters it does not wait for this.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wake = asyncio.Event()
        engine.subscribe(self._on_change)

    async def run(self) -> None:
        clock = self._engine.clock
        while True:
            self._wake.clear()
            try:
                await self.fail_all()
            except (StorageError, VersionConflictError) as error:
                logger.warning("Failing orphaned tasks is put off: %s", error.detail)
            except UNREADABLE as error:
                logger.error("An orphaned task cannot be read.", exc_info=error)
            await clock.wait(self._wake, clock.now() + _INTERVAL)

    async def fail_all(self) -> None:
        """Fail them batch after batch, until there are none or none of them changes."""
        while orphaned := await self._engine.storage.stranded(_BATCH_SIZE):
            failed = 0
            for first in range(0, len(orphaned), _CONCURRENCY):
                failed += await self._fail(orphaned[first : first + _CONCURRENCY])
            if not failed:
                # Another replica was quicker, or the agent is back.
                return
            logger.info("Failed or moved %d tasks that waited for deregistered agents.", failed)

    async def _fail(self, task_ids: Sequence[str]) -> int:
        """Fail these tasks, whose writes share commits; return how many of them changed."""
        changes = await asyncio.gather(*map(self._fail_one, task_ids), return_exceptions=True)
        for change in changes:
            if isinstance(change, BaseException):
                raise change
        return sum(change not in (None, Change()) for change in changes)

    async def _fail_one(self, task_id: str) -> Change | None:
        try:
            change = await self._engine.task_stranded(task_id)
        except (StorageError, VersionConflictError) as error:
            # Re-raise when the storage itself is down, not only this record.
            await self._engine.storage.ping()
            logger.warning("An orphaned task is put off: %s", error.detail)
            return None
        crash_point("stranded.failed")
        return change

    def _on_change(self, change: Change) -> None:
        if any(agent.standing is Standing.DEREGISTERED for agent in change.agents):
            self._wake.set()
