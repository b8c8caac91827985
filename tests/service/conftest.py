"""Houses that tests build and that are closed behind them."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from opscore.models import Policy
from opscore.workflow.dispatcher import Courier
from tests.fakes import FakeCourier
from tests.service.house import House


class Builder(Protocol):
    async def __call__(
        self, courier: Courier | None = None, policy: Policy | None = None, **options: Any
    ) -> House: ...


@pytest.fixture
async def build() -> AsyncIterator[Builder]:
    """Builds a house. It runs unless `running=False`."""
    houses: list[House] = []

    async def build_one(
        courier: Courier | None = None, policy: Policy | None = None, **options: Any
    ) -> House:
        running = options.pop("running", True)
        house = House(courier or FakeCourier(), policy, **options)
        houses.append(house)
        if running:
            await house.start()
        return house

    yield build_one
    for house in houses:
        await house.close()
