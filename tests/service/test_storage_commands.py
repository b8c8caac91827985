"""`opscore storage …` on real databases: what is done, what is said, and the exit status."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner

from opscore.cli.parser import app
from opscore.models import (
    Change,
    Counts,
    Event,
    EventFilter,
    EventType,
    Replica,
    Retention,
    SessionStatus,
)
from opscore.processes import place_of_processes
from opscore.storage import Storage, open_storage
from opscore.storage.location import location
from opscore.storage.transfer import TransferError, compare
from tests.builders import at
from tests.contract.filling import fill
from tests.contract.shelf import bump, ended, one_run, put
from tests.databases import fresh_database, require_postgres

R = TypeVar("R")
Place = Callable[[], str]

OUTPUT: dict[str, Any] = {"capture_output": True, "text": True, "check": True}


@dataclass(frozen=True)
class Ended:
    code: int
    said: str
    """On the standard output."""
    noted: str
    """On stderr."""


def storage(*arguments: str) -> Ended:
    result = CliRunner().invoke(app, ["storage", *arguments])
    return Ended(result.exit_code, result.stdout, result.stderr)


async def counted(opened: Storage) -> Counts:
    return await opened.counts()


def on(url: str, work: Callable[[Storage], Coroutine[Any, Any, R]]) -> R:
    async def run() -> R:
        opened = await open_storage(url, Retention())
        try:
            return await work(opened)
        finally:
            await opened.close()

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the developer's counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPSCORE_STORAGE_URL", raising=False)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The URLs of databases that do not have anything in them."""
    numbers = iter(range(9))
    with ExitStack() as lent:
        if request.param == "postgres":
            require_postgres()
            yield lambda: lent.enter_context(fresh_database())
        else:
            yield lambda: f"sqlite:///{tmp_path}/{next(numbers)}.db"


@pytest.fixture
def filled(place: Place) -> str:
    url = place()
    on(url, lambda opened: fill(opened, 1))
    return url


# --- the schema -------------------------------------------------------------------------------


def test_migrate_makes_a_database_and_has_nothing_to_do_then(place: Place) -> None:
    url = place()
    first = storage("migrate", "--url", url)
    assert (first.code, first.noted) == (0, "")
    assert "Applied migration 0001 begin." in first.said
    assert "has schema version" in first.said
    again = storage("migrate", "--url", url)
    assert again.code == 0
    assert "up to date" in again.said


def test_status_tells_what_is_there_while_a_service_runs(filled: str) -> None:
    async def look(opened: Storage) -> Ended:
        now = datetime.now(UTC)
        for name, beat_at in (("r-alive", now), ("r-dead", now - timedelta(minutes=1))):
            replica = Replica(name, "host", 7, "1.0", now, beat_at)
            await opened.beat(replica, now - timedelta(hours=1))
        return await asyncio.to_thread(storage, "status", "--url", filled)

    shown = on(filled, look)
    assert shown.code == 0
    lines = {line[:16].strip(): line[16:].strip() for line in shown.said.splitlines()}
    assert lines["agents"] == "8"
    assert lines["sessions"] == "60"
    assert lines["tasks"].startswith("60 (")
    assert lines["replicas alive"] == "1"
    assert "r-alive" in shown.said
    assert "r-dead" not in shown.said
    assert lines["schema version"].endswith("up to date")
    assert lines["size"].endswith("MB")


def test_status_does_not_count_a_replica_whose_process_is_gone(filled: str) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **OUTPUT)
    processes = {"r-here": os.getppid(), "r-killed": int(gone.stdout)}

    async def look(opened: Storage) -> Ended:
        now = datetime.now(UTC)
        for name, pid in processes.items():
            replica = Replica(name, "host", pid, "1.0", now, now, place_of_processes())
            await opened.beat(replica, now - timedelta(hours=1))
        set_back = Replica("r-future", "host", 7, "1.0", now, now + timedelta(hours=1))
        await opened.beat(set_back, now - timedelta(hours=1))
        return await asyncio.to_thread(storage, "status", "--url", filled)

    said = on(filled, look).said
    assert "replicas alive   1\n" in said
    assert "r-here" in said


def test_status_of_an_empty_database_says_what_to_do() -> None:
    require_postgres()
    with fresh_database() as url:
        shown = storage("status", "--url", url)
    assert shown.code == 0
    assert "opscore storage migrate" in shown.said


def test_status_of_a_missing_file_is_an_error_and_makes_no_file(tmp_path: Path) -> None:
    refused = storage("status", "--url", f"sqlite:///{tmp_path}/missing.db")
    assert (refused.code, refused.said) == (2, "")
    assert "there is no database" in refused.noted
    assert "opscore storage migrate" in refused.noted
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "migrate"])
def test_a_newer_schema_is_refused(tmp_path: Path, command: str) -> None:
    url = f"sqlite:///{tmp_path}/newer.db"
    storage("migrate", "--url", url)
    with sqlite3.connect(tmp_path / "newer.db") as connection:
        connection.execute("INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 0)")
    connection.close()
    refused = storage(command, "--url", url)
    assert refused.code == 2
    assert "start a newer version" in refused.noted


@pytest.mark.parametrize(
    "arguments", [("export", "out"), ("import", "in"), ("prune",), ("prune", "--dry-run")]
)
def test_memory_is_inside_the_service(arguments: tuple[str, ...]) -> None:
    for chosen in ((), ("--url", "memory:")):
        refused = storage(*arguments, *chosen)
        assert refused.code == 2
        assert "lives inside the process of the service" in refused.noted


def test_the_url_comes_from_the_environment_and_from_the_env_file(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"OPSCORE_STORAGE_URL=sqlite:///{tmp_path}/env.db\n")
    code = "from opscore.cli.parser import app; app(['storage', 'migrate'])"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OPSCORE_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
    assert (tmp_path / "env.db").exists()


@pytest.mark.parametrize(
    ("url", "code", "reason"),
    [
        ("mysql://127.0.0.1/x", 2, "names a storage that this version does not have"),
        ("sqlite:////no/such/folder/x.db", 2, "there is no database"),
        ("postgresql://me:pass-word/is@127.0.0.1/x", 2, "special characters"),
        ("postgresql://me:pass-word@127.0.0.1:1/x", 1, "did not take the request"),
    ],
)
def test_a_wrong_url_is_a_sentence_without_the_password(url: str, code: int, reason: str) -> None:
    refused = storage("export", "out", "--url", url)
    assert refused.code == code
    assert reason in refused.noted
    assert "pass-word" not in refused.noted


def test_a_file_that_is_no_database_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database" * 100)
    for command in (("status",), ("export", "out"), ("migrate",)):
        refused = storage(*command, "--url", f"sqlite:///{tmp_path}/x.db")
        assert refused.code in (1, 2)
        assert "not a database" in refused.noted
        assert "Traceback" not in refused.noted


def test_the_password_is_never_shown() -> None:
    assert location("postgresql://me:pass-word@db:5432/ops") == "PostgreSQL me@db:5432/ops"
    assert location("postgres:///ops?host=/run/pg") == "PostgreSQL local socket/ops"


# --- export and import ------------------------------------------------------------------------


def test_an_export_is_imported_elsewhere_and_is_the_same(
    filled: str, place: Place, tmp_path: Path
) -> None:
    exported = storage("export", "all.jsonl", "--url", filled)
    assert exported.code == 0
    assert "session 60" in exported.noted
    target = place()
    imported = storage("import", "all.jsonl", "--url", target)
    assert imported.code == 0, imported.noted
    assert "holds exactly what the export does" in imported.noted
    assert storage("export", "again.jsonl", "--url", target).code == 0
    first, again = (
        (tmp_path / name).read_bytes().splitlines()[1:] for name in ("all.jsonl", "again.jsonl")
    )
    assert first == again


def test_an_export_belongs_to_its_owner_and_names_its_format(filled: str, tmp_path: Path) -> None:
    storage("export", "all.jsonl", "--url", filled)
    assert (tmp_path / "all.jsonl").stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "all.jsonl.part").exists()
    header = json.loads((tmp_path / "all.jsonl").read_bytes().splitlines()[0])
    assert header["kind"] == "opscore-export"
    assert header["format"] == 1
    assert header["source"] in ("sqlite", "postgresql")


def test_standard_output_and_input_serve_as_well(filled: str, place: Place) -> None:
    command = [sys.executable, "-m", "opscore", "storage"]
    target = place()
    with subprocess.Popen(
        [*command, "export", "-", "--url", filled], stdout=subprocess.PIPE
    ) as source:
        done = subprocess.run(
            [*command, "import", "-", "--url", target],
            stdin=source.stdout,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert source.returncode == 0
    counts = on(target, counted)
    assert counts == on(filled, counted)


def test_an_export_works_while_a_service_writes(filled: str) -> None:
    async def export(opened: Storage) -> Ended:
        running = asyncio.create_task(
            asyncio.to_thread(storage, "export", "live.jsonl", "--url", filled)
        )
        number = 1000
        while not running.done():
            number += 1
            await put(opened, *one_run(number))
        return await running

    exported = on(filled, export)
    assert exported.code == 0, exported.noted


def test_only_an_empty_storage_is_imported_into(filled: str) -> None:
    storage("export", "all.jsonl", "--url", filled)
    refused = storage("import", "all.jsonl", "--url", filled)
    assert refused.code == 2
    assert "not empty" in refused.noted


def test_a_cut_export_leaves_the_target_empty(filled: str, place: Place, tmp_path: Path) -> None:
    storage("export", "all.jsonl", "--url", filled)
    lines = (tmp_path / "all.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_bytes(b"".join(lines[:-1]))
    target = place()
    refused = storage("import", "cut.jsonl", "--url", target)
    assert refused.code == 1
    assert "ends too early" in refused.noted
    assert storage("import", "all.jsonl", "--url", target).code == 0


def test_what_changes_before_the_comparison_is_noticed(filled: str) -> None:
    async def disturbed(opened: Storage) -> str:
        expected = await compare(opened, None)
        await opened.apply(Change(events=(Event(EventType.AGENT_LOST, at(0), "a1"),)))
        with pytest.raises(TransferError) as raised:
            await compare(opened, expected)
        return raised.value.detail

    said = on(filled, disturbed)
    kinds = re.findall(r"(\w+) \((\d+) and (\d+)\)", said)
    assert [kind for kind, _, _ in kinds] == ["lastEvent", "event"]
    assert int(kinds[1][1]) == int(kinds[1][2]) + 1


def test_an_import_that_is_killed_leaves_nothing(filled: str, place: Place, tmp_path: Path) -> None:
    storage("export", "all.jsonl", "--url", filled)
    whole = (tmp_path / "all.jsonl").read_bytes()
    target = place()
    storage("migrate", "--url", target)
    command = [sys.executable, "-m", "opscore", "storage", "import", "-", "--url", target]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as importing:
        assert importing.stdin is not None
        # More than a pipe holds has been read when this returns, and the end never comes.
        importing.stdin.write(whole[: len(whole) * 9 // 10])
        importing.stdin.flush()
        importing.send_signal(signal.SIGKILL)
        importing.wait()
    again = storage("import", "all.jsonl", "--url", target)
    assert again.code == 0, again.noted


@pytest.mark.parametrize("file", ["missing.jsonl", "no/such/folder.jsonl"])
def test_a_file_that_cannot_be_used_is_a_sentence(tmp_path: Path, file: str) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    storage("migrate", "--url", url)
    refused = storage("import", file, "--url", url)
    assert (refused.code, refused.said) == (1, "")
    assert f"{file} cannot be used" in refused.noted


# --- forgetting -------------------------------------------------------------------------------


async def end_long_ago(opened: Storage) -> None:
    for number in range(3):
        session, task = one_run(number)
        await put(opened, session, task)
        over = bump(session, status=SessionStatus.COMPLETED, ended_at=at(number))
        event = Event(EventType.SESSION_COMPLETED, at(number), None, session.id)
        await opened.apply(Change(sessions=(over,), tasks=(ended(task),), events=(event,)))


def test_a_dry_run_says_what_would_go_and_changes_nothing(place: Place) -> None:
    url = place()
    on(url, end_long_ago)

    async def foresee(_: Storage) -> Ended:
        return await asyncio.to_thread(storage, "prune", "--dry-run", "--url", url)

    # As of `at`, all of that is long ago for the clock of this machine, and too much as well.
    shown = on(url, foresee)
    assert shown.code == 0
    assert shown.said == "Would forget sessions 3, tasks 3.\n"
    assert on(url, counted).sessions == 3
    done = storage("prune", "--url", url)
    assert (done.code, done.said) == (0, "Forgot sessions 3, tasks 3.\n")
    assert on(url, counted).sessions == 0
    page = on(
        url, lambda opened: opened.events(EventFilter(frozenset({EventType.STORAGE_PRUNED})), 0, 9)
    )
    assert [event.data for event in page.items] == [{"sessions": 3, "tasks": 3}]
    assert storage("prune", "--url", url).said == "Nothing was to be forgotten.\n"
    assert storage("prune", "--dry-run", "--url", url).said == "Nothing is to be forgotten.\n"


def test_F73_a_file_in_use_is_not_pruned_by_another_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/used.db"

    async def prune(_: Storage) -> int:
        command = [sys.executable, "-m", "opscore", "storage", "prune", "--url", url]
        process = await asyncio.create_subprocess_exec(*command, stderr=subprocess.PIPE)
        said = await process.communicate()
        assert b"another process uses" in said[1]
        return process.returncode or 0

    assert on(url, prune) == 2


# --- the documents ----------------------------------------------------------------------------

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_names_every_command_and_only_those() -> None:
    text = (DOCS / "reference" / "storage-commands.md").read_text("utf-8")
    named = set(re.findall(r"^\| `opscore storage (\w+)", text, re.MULTILINE))
    listed = set(re.findall(r"^  ([a-z]+)  ", storage("--help").said, re.MULTILINE))
    assert named == listed


@pytest.mark.parametrize("page", ["backup.md", "choose-a-storage.md"])
def test_every_command_that_is_shown_exists_with_its_switches(page: str) -> None:
    text = (DOCS / "how-to" / page).read_text("utf-8")
    shown = re.findall(r"opscore storage (\w+)((?: -?-?[\w./:=-]+)*)", text)
    assert shown
    for command, arguments in shown:
        help_text = storage(command, "--help").said
        assert "Usage" in help_text
        for switch in re.findall(r"--[\w-]+", arguments):
            assert switch in help_text


def test_the_copy_that_sqlite_makes_while_the_service_writes_is_whole(tmp_path: Path) -> None:
    """As the guide shows it for Python."""
    text = (DOCS / "how-to" / "backup.md").read_text("utf-8")
    [program] = re.findall(r"^python3 -c '([^']+)'", text, re.MULTILINE)
    url = f"sqlite:///{tmp_path}/live.db"

    async def copy(opened: Storage) -> None:
        await fill(opened, 1)
        files = (str(tmp_path / "live.db"), str(tmp_path / "copy.db"))
        copying = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *files)
        number = 1000
        while copying.returncode is None:
            number += 1
            await put(opened, *one_run(number))
            await asyncio.sleep(0)
        assert copying.returncode == 0

    on(url, copy)
    restored = f"sqlite:///{tmp_path}/copy.db"
    assert on(restored, counted).sessions >= 60
    assert storage("export", "copied.jsonl", "--url", restored).code == 0
