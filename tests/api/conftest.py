from collections.abc import AsyncIterator

import pytest

from tests.api.service import Service, running


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with running() as started:
        yield started
