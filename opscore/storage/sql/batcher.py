"""Group commit: changes that come while a commit is under way share the next one."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from opscore.crash_points import crash_point
from opscore.exceptions import StorageError
from opscore.ids import new_id
from opscore.models import Change
from opscore.storage.sql.arrivals import Arrivals
from opscore.storage.sql.batch import Verdicts
from opscore.storage.sql.codec import DefinitionTexts
from opscore.storage.sql.driver import CommitUnknownError, Driver
from opscore.storage.sql.program import Program
from opscore.storage.sql.writing import Mark, apply_changes, is_committed

logger = logging.getLogger(__name__)

_AT_ONCE = 500
_PAUSES = (0.1, 0.2, 0.5, 1.0)


class Batcher:
    def __init__(self, driver: Driver, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._driver = driver
        self._dialect = driver.dialect
        self._id = new_id()
        self._number = 0
        self._texts = DefinitionTexts()
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def apply(self, change: Change) -> None:
        """Return once the change is committed; raise what was in its way."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="storage writer")
        await done

    async def close(self) -> None:
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
                await self._commit(batch)
        finally:
            self._writer = None

    async def _commit(self, batch: list[tuple[Change, asyncio.Future[None]]]) -> None:
        crash_point("batch.taken")
        verdicts: Sequence[Exception | None]
        try:
            verdicts = await self._written([change for change, _ in batch])
        except Exception as error:  # noqa: BLE001 - handed to everybody who waits for this batch
            verdicts = [error] * len(batch)
        crash_point("batch.written")
        for (_, done), verdict in zip(batch, verdicts, strict=True):
            if done.cancelled():
                continue
            if verdict is None:
                done.set_result(None)
            else:
                done.set_exception(verdict)

    async def _written(self, changes: list[Change]) -> Verdicts:
        self._number += 1
        mark = Mark(self._id, self._number, datetime.now(UTC)) if self._dialect.remote else None
        verdicts: Verdicts = []

        def program() -> Program[Verdicts]:
            nonlocal verdicts
            verdicts = yield from apply_changes(
                self._dialect, self._texts, self._arrivals, changes, mark
            )
            return verdicts

        try:
            return await self._driver.write(program)
        except CommitUnknownError:
            if mark is None or not await self._is_committed(mark):
                raise
            return verdicts

    async def _is_committed(self, mark: Mark) -> bool:
        """Ask until there is an answer, but not longer than a caller would wait."""
        for pause in _PAUSES:
            try:
                return await self._driver.read(is_committed(mark))
            except StorageError as error:
                logger.warning("Whether a commit took place is not known yet: %s", error.detail)
                await asyncio.sleep(pause)
        return False
