"""Writing batches of changes, each in one commit whose fate is found out if need be.

What fails because of one of its changes is written in parts, so that the others are stored.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from opscore.crash_points import crash_point
from opscore.exceptions import StorageError
from opscore.ids import new_id
from opscore.models import Change
from opscore.storage.damage import UNREADABLE
from opscore.storage.sql.arrivals import Arrivals
from opscore.storage.sql.batch import Verdicts
from opscore.storage.sql.codec import DefinitionTexts
from opscore.storage.sql.driver import CommitUnknownError, Driver
from opscore.storage.sql.leases import ping
from opscore.storage.sql.program import Execute, Program
from opscore.storage.sql.writing import Mark, apply_changes, is_committed

logger = logging.getLogger(__name__)

Answers = Sequence[Exception | None]

_PAUSES = (0.1, 0.2, 0.5, 1.0)
# No longer than a caller would wait, even if the database says nothing at all.
_ASKING_SECONDS = 5.0
# Whether the database is well is answered at once, or it is not.
_PING_SECONDS = 1.0
# Everybody in the batch waits while parts of it are tried.
_DIVIDING_SECONDS = 3.0
# The whole batch has waited already.
_LITTLE_PATIENCE = ("SET LOCAL lock_timeout = '200ms'", "SET LOCAL statement_timeout = '1s'")


class Writer:
    """Writes one batch after the other, and knows how to ask for the fate of the last one."""

    def __init__(self, driver: Driver, texts: DefinitionTexts, arrivals: Arrivals) -> None:
        self._driver = driver
        self._texts = texts
        self._arrivals = arrivals
        self._id = new_id()
        self._number = 0

    async def write(self, changes: Sequence[Change]) -> Answers:
        """Apply the changes; for each None, or what was in its way."""
        crash_point("batch.taken")
        answers = await self._in_parts(changes)
        crash_point("batch.written")
        return answers

    async def _in_parts(self, changes: Sequence[Change], until: float | None = None) -> Answers:
        """All of them together, or else, as long as there is time, each half by itself."""
        try:
            return await self._commit(changes, patient=until is None)
        except CommitUnknownError:
            raise
        except (StorageError, *UNREADABLE) as error:
            if until is None:
                until = time.monotonic() + _DIVIDING_SECONDS
            alone = len(changes) < 2
            if alone or time.monotonic() > until or not await self._is_well():
                return [error] * len(changes)
        half = len(changes) // 2
        first = await self._in_parts(changes[:half], until)
        return [*first, *await self._in_parts(changes[half:], until)]

    async def _is_well(self) -> bool:
        """Whether the database takes anything at all."""
        try:
            async with asyncio.timeout(_PING_SECONDS):
                await self._driver.write(ping)
        except (StorageError, TimeoutError):
            return False
        return True

    async def _commit(self, changes: Sequence[Change], patient: bool) -> Verdicts:
        dialect = self._driver.dialect
        self._number += 1
        mark = Mark(self._id, self._number, datetime.now(UTC)) if dialect.remote else None
        verdicts: Verdicts = []

        def program() -> Program[Verdicts]:
            nonlocal verdicts
            for setting in _LITTLE_PATIENCE if dialect.remote and not patient else ():
                yield Execute(setting)
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
