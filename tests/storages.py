"""An empty storage of each kind, for the tests that run on all of them."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from opscore.models import Retention
from opscore.storage import Storage, open_storage

KINDS = ("memory", "sqlite")

Opener = Callable[[Retention], Awaitable[Storage]]

# What these tests are about is not that files outlive the power: here writing costs nothing.
_QUICK = Path("/dev/shm")


@contextmanager
def opener(kind: str) -> Iterator[Opener]:
    """Opens storages that are empty. Whoever opens one closes it, before the end of this."""
    with TemporaryDirectory(dir=_QUICK if _QUICK.is_dir() else None) as folder:
        opened = 0

        async def open_one(retention: Retention) -> Storage:
            nonlocal opened
            opened += 1
            url = "memory:" if kind == "memory" else f"sqlite:///{folder}/{opened}.db"
            return await open_storage(url, retention)

        yield open_one
