"""The private PostgreSQL: it starts, recovers, refuses clearly and leaves nothing behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from opscore.exceptions import ConfigurationError
from opscore.local_postgres import BINARIES_VARIABLE, LocalPostgres, find_binaries
from tests.acceptance.processes import eventually
from tests.databases import fresh_database, migrated_database, postgres_url, require_postgres

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 30
PLAIN_USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
OWNER = """
import asyncio, asyncpg, json, os, sys
from opscore.local_postgres import LocalPostgres

async def ask(url):
    connection = await asyncpg.connect(url)
    answer = await connection.fetchval("SELECT 6 * 7")
    await connection.close()
    return answer

with LocalPostgres() as postgres:
    answer = asyncio.run(ask(postgres.url))
    print(json.dumps({"user": os.geteuid(), "answer": answer, "pid": postgres.pid}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def binaries() -> None:
    require_postgres()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a server without a folder of the caller's makes its own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


def ask(url: str, *statements: str) -> Any:
    return asyncio.run(asked(url, *statements))


async def asked(url: str, *statements: str) -> Any:
    """What the last statement answers."""
    connection = await asyncpg.connect(url)
    try:
        return [await connection.fetchval(statement) for statement in statements][-1]
    finally:
        await connection.close()


def socket_folder(url: str) -> Path:
    return Path(url.partition("host=")[2].partition("&")[0])


def is_alive(pid: int) -> bool:
    """A dead process that nobody has waited for yet is not alive."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1] != "Z"
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()


# --- a life ---------------------------------------------------------------------------------


def test_it_answers_and_is_gone_with_its_block(places: Path) -> None:
    with LocalPostgres() as postgres:
        url, pid = postgres.url, postgres.pid
        assert ask(url, "SELECT 6 * 7") == 42
        assert ask(url, "SHOW fsync") == "on"
        assert ask(url, "SHOW listen_addresses") == ""
        assert pid is not None
        assert socket_folder(url).exists()
        assert list(places.iterdir()) != []
    assert not is_alive(pid)
    assert not socket_folder(url).exists()
    assert list(places.iterdir()) == []
    assert postgres.pid is None


async def test_F01_killed_it_recovers_what_was_committed() -> None:
    with LocalPostgres() as postgres:
        await asked(postgres.url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        address, killed = postgres.url, postgres.pid
        assert killed is not None
        open_transaction = await asyncpg.connect(address)
        await open_transaction.execute("BEGIN; INSERT INTO kept VALUES (8)")
        backend: int = open_transaction.get_server_pid()
        postgres.kill()
        assert postgres.pid is None
        assert not is_alive(killed)
        assert not is_alive(backend)
        with pytest.raises(OSError, match=r"No such file|refused"):
            await asyncpg.connect(address)
        postgres.start()
        assert postgres.url == address
        assert await asked(address, "SELECT array_agg(n) FROM kept") == [7]
        open_transaction.terminate()


def test_a_given_folder_outlives_it(tmp_path: Path) -> None:
    with LocalPostgres(tmp_path / "given", fsync=False) as first:
        ask(first.url, "CREATE TABLE kept (n int)", "INSERT INTO kept VALUES (7)")
        first.stop()
        first.start()
        assert ask(first.url, "SELECT n FROM kept") == 7
    with LocalPostgres(tmp_path / "given", fsync=False) as second:
        assert ask(second.url, "SELECT n FROM kept") == 7
        assert ask(second.url, "SHOW fsync") == "off"
        assert second.log == tmp_path / "given" / "postgres.log"


def test_the_second_start_and_the_second_end_do_nothing() -> None:
    with LocalPostgres(fsync=False) as postgres:
        pid = postgres.pid
        postgres.start()
        assert postgres.pid == pid
        postgres.stop()
        postgres.stop()
        postgres.kill()
    postgres.close()
    assert postgres.pid is None


# --- who it runs as -------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_it_never_runs_as_root() -> None:
    with LocalPostgres(fsync=False) as postgres:
        process = Path(f"/proc/{postgres.pid}")
        mapped = (process / "uid_map").read_text().split()
        assert process.stat().st_uid != 0 or mapped[:2] == ["1000", "0"]


def may_make_namespaces() -> bool:
    try:
        return subprocess.run([*PLAIN_USER, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


in_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not may_make_namespaces(),
    reason="root plays a plain user, and this system does not let it",
)


@in_namespaces
def test_root_starts_it_also_where_nobody_may_go(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with LocalPostgres(tmp_path / "closed", fsync=False) as postgres:
        assert ask(postgres.url, "SELECT 6 * 7") == 42
    assert (tmp_path / "closed").stat().st_mode & 0o777 == 0o755
    assert tmp_path.stat().st_mode & 0o777 == 0o700


@in_namespaces
def test_a_plain_user_starts_it() -> None:
    output, errors = start_owner(PLAIN_USER).communicate(timeout=TIME_LIMIT)
    assert errors == ""
    said = json.loads(output)
    assert (said["user"], said["answer"]) == (1000, 42)


# --- its end with its owner -----------------------------------------------------------------


def start_owner(prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", OWNER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_ends_with_an_owner_that_is_killed(places: Path) -> None:
    owner = start_owner()
    assert owner.stdout is not None
    pid = json.loads(owner.stdout.readline())["pid"]
    assert is_alive(pid)
    owner.send_signal(signal.SIGKILL)
    owner.communicate(timeout=TIME_LIMIT)

    async def left() -> tuple[bool, list[str]]:
        return is_alive(pid), os.listdir(places)

    asyncio.run(eventually(left, lambda seen: seen == (False, [])))


# --- refusals -------------------------------------------------------------------------------


def test_a_named_folder_without_the_programs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BINARIES_VARIABLE, str(tmp_path))
    with pytest.raises(ConfigurationError, match=f"{BINARIES_VARIABLE} names {tmp_path}, where"):
        find_binaries()


def test_a_named_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("initdb", "postgres"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv(BINARIES_VARIABLE, str(tmp_path))
    assert find_binaries() == tmp_path


@pytest.mark.parametrize(
    ("switches", "words"),
    [
        ({"options": {"shared_buffers": "many"}}, r"(?s)did not start .status 1.+shared_buffers"),
        ({"patience": 0.0}, "did not create its data within 0 seconds"),
    ],
)
def test_a_server_that_does_not_start_says_why_and_leaves_nothing(
    places: Path, switches: dict[str, Any], words: str
) -> None:
    postgres = LocalPostgres(**switches)
    with pytest.raises(ConfigurationError, match=words), postgres:
        pytest.fail("it started")
    assert postgres.pid is None
    assert list(places.iterdir()) == []


def test_without_programs_tests_are_skipped_but_never_where_changes_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(BINARIES_VARIABLE, str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"NOT TESTED ON POSTGRESQL"):
        require_postgres()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"These tests must run here"):
        require_postgres()


# --- databases for tests --------------------------------------------------------------------


TABLES = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"


async def test_a_fresh_database_is_empty_again_although_somebody_is_still_connected() -> None:
    with fresh_database() as url:
        assert url != postgres_url()
        assert await asked(url, TABLES) == 0
        left = await asyncpg.connect(url)
        await left.execute("CREATE TABLE left_over (n int)")
        await left.execute("BEGIN; INSERT INTO left_over VALUES (1)")
    with fresh_database() as again, fresh_database() as other:
        assert again == url != other
        assert await asked(again, TABLES) == 0
    left.terminate()


async def test_a_migrated_database_keeps_what_the_migrations_left_and_nothing_else() -> None:
    rows = "SELECT (SELECT count(*) FROM schema_migrations), (SELECT count(*) FROM counters)"
    with migrated_database() as url:
        connection = await asyncpg.connect(url)
        before = await connection.fetchrow(rows)
        assert min(before) > 0
        await connection.execute("DELETE FROM counters")
        await connection.close()
    with migrated_database() as again:
        assert again == url
        connection = await asyncpg.connect(again)
        assert await connection.fetchrow(rows) == before
        await connection.close()
