"""Where everything is kept. Only `open_storage` names a concrete store."""

from pathlib import Path

from opscore.exceptions import ConfigurationError
from opscore.models import Retention
from opscore.storage.interface import DueItems, Storage
from opscore.storage.memory import MemoryStorage

_SQLITE = "sqlite:///"

__all__ = ["DueItems", "Storage", "open_storage"]


async def open_storage(url: str, retention: Retention) -> Storage:
    """The storage that a URL names, opened."""
    storage = _storage(url, retention)
    await storage.open()
    return storage


def _storage(url: str, retention: Retention) -> Storage:
    if url == "memory:":
        return MemoryStorage(retention)
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        # Loaded here: the service does not wait at its start for a store that it does not use.
        from opscore.storage.sql import SqlStorage  # noqa: PLC0415 - see above
        from opscore.storage.sqlite import SqliteDriver  # noqa: PLC0415 - see above

        return SqlStorage(SqliteDriver(Path(url.removeprefix(_SQLITE))), retention)
    raise ConfigurationError(
        "OPSCORE_STORAGE_URL names a storage that this version does not have; use memory: or "
        "sqlite:///path."
    )
