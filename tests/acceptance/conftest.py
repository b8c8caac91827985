"""What acceptance tests share; a failed test's report carries the logs of the processes."""

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from tests.acceptance import processes
from tests.acceptance.durable import empty_storage
from tests.acceptance.world import World, world_around
from tests.storages import empty_url

LINES = 25
# Several processes, one after the other, on a machine that has much else to do.
TIME_LIMIT = 240


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "late: looks last at what was begun before and takes long")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("acceptance") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TIME_LIMIT))
    items.sort(key=lambda item: item.get_closest_marker("late") is not None)


@pytest.fixture(scope="session")
def kit_port() -> Iterator[int]:
    """Where the services under test look for their AgentKit."""
    with processes.reserved_port() as port:
        yield port


@pytest.fixture
def storage_url(storage_kind: str) -> Iterator[str]:
    """An empty storage of the kind that the test runs on, for a service of its own."""
    with empty_url(storage_kind) as url:
        yield url


@pytest.fixture
def storage(storage_kind: str, tmp_path: Path) -> Iterator[str]:
    """A durable storage that nobody has opened yet, on a real disk."""
    with empty_storage(storage_kind, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def in_mode_direct(tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.OnStorage]:
    settings = {"OPSCORE_DISPATCH_MODE": "direct"}
    folder = tmp_path_factory.mktemp("direct-mode")
    with processes.service_on_each_storage(folder, settings) as services:
        yield services


@pytest.fixture
async def direct_world(
    in_mode_direct: processes.OnStorage, storage_kind: str
) -> AsyncIterator[World]:
    """In mode direct, without any AgentKit."""
    async with world_around(in_mode_direct(storage_kind), 0) as world:
        yield world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in processes.RUNNING:
            end = "\n".join(process.said.splitlines()[-LINES:])
            report.sections.append((f"log of {process.name}", end))
    return report
