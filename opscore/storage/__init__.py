"""Where everything is kept. Only `open_storage` names a concrete store."""

from opscore.exceptions import ConfigurationError
from opscore.models import Retention
from opscore.storage.interface import DueItems, Storage
from opscore.storage.memory import MemoryStorage

__all__ = ["DueItems", "Storage", "open_storage"]


async def open_storage(url: str, retention: Retention) -> Storage:
    """The storage that a URL names, opened."""
    if url != "memory:":
        raise ConfigurationError(
            "OPSCORE_STORAGE_URL names a storage that this version does not have; use memory:."
        )
    storage = MemoryStorage(retention)
    await storage.open()
    return storage
