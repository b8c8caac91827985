"""Where everything is kept. Only `open_storage` names a concrete store."""

from importlib.util import find_spec
from pathlib import Path

from opscore.exceptions import ConfigurationError
from opscore.models import Retention
from opscore.storage.interface import DueItems, Storage
from opscore.storage.memory import MemoryStorage

_SQLITE = "sqlite:///"
_POSTGRES = ("postgresql://", "postgres://")
DEFAULT_CONNECTIONS = 10

__all__ = ["DueItems", "Storage", "open_storage"]


async def open_storage(
    url: str, retention: Retention, connections: int = DEFAULT_CONNECTIONS
) -> Storage:
    """The storage that a URL names, opened; PostgreSQL gets at most so many connections."""
    storage = _storage(url, retention, connections)
    await storage.open()
    return storage


def _storage(url: str, retention: Retention, connections: int) -> Storage:
    if url == "memory:":
        return MemoryStorage(retention)
    # Loaded here: the service does not wait at its start for a store that it does not use.
    if url.startswith(_SQLITE) and len(url) > len(_SQLITE):
        from opscore.storage.sql import SqlStorage  # noqa: PLC0415 - see above
        from opscore.storage.sqlite import SqliteDriver  # noqa: PLC0415 - see above

        return SqlStorage(SqliteDriver(Path(url.removeprefix(_SQLITE))), retention)
    if url.startswith(_POSTGRES):
        _need_asyncpg()
        from opscore.storage.postgres import PostgresDriver  # noqa: PLC0415 - see above
        from opscore.storage.sql import SqlStorage  # noqa: PLC0415 - see above

        return SqlStorage(PostgresDriver(url, connections), retention)
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
