"""Houses that tests build and that are closed behind them."""

from collections.abc import AsyncIterator
from typing import Any, TypeVar

import pytest

from opscore.models import Policy, Retention
from opscore.workflow.dispatcher import Courier
from tests.fakes import FakeCourier
from tests.moody import Moody
from tests.service.house import House
from tests.storages import Opener

M = TypeVar("M", bound=Moody)


class Builder:
    def __init__(self, open_empty: Opener) -> None:
        self._open_empty = open_empty
        self._storages: list[Moody] = []
        self._houses: list[House] = []

    async def __call__(
        self,
        courier: Courier | None = None,
        policy: Policy | None = None,
        *,
        storage: Moody | None = None,
        running: bool = True,
        **options: Any,
    ) -> House:
        """Build a house, on a storage of its own unless one is given."""
        stored = storage or await self.storage(Moody, options.get("retention"))
        house = House(stored.storage, courier or FakeCourier(), policy, **options)
        self._houses.append(house)
        if running:
            await house.start()
        return house

    async def storage(self, kind: type[M], retention: Retention | None = None) -> M:
        one = kind(await self._open_empty(retention or Retention()))
        self._storages.append(one)
        return one

    async def close(self) -> None:
        for house in self._houses:
            await house.close()
        for one in self._storages:
            await one.storage.close()


@pytest.fixture
async def build(open_empty: Opener) -> AsyncIterator[Builder]:
    builder = Builder(open_empty)
    yield builder
    await builder.close()
