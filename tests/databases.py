"""Empty PostgreSQL databases for tests, from one private server that a whole run shares.

Making a database takes some 50 ms, so that they are emptied and handed out again.
"""

import asyncio
import atexit
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import asyncpg
import pytest

from opscore.exceptions import ConfigurationError
from opscore.local_postgres import LocalPostgres, find_binaries
from opscore.models import Retention
from opscore.storage import open_storage

PATIENCE = 30
# Whoever is still connected, such as a process that was killed, would hold locks.
LEAVE = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()"""
BLANK = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
FILLED = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"""


def require_postgres() -> None:
    """Skip where there is no PostgreSQL, but never where a change is checked before it lands."""
    try:
        find_binaries()
    except ConfigurationError as error:
        if os.environ.get("CI"):
            pytest.fail(f"These tests must run here. {error}")
        pytest.skip(f"NOT TESTED ON POSTGRESQL. {error}")


def postgres_url() -> str:
    """The shared server's own database, to ask the server something; write nothing into it."""
    return _house().server.url


@contextmanager
def fresh_database() -> Iterator[str]:
    """The URL of a database without anything in it."""
    with _lent("fresh", _leave_blank) as url:
        yield url


@contextmanager
def migrated_database() -> Iterator[str]:
    """The URL of a database as a storage opened for the first time leaves it, in 2 ms."""
    with _lent("migrated", _migrate) as url:
        yield url


@contextmanager
def _lent(kind: str, prepare: Callable[["_Database"], Awaitable[str]]) -> Iterator[str]:
    house = _house()
    free = house.free.setdefault(kind, [])
    database = free.pop() if free else house.wait_for(house.make(prepare))
    yield database.url
    # Not reached when the test failed: what it left may not be emptied, and is not handed out.
    house.wait_for(database.empty())
    free.append(database)


class _Database:
    def __init__(self, url: str, connection: Any) -> None:
        self.url = url
        self.connection = connection
        self.emptying = BLANK

    async def empty(self) -> None:
        await self.connection.execute(LEAVE)
        await self.connection.execute(self.emptying)


async def _leave_blank(_: _Database) -> str:
    return BLANK


async def _migrate(database: _Database) -> str:
    """How to come back to what the migrations leave, at less cost than running them."""
    storage = await open_storage(database.url, Retention())
    await storage.close()
    run = database.connection.execute
    await run("CREATE SCHEMA kept")
    steps = ["SET session_replication_role = replica"]  # tables in any order: no foreign keys
    for row in await database.connection.fetch(FILLED):
        table = f'"{row["relname"]}"'
        await run(f"CREATE TABLE kept.{table} AS TABLE public.{table}")
        steps.append(f"DELETE FROM public.{table}")
        steps.append(f"INSERT INTO public.{table} SELECT * FROM kept.{table}")
    return "; ".join(steps)


class _House:
    """The server, and a thread for what is asked of it, wherever a test may run."""

    def __init__(self) -> None:
        self.server = LocalPostgres(fsync=False)
        self.free: dict[str, list[_Database]] = {}
        self._made: list[_Database] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        atexit.register(self.server.close)
        atexit.register(self._disconnect)
        self.server.start()

    def wait_for(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE)

    async def make(self, prepare: Callable[[_Database], Awaitable[str]]) -> _Database:
        name = f"test_{len(self._made)}"
        keeper = await asyncpg.connect(self.server.url)
        await keeper.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        await keeper.close()
        url = self.server.url_of(name)
        database = _Database(url, await asyncpg.connect(url))
        self._made.append(database)
        database.emptying = await prepare(database)
        return database

    def _disconnect(self) -> None:
        for database in self._made:
            self.wait_for(database.connection.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@cache
def _house() -> _House:
    require_postgres()
    return _House()
