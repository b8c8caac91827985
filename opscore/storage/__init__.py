"""Where everything is kept. Only this module names a concrete store."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from opscore.exceptions import ConfigurationError
from opscore.models import Retention
from opscore.storage.interface import DueItems, Storage
from opscore.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from opscore.storage.sql import Driver

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")
DEFAULT_CONNECTIONS = 10

__all__ = ["DueItems", "Storage", "driver_of", "open_storage", "storage_of"]


async def open_storage(
    url: str, retention: Retention, connections: int = DEFAULT_CONNECTIONS
) -> Storage:
    """The storage that a URL names, opened; PostgreSQL gets at most so many connections."""
    storage = storage_of(url, retention, connections)
    await storage.open()
    return storage


def storage_of(url: str, retention: Retention, connections: int = DEFAULT_CONNECTIONS) -> Storage:
    """The storage that a URL names, not opened: good for looking at it and for exports."""
    if url == "memory:":
        return MemoryStorage(retention)
    # Loaded here: the service does not wait at its start for a store that it does not use.
    driver = driver_of(url, connections)
    from opscore.storage.sql import SqlStorage  # noqa: PLC0415 - see above

    return SqlStorage(driver, retention)


def driver_of(url: str, connections: int = DEFAULT_CONNECTIONS) -> "Driver":
    """The engine of a database that a URL names."""
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        from opscore.storage.sqlite import SqliteDriver  # noqa: PLC0415 - see above

        return SqliteDriver(Path(url.removeprefix(_SQLITE)))
    if url.startswith(_POSTGRES):
        _need_asyncpg()
        from opscore.storage.postgres import PostgresDriver  # noqa: PLC0415 - see above

        return PostgresDriver(url, connections)
    raise ConfigurationError(
        "OPSCORE_STORAGE_URL names a storage that this version does not have; use memory:, "
        "sqlite:///path or postgresql://user:password@host/database."
    )


def _need_asyncpg() -> None:
    if find_spec("asyncpg") is None:
        raise ConfigurationError(
            "OPSCORE_STORAGE_URL names PostgreSQL, which needs the extra postgres; install "
            "opscore[postgres]."
        )
