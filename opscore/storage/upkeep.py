"""Looking after a database, without a service: what is there, and bringing it up to date."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from opscore.exceptions import ConfigurationError
from opscore.models import Counts, Replica, Retention
from opscore.storage import driver_of, open_storage
from opscore.storage.migrations import Migration, applied, check, migrations
from opscore.storage.sql import replicas, tallies
from opscore.storage.sql.program import Dialect, Fetch, Program

_SQLITE = "sqlite:///"
_ALIVE_FOR = timedelta(seconds=15)

IN_MEMORY = (
    "OPSCORE_STORAGE_URL is memory:, and what is kept in memory lives inside the process of the "
    "service and ends with it; no other process can reach it. Name sqlite:///path or "
    "postgresql://user:password@host/database."
)


@dataclass(frozen=True, slots=True)
class Status:
    """`version` 0: nothing is there yet. The rest is known only of a database of today's schema."""

    version: int
    known: int
    counts: Counts | None = None
    size: int = 0
    alive: Sequence[Replica] = ()


def is_in_memory(url: str) -> bool:
    return url == "memory:"


def location(url: str) -> str:
    """The kind and the place of a database that could be opened, without the password."""
    if url.startswith(_SQLITE):
        return f"SQLite {Path(url.removeprefix(_SQLITE)).absolute()}"
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    user = f"{unquote(account.partition(':')[0])}@" if account else ""
    return f"PostgreSQL {user}{hosts or 'local socket'}{parts.path}"


async def look(url: str) -> Status:
    """What is there. Nothing is changed, and a service may run meanwhile."""
    if is_in_memory(url):
        raise ConfigurationError(IN_MEMORY)
    driver = driver_of(url)
    if _is_missing(url):
        return Status(0, len(migrations()))
    async with driver.transaction(writing=False, any_schema=True) as run:
        return await run(_status(driver.dialect))


async def bring_up_to_date(url: str) -> Sequence[Migration]:
    """Apply what is missing; which migrations these were."""
    before = await look(url)
    storage = await open_storage(url, Retention(), connections=1)
    await storage.close()
    return [one for one in migrations() if one.version > before.version]


def _is_missing(url: str) -> bool:
    return url.startswith(_SQLITE) and not Path(url.removeprefix(_SQLITE)).exists()


def _status(dialect: Dialect) -> Program[Status]:
    known = yield from applied(dialect)
    check(known)
    version, newest = max(known, default=0), len(migrations())
    if version < newest:
        return Status(version, newest)
    counts = yield from tallies.counts()
    found = yield from replicas.replicas()
    now = yield from replicas.time(dialect)
    size = yield Fetch(dialect.size)
    alive = [one for one in found if one.beat_at > now - _ALIVE_FOR]
    return Status(version, newest, counts, size[0][0], alive)
