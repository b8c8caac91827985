"""Group commit: changes that come while a commit is under way share the next one."""

import asyncio

from opscore.exceptions import OpsCoreError
from opscore.models import Change
from opscore.storage.sql.codec import DefinitionTexts
from opscore.storage.sql.driver import Driver
from opscore.storage.sql.writing import apply_changes

_AT_ONCE = 500


class Batcher:
    def __init__(self, driver: Driver) -> None:
        self._driver = driver
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
        changes = [change for change, _ in batch]
        try:
            verdicts = await self._driver.write(
                apply_changes(self._driver.dialect, self._texts, changes)
            )
        except OpsCoreError as error:
            verdicts = [error] * len(batch)
        for (_, done), verdict in zip(batch, verdicts, strict=True):
            if done.cancelled():
                continue
            if verdict is None:
                done.set_result(None)
            else:
                done.set_exception(verdict)
