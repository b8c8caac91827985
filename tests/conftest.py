"""Tests about behaviour run on every storage: whoever asks for `open_empty` does."""

from collections.abc import Iterator

import pytest

from tests.storages import KINDS, Opener, opener


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storages", default=",".join(KINDS), help="run on these storages only (%(default)s)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "storages(*kinds): run on these storages, not on all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage_kind" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("storages")
        wanted = marker.args if marker else KINDS
        chosen = metafunc.config.getoption("--storages").split(",")
        metafunc.parametrize("storage_kind", [kind for kind in wanted if kind in chosen])


@pytest.fixture
def open_empty(storage_kind: str) -> Iterator[Opener]:
    """Opens empty storages of the kind that the test runs on."""
    with opener(storage_kind) as open_one:
        yield open_one
