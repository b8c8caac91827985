"""Every contract test runs on every storage: one more URL here tests one more of them."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from opscore.models import Retention
from opscore.storage import Storage, open_storage

Opener = Callable[[Retention], Awaitable[Storage]]


@pytest.fixture(params=["memory:"])
async def open_with(request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Opens an empty storage that keeps as much as it is told to."""
    opened: list[Storage] = []

    async def open_one(retention: Retention) -> Storage:
        opened.append(await open_storage(request.param, retention))
        return opened[-1]

    yield open_one
    for storage in opened:
        await storage.close()


@pytest.fixture
async def storage(open_with: Opener) -> Storage:
    return await open_with(Retention())
