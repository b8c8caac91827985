"""Every contract test runs on every storage: one more URL here tests one more of them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from opscore.models import Retention
from opscore.storage import Storage, open_storage

Opener = Callable[[Retention], Awaitable[Storage]]


@pytest.fixture(params=["memory:", "sqlite:///"])
async def open_with(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens an empty storage that keeps as much as it is told to."""
    opened: list[Storage] = []

    def url(number: int) -> str:
        kind: str = request.param
        return kind if kind == "memory:" else f"{kind}{tmp_path}/{number}.db"

    async def open_one(retention: Retention) -> Storage:
        opened.append(await open_storage(url(len(opened)), retention))
        return opened[-1]

    yield open_one
    for storage in opened:
        await storage.close()


@pytest.fixture
async def storage(open_with: Opener) -> Storage:
    return await open_with(Retention())
