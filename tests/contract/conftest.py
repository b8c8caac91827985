"""Every contract test runs on every storage: one more kind there tests one more of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from opscore.models import Retention
from opscore.storage import Storage, open_storage
from tests.storages import Opener, empty_url

Replicas = Callable[[int], Awaitable[list[Storage]]]

__all__ = ["Opener", "Replicas"]


@pytest.fixture
async def open_with(open_empty: Opener) -> AsyncIterator[Opener]:
    """Opens an empty storage that keeps as much as it is told to."""
    opened: list[Storage] = []

    async def open_one(retention: Retention) -> Storage:
        opened.append(await open_empty(retention))
        return opened[-1]

    yield open_one
    for storage in opened:
        await storage.close()


@pytest.fixture
async def storage(open_with: Opener) -> Storage:
    return await open_with(Retention())


@pytest.fixture
async def replicas(storage_kind: str) -> AsyncIterator[Replicas]:
    """Opens one storage for so many processes; where there can be only one, they share it."""
    with empty_url(storage_kind) as url:
        opened: list[Storage] = []

        async def open_all(count: int) -> list[Storage]:
            for _ in range(count if storage_kind == "postgres" else 1):
                opened.append(await open_storage(url, Retention(), connections=2))
            # Connected before they begin: whoever connects first would be ahead of the others.
            await asyncio.gather(*(one.ping() for one in opened))
            return opened if storage_kind == "postgres" else opened * count

        yield open_all
        for storage in opened:
            await storage.close()
