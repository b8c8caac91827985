"""Looking after a database, without a service: what is there, and bringing it up to date."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from opscore.exceptions import ConfigurationError
from opscore.models import Counts, Replica, Retention
from opscore.processes import has_exited, place_of_processes
from opscore.storage import driver_of, open_storage
from opscore.storage.location import SQLITE, is_in_memory, sqlite_file
from opscore.storage.migrations import Migration, applied, check, migrations
from opscore.storage.sql import replicas, tallies
from opscore.storage.sql.program import Dialect, Fetch, Program

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


async def read_status(url: str) -> Status:
    """Read what is there. Nothing is changed, and a service may run meanwhile."""
    if is_in_memory(url):
        raise ConfigurationError(IN_MEMORY)
    driver = driver_of(url)
    if _is_missing(url):
        raise ConfigurationError(
            f"OPSCORE_STORAGE_URL: there is no database {sqlite_file(url)}; name the file that the "
            "service uses, or make a new one with opscore storage migrate."
        )
    async with driver.transaction(writing=False, any_schema=True) as run:
        return await run(_status(driver.dialect))


async def bring_up_to_date(url: str) -> Sequence[Migration]:
    """Apply what is missing; which migrations these were."""
    before = 0 if _is_missing(url) else (await read_status(url)).version
    storage = await open_storage(url, Retention(), connections=1)
    await storage.close()
    return [one for one in migrations() if one.version > before]


def _is_missing(url: str) -> bool:
    return url.startswith(SQLITE) and not sqlite_file(url).exists()


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
    here = place_of_processes()
    alive = [one for one in found if _is_alive(one, now, here)]
    return Status(version, newest, counts, size[0][0], alive)


def _is_alive(replica: Replica, now: datetime, here: str) -> bool:
    """A beat of the future is from before the clock was set back, and says nothing."""
    return abs(now - replica.beat_at) < _ALIVE_FOR and not has_exited(replica, here)
