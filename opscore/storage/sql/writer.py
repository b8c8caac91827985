"""Writing batches of changes, each in one commit whose fate is found out if need be."""

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

_PAUSES = (0.1, 0.2, 0.5, 1.0)
# No longer than a caller would wait, even if the database says nothing at all.
_ASKING_SECONDS = 5.0


class Writer:
    """Writes one batch after the other, and knows how to ask for the fate of the last one."""

    def __init__(self, driver: Driver, texts: DefinitionTexts, arrivals: Arrivals) -> None:
        self._driver = driver
        self._texts = texts
        self._arrivals = arrivals
        self._id = new_id()
        self._number = 0

    async def write(self, changes: Sequence[Change]) -> Verdicts:
        """Apply the changes; for each None, or what was in its way."""
        crash_point("batch.taken")
        verdicts = await self._commit(changes)
        crash_point("batch.written")
        return verdicts

    async def _commit(self, changes: Sequence[Change]) -> Verdicts:
        dialect = self._driver.dialect
        self._number += 1
        mark = Mark(self._id, self._number, datetime.now(UTC)) if dialect.remote else None
        verdicts: Verdicts = []

        def program() -> Program[Verdicts]:
            nonlocal verdicts
            verdicts = yield from apply_changes(dialect, self._texts, self._arrivals, changes, mark)
            return verdicts

        try:
            return await self._driver.write(program)
        except CommitUnknownError:
            if mark is None or not await self._is_committed(mark):
                raise
            return verdicts

    async def _is_committed(self, mark: Mark) -> bool:
        """Ask until there is an answer, for some time; False also when there is none."""
        try:
            async with asyncio.timeout(_ASKING_SECONDS):
                return await self._ask(mark)
        except TimeoutError:
            logger.warning("Whether a commit took place is not known; the database is silent.")
            return False

    async def _ask(self, mark: Mark) -> bool:
        for pause in _PAUSES:
            try:
                return await self._driver.read(is_committed(mark))
            except StorageError as error:
                logger.warning("Whether a commit took place is not known yet: %s", error.detail)
                await asyncio.sleep(pause)
        return False
