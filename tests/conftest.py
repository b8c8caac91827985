"""Tests about behaviour run on every storage: whoever asks for `open_empty` does."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from hypothesis import settings

from tests.compiled_code import compiled_code_kept
from tests.storages import KINDS, Opener, opener

_compiled = ExitStack()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storages", default=",".join(KINDS), help="run on these storages only (%(default)s)"
    )


def pytest_configure(config: pytest.Config) -> None:
    # How long one example takes says more of the machine than of the code.
    settings.register_profile("opscore", parent=settings(), deadline=None)
    settings.load_profile("opscore")
    config.addinivalue_line("markers", "storages(*kinds): run on these storages, not on all")
    if not hasattr(config, "workerinput"):
        config.add_cleanup(_compiled.close)
        _compiled.enter_context(compiled_code_kept())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "storage_kind" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("storages")
        metafunc.parametrize("storage_kind", marker.args if marker else KINDS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--storages").split(",")
    others = [item for item in items if _kind(item) not in (None, *chosen)]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in set(others)]


def _kind(item: pytest.Item) -> str | None:
    called_with = getattr(item, "callspec", None)
    return called_with.params.get("storage_kind") if called_with else None


@pytest.fixture
def open_empty(storage_kind: str) -> Iterator[Opener]:
    """Opens empty storages of the kind that the test runs on."""
    with opener(storage_kind) as open_one:
        yield open_one
