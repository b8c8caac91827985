"""Any storage, as tests need it: it can be away, be raced by others, and be slow."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from functools import partial
from inspect import iscoroutinefunction
from typing import Any, cast

from opscore.exceptions import StorageError, VersionConflictError
from opscore.storage import Storage
from tests.fakes import UnderWay

# What decides and acts. Tests look at what is stored all the while.
MOODY = frozenset({"apply", "claim", "renew", "due", "prune", "agent", "ping"})

# Whoever lost a race tries again after a pause that is real time, and no longer than this.
_LONGEST_PAUSE = 0.06


class Moody:
    """Hands every call on to the storage behind it, in whatever mood it is.

    `slow` names the methods that wait while `gate` is shut.
    """

    def __init__(self, behind: Storage) -> None:
        self.behind = behind
        self.away = False
        self.conflicts = 0
        self.slow: set[str] = set()
        self.gate = asyncio.Event()
        self.asked: Counter[str] = Counter()

    @property
    def storage(self) -> Storage:
        """Itself: it answers every call of the contract."""
        return cast(Storage, self)

    async def time(self) -> datetime | None:
        """Tests move the only clock by hand."""
        return None

    def __getattr__(self, name: str) -> Any:
        given = getattr(self.behind, name)
        return partial(self.ask, name) if iscoroutinefunction(given) else given

    async def ask(self, method: str, *args: Any, **named: Any) -> Any:
        self.asked[method] += 1
        if method in self.slow:
            await self.gate.wait()
        if method in MOODY:
            self._answer()
        try:
            return await self._pass_on(method, *args, **named)
        except VersionConflictError:
            UnderWay.here().stay(_LONGEST_PAUSE)
            raise

    async def export(self, *args: Any) -> AsyncGenerator[Any, None]:
        self._answer()
        async with aclosing(self.behind.export(*args)) as batches:
            async for batch in batches:
                yield batch

    def _answer(self) -> None:
        if self.away:
            raise StorageError("The storage does not answer; try again shortly.", retry_after=1)

    async def _pass_on(self, method: str, *args: Any, **named: Any) -> Any:
        if self.conflicts and method == "apply":
            self.conflicts -= 1
            raise VersionConflictError("The record was changed by someone else meanwhile.")
        with UnderWay.here():
            return await getattr(self.behind, method)(*args, **named)
