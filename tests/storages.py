"""An empty storage of each kind, for the tests that run on all of them."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from opscore.models import Retention
from opscore.storage import Storage, open_storage
from tests.databases import migrated_database, require_postgres

KINDS = ("memory", "sqlite", "postgres")

Opener = Callable[[Retention], Coroutine[Any, Any, Storage]]

# These tests are not about files that outlive the power: where there is one, they are written
# to a folder in memory.
_QUICK = Path("/dev/shm")


@contextmanager
def opener(kind: str) -> Iterator[Opener]:
    """Opens storages that are empty. Whoever opens one closes it, before the end of this."""
    if kind == "postgres":
        require_postgres()
    with ExitStack() as stack:

        async def open_one(retention: Retention) -> Storage:
            return await open_storage(stack.enter_context(empty_url(kind)), retention)

        yield open_one


@contextmanager
def empty_url(kind: str) -> Iterator[str]:
    if kind == "memory":
        yield "memory:"
    elif kind == "sqlite":
        with TemporaryDirectory(dir=_QUICK if _QUICK.is_dir() else None) as folder:
            yield f"sqlite:///{folder}/opscore.db"
    else:
        with migrated_database() as url:
            yield url
