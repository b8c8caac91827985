"""SQLite: many writers, what fails, and a disk without space."""

import asyncio
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from opscore.exceptions import ConfigurationError, StorageError, VersionConflictError
from opscore.models import Change, Event, EventType, Retention
from opscore.storage import open_storage
from opscore.storage.sql.program import Execute, Fetch, Program
from opscore.storage.sqlite import SqliteDriver
from tests import builders
from tests.acceptance.processes import eventually, service
from tests.builders import at

pytestmark = pytest.mark.acceptance

API = "/v1/opscore"
WRITERS = 50
EACH = 400


async def test_F71_many_writers_never_find_the_database_locked(tmp_path: Path) -> None:
    """A reader of another process, such as a backup, does not stand in their way either."""
    file = tmp_path / "opscore.db"
    storage = await open_storage(f"sqlite:///{file}", Retention())

    async def write() -> None:
        for _ in range(EACH):
            await storage.apply(Change(events=(Event(EventType.TASK_LATE, at(1)),)))

    reader = sqlite3.connect(file)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM events").fetchone() == (0,)
    await asyncio.gather(*(write() for _ in range(WRITERS)))
    reader.close()
    assert (await storage.counts()).events == WRITERS * EACH
    await storage.close()


# --- the driver alone ---------------------------------------------------------------------------


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[SqliteDriver]:
    driver = SqliteDriver(tmp_path / "opscore.db")
    await driver.open()
    yield driver
    await driver.close()


def write(name: str, error: Exception | None = None) -> Program[None]:
    yield Execute("INSERT INTO turns (level, turn) VALUES (?, 1)", [(name,)])
    if error is not None:
        raise error


def written() -> Program[list[str]]:
    rows = yield Fetch("SELECT level FROM turns ORDER BY level")
    return [row[0] for row in rows]


async def test_a_commit_waits_for_the_disk(driver: SqliteDriver) -> None:
    def settings() -> Program[tuple[str, int]]:
        journal = yield Fetch("PRAGMA journal_mode")
        synchronous = yield Fetch("PRAGMA synchronous")
        return journal[0][0], synchronous[0][0]

    full = 2
    assert await driver.write(settings) == ("wal", full)


async def test_what_shares_a_commit_with_a_program_that_fails_is_kept(
    driver: SqliteDriver,
) -> None:
    error = VersionConflictError("The record was changed by someone else meanwhile.")
    outcomes = await asyncio.gather(
        driver.write(lambda: write("first")),
        driver.write(lambda: write("failed", error)),
        driver.write(lambda: write("last")),
        return_exceptions=True,
    )
    assert list(outcomes) == [None, error, None]
    assert await driver.read(written()) == ["first", "last"]


_FAILS_AT_COMMIT = """
PRAGMA foreign_keys = ON;
CREATE TABLE unfounded (level TEXT REFERENCES turns (level) DEFERRABLE INITIALLY DEFERRED);
"""


async def test_F72_a_commit_that_fails_is_told_and_leaves_nothing(driver: SqliteDriver) -> None:
    driver._written.executescript(_FAILS_AT_COMMIT)

    def fail() -> Program[None]:
        yield from write("lost")
        yield Execute("INSERT INTO unfounded VALUES ('none')")

    with pytest.raises(StorageError, match="FOREIGN KEY"):
        await driver.write(fail)
    await driver.write(lambda: write("kept"))
    assert await driver.read(written()) == ["kept"]


# --- the disk -----------------------------------------------------------------------------------


PAGE = 4096


async def fill(file: Path) -> None:
    storage = await open_storage(f"sqlite:///{file}", Retention())
    agents = tuple(builders.agent(f"a{number}", name="n" * 500) for number in range(300))
    await storage.apply(Change(agents=agents))
    await storage.close()


async def copy_in_use(file: Path, folder: Path) -> Path:
    """The file as a process leaves it that is killed: its newest writes stand in the log."""
    storage = await open_storage(f"sqlite:///{file}", Retention())
    await storage.apply(Change(events=(Event(EventType.TASK_LATE, at(1)),)))
    for name in (file.name, f"{file.name}-wal"):
        shutil.copy(file.with_name(name), folder)
    await storage.close()
    return folder / file.name


def damage(file: Path) -> None:
    """Where records are; the head of the file stays whole."""
    middle = file.stat().st_size // PAGE // 2
    with file.open("r+b") as stream:
        stream.seek(middle * PAGE)
        stream.write(b"\xa5" * PAGE * 20)


def contents(file: Path) -> list[bytes]:
    return [one.read_bytes() for one in (file, Path(f"{file}-wal")) if one.exists()]


@pytest.mark.parametrize("killed", [False, True])
async def test_F75_a_file_with_damaged_pages_is_refused_and_left_as_it_is(
    tmp_path: Path, killed: bool
) -> None:
    file = tmp_path / "opscore.db"
    await fill(file)
    (tmp_path / "killed").mkdir()
    if killed:
        file = await copy_in_use(file, tmp_path / "killed")
    damage(file)
    before = contents(file)
    driver = SqliteDriver(file)
    with pytest.raises(ConfigurationError, match="restore a backup"):
        await driver.open()
    await driver.close()
    assert [one for one in contents(file) if one] == before


async def test_what_a_killed_process_left_in_the_log_is_there(tmp_path: Path) -> None:
    (tmp_path / "killed").mkdir()
    await fill(tmp_path / "opscore.db")
    file = await copy_in_use(tmp_path / "opscore.db", tmp_path / "killed")
    storage = await open_storage(f"sqlite:///{file}", Retention())
    counts = await storage.counts()
    await storage.close()
    assert (counts.agents, counts.events) == (300, 1)


def log_size(file: Path) -> int:
    return Path(f"{file}-wal").stat().st_size


async def test_F72_a_full_disk_costs_503_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "opscore.db"
    with service(tmp_path, {"OPSCORE_STORAGE_URL": f"sqlite:///{file}"}) as running:
        async with running.client() as http:

            async def register(number: int) -> int:
                agent = {"agentId": f"a{number}", "agentName": f"a{number}", "capabilities": []}
                return (await http.post(f"{API}/agents", json=agent)).status_code

            assert await register(0) == 201
            process = running.process.popen.pid
            # No file may become longer than the log of writes is now: so the disk is full.
            _, hard = resource.prlimit(process, resource.RLIMIT_FSIZE)
            resource.prlimit(process, resource.RLIMIT_FSIZE, (log_size(file), hard))
            assert [await register(number) for number in (1, 2, 3)] == [503, 503, 503]
            assert (await http.get(f"{API}/agent/a0")).status_code == 200
            assert (await http.get("/health/live")).status_code == 200
            await eventually(lambda: readiness(http), (503).__eq__)
            resource.prlimit(process, resource.RLIMIT_FSIZE, (hard, hard))
            assert [await register(number) for number in (1, 2, 3)] == [201, 201, 201]
            assert (await http.get("/health/ready")).json()["agents"] == 4
            assert await readiness(http) == 200
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB, which only root may mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mounting, capture_output=True, check=False).returncode != 0:
        pytest.skip("A small file system cannot be mounted here; run this test as root.")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.fault("F115")
async def test_full_disk_under_sqlite_makes_the_service_not_ready(
    tmp_path: Path, small_disk: Path
) -> None:
    with service(tmp_path, {"OPSCORE_STORAGE_URL": f"sqlite:///{small_disk}/opscore.db"}) as one:
        async with one.client() as http:
            assert await readiness(http) == 200
            filler = small_disk / "filler"
            with filler.open("wb", buffering=0) as stream, suppress(OSError):
                while stream.write(b"x" * PAGE):
                    pass
            # Nobody writes but the check itself: it needs no write of others to find out.
            await eventually(lambda: readiness(http), (503).__eq__)
            filler.unlink()
            await eventually(lambda: readiness(http), (200).__eq__)


async def readiness(http: httpx.AsyncClient) -> int:
    return (await http.get("/health/ready")).status_code
