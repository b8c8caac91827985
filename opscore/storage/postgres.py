"""PostgreSQL: several processes on one database, each with a bounded number of connections."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

import asyncpg
from asyncpg.connection import Connection

from opscore.crash_points import crash_point
from opscore.exceptions import ConfigurationError, StorageError
from opscore.storage.connections import Connections
from opscore.storage.hints import Hints
from opscore.storage.literals import written_out
from opscore.storage.migrations import check_current, migrate
from opscore.storage.sql.driver import CommitUnknownError, Driver, Run
from opscore.storage.sql.program import POSTGRES, Execute, Program, Row

logger = logging.getLogger(__name__)

R = TypeVar("R")

_WAIT_FOR_CONNECTION = 2.0
_STATEMENT_SECONDS = 5.0
_LOCK_SECONDS = 2.0
# What the server does not end by itself, because it cannot be reached, is ended here.
_TRANSACTION_SECONDS = 7.0
# Short enough to try again, on another connection, while the leases last.
_URGENT_SECONDS = 3.0
_CACHED_STATEMENTS = 500
_ENCODING = "UTF8"
_TRIES = 5
_LONGEST_PAUSE = 0.02
_WAIT_AT_START = 30.0
_PAUSE_AT_START = 0.5

_BEGIN = "BEGIN"
_BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"

_SETTINGS = {
    "application_name": "opscore",
    "statement_timeout": f"{_STATEMENT_SECONDS:g}s",
    "lock_timeout": f"{_LOCK_SECONDS:g}s",
    "idle_in_transaction_session_timeout": f"{_TRANSACTION_SECONDS:g}s",
    # As values are written by us.
    "standard_conforming_strings": "on",
    # Every statement is short; compiling it would take longer than running it.
    "jit": "off",
    # Nor would a better plan for these very values make up for planning it each time.
    "plan_cache_mode": "force_generic_plan",
}

# Another one did the same at this moment; the next try sees what it left.
_COLLISIONS = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)
_MISCONFIGURED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ClientConfigurationError,
)
_BROKEN = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
# What is connected to the same server is of no use either: it is silent, gone, or a standby.
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
)
_UNLIMITED = (
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
)
_PATIENT = ("SET lock_timeout = 0",)


class PostgresDriver(Driver):
    dialect = POSTGRES

    def __init__(self, url: str, connections: int) -> None:
        self._url = url
        self._links = Connections(self._connect, connections, _WAIT_FOR_CONNECTION)
        self._hints: Hints | None = None
        # Leases are kept even when everybody else waits for a connection.
        self._urgent = Connections(self._connect, 1, _WAIT_FOR_CONNECTION)

    async def open(self) -> None:
        """The database may come up later than the service; it is given some time."""
        deadline = time.monotonic() + _WAIT_AT_START
        while True:
            try:
                await self._bring_up_to_date()
            except StorageError as error:
                if isinstance(error.__cause__, _MISCONFIGURED):
                    raise ConfigurationError(
                        f"OPSCORE_STORAGE_URL: the database refuses ({_said(error.__cause__)}); "
                        "check user, password, database name and rights."
                    ) from error
                if time.monotonic() > deadline:
                    raise ConfigurationError(f"OPSCORE_STORAGE_URL: {error.detail}") from error
                logger.warning("Waiting for the database: %s", error.detail)
                await asyncio.sleep(_PAUSE_AT_START)
            else:
                return

    async def close(self) -> None:
        if self._hints is not None:
            await self._hints.close()
        self._links.close()
        self._urgent.close()

    def on_hint(self, wake: Callable[[], None]) -> None:
        self._hints = Hints(self._connect, wake)

    def hint(self) -> None:
        if self._hints is not None:
            self._hints.give()

    # --- reading --------------------------------------------------------------------------

    async def read(self, program: Program[R]) -> R:
        async with self._link() as link:
            return await _run(link, program)

    async def scan(self, program: Program[R]) -> R:
        async with self._link() as link:
            await link.execute(_BEGIN_READING)
            result = await _run(link, program)
            await link.execute("COMMIT")
            return result

    # --- writing --------------------------------------------------------------------------

    async def write(
        self,
        make: Callable[[], Program[R]],
        urgent: bool = False,
        long: bool = False,  # noqa: ARG002 - each program has a connection of its own
    ) -> R:
        for tries in range(1, _TRIES + 1):
            try:
                return await self._transaction(make(), urgent)
            except StorageError as error:
                if tries == _TRIES or not isinstance(error.__cause__, _COLLISIONS):
                    raise
            await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE * tries))
        raise AssertionError("the last try returns or raises")

    async def _transaction(self, program: Program[R], urgent: bool) -> R:
        committing = False
        try:
            async with self._link(urgent) as link:
                await link.execute(_BEGIN)
                crash_point("postgres.begun")
                result, unsent = await _converse(link, program)
                committing = True
                crash_point("postgres.before-commit")
                await _send(link, [*unsent, "COMMIT"])
                crash_point("postgres.committed")
                return result
        except StorageError as error:
            if committing and not isinstance(error.__cause__, _COLLISIONS):
                raise CommitUnknownError(error.detail, retry_after=1) from error
            raise

    @asynccontextmanager
    async def transaction(self, writing: bool, any_schema: bool = False) -> AsyncIterator[Run]:
        async with self._own_link(writing) as link:

            async def run(program: Program[R]) -> R:
                with _broken_as_unavailable():
                    return await _run(link, program)

            if not any_schema:
                await run(check_current(self.dialect))
            yield run
            await run(_commit())

    async def _bring_up_to_date(self) -> None:
        """However long that takes, and however long another process takes that does the same."""
        async with self._own_link(writing=True) as link:
            with _broken_as_unavailable():
                _check_encoding(await link.fetchval("SHOW server_encoding"))
                await _run(link, migrate(self.dialect, datetime.now(UTC)))
                crash_point("postgres.schema-written")
                await link.execute("COMMIT")
                crash_point("postgres.schema-committed")

    # --- connections ----------------------------------------------------------------------

    @asynccontextmanager
    async def _own_link(self, writing: bool) -> AsyncIterator[Connection]:
        """A transaction that may take any time, on a connection that ends with it."""
        with _broken_as_unavailable():
            link = await self._connect()
        try:
            beginning = (*_PATIENT, _BEGIN) if writing else (_BEGIN_READING,)
            with _broken_as_unavailable():
                for statement in (*_UNLIMITED, *beginning):
                    await link.execute(statement, timeout=_STATEMENT_SECONDS)
            yield link
        finally:
            link.terminate()

    @asynccontextmanager
    async def _link(self, urgent: bool = False) -> AsyncIterator[Connection]:
        """A connection for one transaction; what goes wrong with it is a StorageError."""
        links = self._urgent if urgent else self._links
        seconds = _URGENT_SECONDS if urgent else _TRANSACTION_SECONDS
        try:
            async with asyncio.timeout(seconds), links.take() as link:
                try:
                    yield link
                except asyncpg.PostgresError:
                    await _roll_back(link)
                    raise
                except BaseException:
                    # Nobody knows what it is in the middle of.
                    link.terminate()
                    raise
        except _BROKEN as error:
            if isinstance(error, _LOST):
                self._links.drop_idle()
                self._urgent.drop_idle()
            raise _unavailable(error) from error

    async def _connect(self) -> Connection:
        try:
            link: Connection = await asyncpg.connect(
                self._url,
                timeout=_WAIT_FOR_CONNECTION,
                statement_cache_size=_CACHED_STATEMENTS,
                server_settings=_SETTINGS,
                target_session_attrs="read-write",
            )
        except ValueError as error:
            if isinstance(error, asyncpg.InterfaceError):
                raise
            # What is said of a URL that cannot be split may hold a part of the password.
            raise ConfigurationError(
                "OPSCORE_STORAGE_URL cannot be read; write special characters in the password "
                "as %XX, such as %2F for a slash."
            ) from None
        return link


def _check_encoding(encoding: str) -> None:
    """Refuse a database that cannot hold every text, and would fail at the first foreign name."""
    if encoding != _ENCODING:
        raise ConfigurationError(
            f"OPSCORE_STORAGE_URL: the database has the encoding {encoding}, and Ops-Core needs "
            f"{_ENCODING}; create one with: createdb --encoding={_ENCODING} --locale=C "
            "--template=template0 NAME"
        )


def _commit() -> Program[None]:
    yield Execute("COMMIT")


async def _converse(link: Connection, program: Program[R]) -> tuple[R, list[str]]:
    """Run a program; its result, and the last of its statements, which are still to be sent.

    Statements without rows go in one message with those that follow, up to the next answer that
    the program waits for: on a busy loop each message waits for many others.
    """
    unsent: list[str] = []
    answer: Sequence[Row] = ()
    try:
        statement = next(program)
        while True:
            if isinstance(statement, Execute):
                unsent.append(written_out(statement))
                answer = ()
            else:
                await _send(link, unsent)
                unsent.clear()
                answer = await link.fetch(_numbered(statement.sql), *statement.args)
            statement = program.send(answer)
    except StopIteration as stop:
        return stop.value, unsent


async def _run(link: Connection, program: Program[R]) -> R:
    result, unsent = await _converse(link, program)
    await _send(link, unsent)
    return result


async def _send(link: Connection, statements: Sequence[str]) -> None:
    if statements:
        await link.execute(";\n".join(statements))


@lru_cache(maxsize=1024)
def _numbered(sql: str) -> str:
    """With $1, $2, … in place of the question marks; no text of ours has one in a literal."""
    parts = sql.split("?")
    return parts[0] + "".join(f"${number}{part}" for number, part in enumerate(parts[1:], 1))


async def _roll_back(link: Connection) -> None:
    try:
        if link.is_in_transaction():
            await link.execute("ROLLBACK")
    except _BROKEN as error:
        logger.debug("A connection is dropped, for it could not roll back: %s", _said(error))
        link.terminate()


def _said(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def _broken_as_unavailable() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise _unavailable(error) from error


def _unavailable(error: BaseException) -> StorageError:
    return StorageError(
        f"The database did not take the request ({_said(error)}); try again shortly.",
        retry_after=1,
    )
