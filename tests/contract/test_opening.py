"""Opening a storage by its URL."""

import pytest

from opscore.exceptions import ConfigurationError
from opscore.models import Counts, Retention
from opscore.storage import Storage, open_storage


async def test_an_opened_storage_is_empty_and_takes_writes(storage: Storage) -> None:
    await storage.ping()
    assert await storage.counts() == Counts()
    assert storage.durable in (True, False)


async def test_F22_memory_does_not_outlive_the_process() -> None:
    storage = await open_storage("memory:", Retention())
    assert not storage.durable
    await storage.close()


@pytest.mark.parametrize("url", ["", "memory", "mongodb://127.0.0.1/opscore", "memory:x"])
async def test_an_unknown_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="OPSCORE_STORAGE_URL"):
        await open_storage(url, Retention())
