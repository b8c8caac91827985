"""What acceptance tests share; a failed test's report carries the logs of the processes."""

from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from tests.acceptance import processes
from tests.acceptance.world import World, world_around

LINES = 25


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "late: looks last at what was begun before and takes long")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("late") is not None)


@pytest.fixture(scope="session")
def kit_port() -> Iterator[int]:
    """Where the services under test look for their AgentKit."""
    with processes.reserved_port() as port:
        yield port


@pytest.fixture(scope="session")
def direct_opscore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[processes.Service]:
    settings = {"OPSCORE_DISPATCH_MODE": "direct"}
    with processes.service(tmp_path_factory.mktemp("direct-mode"), settings) as running:
        yield running


@pytest.fixture
async def direct_world(direct_opscore: processes.Service) -> AsyncIterator[World]:
    """In mode direct, without any AgentKit."""
    async with world_around(direct_opscore, 0) as world:
        yield world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in processes.RUNNING:
            end = "\n".join(process.said.splitlines()[-LINES:])
            report.sections.append((f"log of {process.name}", end))
    return report
