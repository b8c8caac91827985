"""SQLite: one writer thread with group commit, readers on the side, one process a file."""

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from opscore.crash_points import crash_point
from opscore.exceptions import ConfigurationError, StorageError
from opscore.storage.file_lock import FileLock
from opscore.storage.migrations import applied, check, check_current, migrate
from opscore.storage.sql.driver import Driver, Run
from opscore.storage.sql.program import SQLITE, Execute, Program, Row

logger = logging.getLogger(__name__)

R = TypeVar("R")

_BUSY_SECONDS = 5.0
_CACHED_STATEMENTS = 512
_PRAGMAS = ("journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY")


@dataclass
class Work:
    """A program that waits for the writer, and how it ended."""

    program: Program[Any]
    done: "asyncio.Future[Any]"
    result: Any = None
    error: BaseException | None = None


class SqliteDriver(Driver):
    dialect = SQLITE

    def __init__(self, path: Path) -> None:
        # However the file is named, there is one lock beside it.
        self._path = Path(os.path.realpath(path))
        self._lock = FileLock(self._path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._scanner = ThreadPoolExecutor(2, thread_name_prefix="sqlite-scanner")
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._written: sqlite3.Connection
        self._waiting: list[Work] = []
        self._long: list[Work] = []
        self._loop_task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._lock.acquire()
        crash_point("sqlite.file-locked")
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._writer, self._bring_up_to_date)
        except ConfigurationError:
            await self.close()
            raise

    async def close(self) -> None:
        while self._loop_task is not None:
            await asyncio.wait([self._loop_task])
        self._writer.shutdown()
        self._scanner.shutdown()
        for connection in self._connections:
            connection.close()
        self._lock.release()

    # --- reading --------------------------------------------------------------------------

    async def read(self, program: Program[R]) -> R:
        """Run where it is asked: reading a few rows takes less than a hop to a thread."""
        try:
            return _run(self._connection(), program)
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    async def scan(self, program: Program[R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._scanner, self._scan, program)

    def _scan(self, program: Program[R]) -> R:
        connection = self._connection()
        try:
            connection.execute("BEGIN")
            try:
                return _run(connection, program)
            finally:
                connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise _unavailable(error) from error

    def _connection(self) -> sqlite3.Connection:
        """This thread's own."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self._path)
            self._connections.append(connection)
        return connection

    # --- writing --------------------------------------------------------------------------

    async def write(
        self,
        make: Callable[[], Program[R]],
        urgent: bool = False,  # noqa: ARG002 - there is one writer, and it never waits for others
        long: bool = False,
    ) -> R:
        work = Work(make(), asyncio.get_running_loop().create_future())
        queue = self._long if long else self._waiting
        queue.append(work)
        if self._loop_task is None:
            self._loop_task = asyncio.create_task(self._write_all(), name="sqlite commits")
        result: R = await work.done
        return result

    async def _write_all(self) -> None:
        """Programs that come while a commit is under way share the next one.

        Their statements run where they are asked, each taking less than a hop to a thread; a
        thread waits for the disk, and does what takes long.
        """
        loop = asyncio.get_running_loop()
        try:
            while self._waiting or self._long:
                group, self._waiting = self._waiting, []
                if group:
                    self._begin(group)
                    await loop.run_in_executor(self._writer, self._commit, group)
                    for work in group:
                        _tell(work)
                if self._long:
                    long = self._long.pop(0)
                    await loop.run_in_executor(self._writer, self._begin_and_commit, [long])
                    _tell(long)
        finally:
            self._loop_task = None

    def _begin_and_commit(self, group: Sequence[Work]) -> None:
        self._begin(group)
        self._commit(group)

    def _begin(self, group: Sequence[Work]) -> None:
        try:
            self._written.execute("BEGIN IMMEDIATE")
            crash_point("sqlite.begun")
            for work in group:
                _run_within(self._written, work)
        except sqlite3.Error as error:
            self._fail(group, error)

    def _commit(self, group: Sequence[Work]) -> None:
        if not self._written.in_transaction:
            return
        try:
            crash_point("sqlite.before-commit")
            self._written.execute("COMMIT")
            crash_point("sqlite.committed")
        except sqlite3.Error as error:
            self._fail(group, error)

    def _fail(self, group: Sequence[Work], error: sqlite3.Error) -> None:
        for work in group:
            work.error = work.error or _unavailable(error)
        try:
            if self._written.in_transaction:
                self._written.execute("ROLLBACK")
        except sqlite3.Error as second:
            # A connection that is closed in a transaction takes it back.
            logger.warning("SQLite could not roll back (%s); it is connected anew.", second)
            self._written.close()
            self._written = _connect(self._path)
            self._connections.append(self._written)

    @asynccontextmanager
    async def transaction(self, writing: bool, any_schema: bool = False) -> AsyncIterator[Run]:
        """Readers do not need the lock of the file: they see it as it was when they began."""
        loop = asyncio.get_running_loop()
        # Whoever is interrupted waits for the statement under way before the connection closes.
        with (
            closing(_connect_existing(self._path, writing)) as connection,
            ThreadPoolExecutor(1, thread_name_prefix="sqlite-transaction") as thread,
        ):

            async def run(program: Program[R]) -> R:
                return await loop.run_in_executor(thread, _run_alone, connection, program)

            await run(_begin(writing))
            if not any_schema:
                await run(check_current(self.dialect))
            yield run
            await run(_commit())

    def _bring_up_to_date(self) -> None:
        try:
            _look_at(self._path)
            _create_private(self._path)
            connection = self._written = self._connection()
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            connection.execute("BEGIN IMMEDIATE")
            _run(connection, migrate(self.dialect, datetime.now(UTC)))
            crash_point("sqlite.schema-written")
            connection.execute("COMMIT")
            crash_point("sqlite.schema-committed")
        except sqlite3.Error as error:
            raise ConfigurationError(
                f"OPSCORE_STORAGE_URL: {self._path} cannot be used as a database ({error}); "
                "restore a backup or name another file."
            ) from error


def _look_at(path: Path) -> None:
    """Refuse a file that is damaged or foreign, and leave it as it is."""
    # One whose making was cut off has to be written to before it can be read.
    if not path.exists() or Path(f"{path}-journal").exists():
        return
    # Closing a connection that may write could move the log into the file.
    with closing(_connect_to_file(path, "ro")) as connection:
        check(_run(connection, applied(SQLITE)))
        ((said,),) = connection.execute("PRAGMA quick_check(1)").fetchall()
    if said != "ok":
        raise sqlite3.DatabaseError(said.splitlines()[-1])


def _create_private(path: Path) -> None:
    """Create a missing file for its owner alone: it holds what agents and clients have sent.

    SQLite gives its log the mode of the file. A file that exists keeps the mode it has, which
    an operator may have chosen. Where the file cannot be made, SQLite says why.
    """
    with suppress(OSError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        cached_statements=_CACHED_STATEMENTS,
        # Closed at the end by the thread that closes the driver.
        check_same_thread=False,
    )


def _connect_existing(path: Path, writing: bool) -> sqlite3.Connection:
    try:
        connection = _connect_to_file(path, "rw")
    except sqlite3.Error as error:
        raise ConfigurationError(
            f"OPSCORE_STORAGE_URL: there is no database {path} that can be opened ({error}); "
            "name the file that the service uses."
        ) from error
    connection.execute("PRAGMA synchronous = FULL" if writing else "PRAGMA query_only = ON")
    return connection


def _connect_to_file(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )


def _begin(writing: bool) -> Program[None]:
    yield Execute("BEGIN IMMEDIATE" if writing else "BEGIN")


def _commit() -> Program[None]:
    yield Execute("COMMIT")


def _run_alone(connection: sqlite3.Connection, program: Program[R]) -> R:
    try:
        return _run(connection, program)
    except sqlite3.Error as error:
        raise _unavailable(error) from error


def _run(connection: sqlite3.Connection, program: Program[R]) -> R:
    answer: Sequence[Row] = ()
    try:
        statement = next(program)
        while True:
            if isinstance(statement, Execute):
                if len(statement.rows) == 1:
                    connection.execute(statement.sql, statement.rows[0])
                else:
                    connection.executemany(statement.sql, statement.rows)
                answer = ()
            else:
                answer = connection.execute(statement.sql, statement.args).fetchall()
            statement = program.send(answer)
    except StopIteration as end:
        result: R = end.value
        return result


def _run_within(connection: sqlite3.Connection, work: Work) -> None:
    """Run a program of a group: if it fails, only what it wrote is taken back."""
    connection.execute("SAVEPOINT work")
    try:
        work.result = _run(connection, work.program)
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - handed to whoever waits for this program
        work.error = error
        connection.execute("ROLLBACK TO work")
    connection.execute("RELEASE work")


def _tell(work: Work) -> None:
    if work.done.cancelled():
        return
    if work.error is not None:
        work.done.set_exception(work.error)
    else:
        work.done.set_result(work.result)


def _unavailable(error: sqlite3.Error) -> StorageError:
    return StorageError(f"The database did not take the request ({error}).", retry_after=1)
