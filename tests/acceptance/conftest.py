"""The report of a failed test carries the logs of the processes it spoke to."""

from collections.abc import Generator, Iterator

import pytest

from tests.acceptance import processes

LINES = 25


@pytest.fixture(scope="session")
def kit_port() -> Iterator[int]:
    """Where the services under test look for their AgentKit."""
    with processes.reserved_port() as port:
        yield port


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for process in processes.RUNNING:
            end = "\n".join(process.said.splitlines()[-LINES:])
            report.sections.append((f"log of {process.name}", end))
    return report
