"""Storages for the measurements: real ones, on a real disk, with nothing switched off."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg

from opscore.local_postgres import LocalPostgres

DURABLE = ("sqlite", "postgres")
_numbers = count()


@contextmanager
def server() -> Iterator[LocalPostgres]:
    """A PostgreSQL of the measurements' own; it waits for the disk at each commit."""
    with LocalPostgres(fsync=True) as running:
        yield running


@contextmanager
def empty_url(kind: str, postgres: LocalPostgres) -> Iterator[str]:
    if kind == "memory":
        yield "memory:"
    elif kind == "sqlite":
        # Beside the project, not where temporary files may live in memory.
        with TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
            yield f"sqlite:///{folder}/opscore.db"
    else:
        yield _new_database(postgres)


def _new_database(postgres: LocalPostgres) -> str:
    name = f"bench_{next(_numbers)}"
    ask(postgres.url, f"CREATE DATABASE {name}")
    return postgres.url_of(name)


def ask(url: str, sql: str) -> None:
    """Have PostgreSQL run this."""

    async def run() -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    asyncio.run(run())
