from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Protocol

import pytest

from tests.api.service import Service, running
from tests.storages import Opener


class Runner(Protocol):
    def __call__(self, **given: Any) -> AbstractAsyncContextManager[Service]: ...


@pytest.fixture
def run(open_empty: Opener) -> Runner:
    """Runs a service with settings of the test's own, on the storage that it is tested on."""
    return partial(running, open_empty)


@pytest.fixture
async def service(run: Runner) -> AsyncIterator[Service]:
    async with run() as started:
        yield started
