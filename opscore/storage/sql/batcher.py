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
_REMOTE_WRITERS = 2


Waiting = tuple[Change, "asyncio.Future[None]"]


class Batcher:
    """Over a connection that takes its time, one batch is made while another is committed."""

    def __init__(self, driver: Driver, arrivals: Arrivals) -> None:
        texts = DefinitionTexts()
        count = _REMOTE_WRITERS if driver.dialect.remote else 1
        self._idle = [Writer(driver, texts, arrivals) for _ in range(count)]
        self._waiting: list[Waiting] = []
        self._running: set[asyncio.Task[None]] = set()

    async def apply(self, change: Change) -> None:
        """Return once the change is committed; raise what was in its way."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((change, done))
        if self._idle:
            running = asyncio.create_task(self._write(self._idle.pop()), name="storage writer")
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        await done

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(self._running)

    async def _write(self, writer: "Writer") -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
                await _commit(writer, batch)
        finally:
            self._idle.append(writer)


async def _commit(writer: "Writer", batch: Sequence[Waiting]) -> None:
    crash_point("batch.taken")
    verdicts: Sequence[Exception | None]
    try:
        verdicts = await writer.write([change for change, _ in batch])
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


class Writer:
    """Writes one batch after the other, and knows how to ask for the fate of the last one."""

    def __init__(self, driver: Driver, texts: DefinitionTexts, arrivals: Arrivals) -> None:
        self._driver = driver
        self._texts = texts
        self._arrivals = arrivals
        self._id = new_id()
        self._number = 0

    async def write(self, changes: Sequence[Change]) -> Verdicts:
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
        """Ask until there is an answer, but not longer than a caller would wait."""
        for pause in _PAUSES:
            try:
                return await self._driver.read(is_committed(mark))
            except StorageError as error:
                logger.warning("Whether a commit took place is not known yet: %s", error.detail)
                await asyncio.sleep(pause)
        return False
