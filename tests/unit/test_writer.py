"""Writing batches: what becomes of one whose commit nobody can tell of."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

import pytest

from opscore.storage.sql.arrivals import Arrivals
from opscore.storage.sql.codec import DefinitionTexts
from opscore.storage.sql.driver import CommitUnknownError, Driver, Run
from opscore.storage.sql.program import POSTGRES, Program
from opscore.storage.sql.writer import Writer

R = TypeVar("R")


class Silent(Driver):
    """The engine fell silent at the commit."""

    dialect = POSTGRES

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def read(self, program: Program[R]) -> R:
        await asyncio.Event().wait()
        raise AssertionError("nothing comes back")

    async def scan(self, program: Program[R]) -> R:
        raise NotImplementedError

    async def write(
        self, make: Callable[[], Program[R]], urgent: bool = False, long: bool = False
    ) -> R:
        raise CommitUnknownError("The database is silent.", retry_after=1)

    def transaction(
        self, writing: bool, any_schema: bool = False
    ) -> AbstractAsyncContextManager[Run]:
        raise NotImplementedError


async def test_F65_who_commits_into_silence_is_told_so_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("opscore.storage.sql.writer._ASKING_SECONDS", 0.01)
    writer = Writer(Silent(), DefinitionTexts(), Arrivals())
    async with asyncio.timeout(5):
        with pytest.raises(CommitUnknownError):
            await writer.write([])
