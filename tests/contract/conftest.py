"""Every contract test runs on every storage: one more kind here tests one more of them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from opscore.models import Retention
from opscore.storage import Storage, open_storage
from tests.databases import migrated_database, require_postgres

Opener = Callable[[Retention], Awaitable[Storage]]
Replicas = Callable[[int], Awaitable[list[Storage]]]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "postgres":
        require_postgres()
    kind: str = request.param
    return kind


@pytest.fixture
def new_url(kind: str, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """Gives the URL of an empty storage, another one each time."""
    numbers = iter(range(10_000))
    with ExitStack() as lent:

        def url() -> str:
            if kind == "postgres":
                return lent.enter_context(migrated_database())
            return "memory:" if kind == "memory" else f"sqlite:///{tmp_path}/{next(numbers)}.db"

        yield url


@pytest.fixture
async def open_with(new_url: Callable[[], str]) -> AsyncIterator[Opener]:
    """Opens an empty storage that keeps as much as it is told to."""
    opened: list[Storage] = []

    async def open_one(retention: Retention) -> Storage:
        opened.append(await open_storage(new_url(), retention))
        return opened[-1]

    yield open_one
    for storage in opened:
        await storage.close()


@pytest.fixture
async def storage(open_with: Opener) -> Storage:
    return await open_with(Retention())


@pytest.fixture
async def replicas(kind: str, new_url: Callable[[], str]) -> AsyncIterator[Replicas]:
    """Opens one storage for so many processes; where there can be only one, they share it."""
    opened: list[Storage] = []

    async def open_all(count: int) -> list[Storage]:
        url = new_url()
        for _ in range(count if kind == "postgres" else 1):
            opened.append(await open_storage(url, Retention(), connections=2))
        return opened if kind == "postgres" else opened * count

    yield open_all
    for storage in opened:
        await storage.close()
