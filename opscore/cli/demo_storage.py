"""Where the demo's service keeps everything: a new place that is gone with the demo, or a URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from opscore.exceptions import ConfigurationError
from opscore.local_postgres import LocalPostgres

_SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Keeping:
    url: str
    where: str


@contextmanager
def keeping(storage: str, folder: Path) -> Iterator[Keeping]:
    """The storage for a word or a URL; what is started for it ends with the block."""
    if storage == "postgres":
        with LocalPostgres() as postgres:
            yield Keeping(postgres.url, "a PostgreSQL of its own")
    else:
        yield _without_a_server(storage, folder)


def _without_a_server(storage: str, folder: Path) -> Keeping:
    if storage == "memory":
        return Keeping("memory:", "memory")
    if storage == "sqlite":
        path = folder / "opscore.db"
        return Keeping(f"{_SQLITE}{path}", str(path))
    if storage.startswith(_SQLITE):
        # The service runs in another folder than the one that the caller had in mind.
        path = Path(storage.removeprefix(_SQLITE)).resolve()
        return Keeping(f"{_SQLITE}{path}", str(path))
    if ":" in storage:
        return Keeping(storage, "the storage that you named")
    raise ConfigurationError(
        f"--storage {storage!r} is unknown; use memory, sqlite, postgres, or a URL such as "
        "sqlite:///path or postgresql://user:password@host/database."
    )
