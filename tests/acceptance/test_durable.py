"""Durable storages: what was acknowledged outlives the process, however it ends."""

import os
import signal
from pathlib import Path

import pytest

from tests.acceptance.durable import (
    KINDS,
    accepting,
    ended,
    finish,
    get,
    is_accepted,
    register,
    settings,
    start,
    task_of,
)
from tests.acceptance.processes import OPSCORE, clean_environment, eventually, process, service

pytestmark = pytest.mark.acceptance

STEPS = ({"taskId": "one", "parameters": {"n": 1}}, {"taskId": "two"})


@pytest.mark.storages(*KINDS)
async def test_a_killed_service_goes_on_where_it_was(storage: str, tmp_path: Path) -> None:
    async with accepting() as taken:
        env = settings(storage, taken.url)
        with service(tmp_path, env) as first:
            async with first.client() as http:
                await register(http)
                session = await start(http, *STEPS)
                await eventually(lambda: task_of(http, session, "one"), is_accepted)
                health = (await http.get("/health")).json()
                assert health["storage"]["durable"] is True
            first.process.send(signal.SIGKILL)
            first.process.ended()
        with service(tmp_path, env) as second:
            async with second.client() as http:
                assert await start(http, *STEPS) == session
                assert len((await get(http, "sessions"))["items"]) == 1
                for step in ("one", "two"):
                    await finish(http, session, step)
                done = await ended(http, session)
                assert (done["status"], done["output"]) == ("completed", "two")
    # What had been accepted was not sent again.
    assert taken.names == ["one", "two"]


@pytest.mark.parametrize("name", ["opscore.db", "link.db", "folder/opscore.db"])
async def test_F73_a_second_process_on_one_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "link.db").symlink_to("opscore.db")
    (tmp_path / "folder").symlink_to(tmp_path)
    env = settings(f"sqlite:///{tmp_path}/opscore.db")
    with service(tmp_path, env):
        second_env = clean_environment() | settings(f"sqlite:///{tmp_path}/{name}")
        second_env |= {"OPSCORE_PORT": "0"}
        with process("second", tmp_path, *OPSCORE, "serve", env=second_env) as second:
            assert second.ended() == 2
            assert "another process uses" in second.said


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be one" * 30])
def test_F75_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "opscore.db"
    file.write_bytes(content)
    env = clean_environment() | settings(f"sqlite:///{file}") | {"OPSCORE_PORT": "0"}
    with process("refused", tmp_path, *OPSCORE, "serve", env=env) as refused:
        assert refused.ended() == 2
        assert "cannot be used as a database" in refused.said
    assert file.read_bytes() == content
    assert not Path(f"{file}.lock").exists()


def test_start_that_fails_after_the_storage_is_open_leaves_no_lock_file(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "greet.yaml").write_text("id: greet\ntasks: nonsense\n")
    env = clean_environment() | settings(f"sqlite:///{tmp_path}/opscore.db")
    env |= {"OPSCORE_PORT": "0", "OPSCORE_WORKFLOWS_DIR": "broken"}
    with process("refused", tmp_path, *OPSCORE, "serve", env=env) as refused:
        assert refused.ended() == 2
    assert list(tmp_path.glob("*.lock")) == []


def test_files_of_the_service_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    env = settings(
        f"sqlite:///{tmp_path}/opscore.db", OPSCORE_LOG_FILE=f"{tmp_path}/opscore.db.log"
    )
    try:
        with service(tmp_path, env):
            modes = {
                file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob("opscore.db*")
            }
    finally:
        os.umask(before)
    names = ("opscore.db", "opscore.db-wal", "opscore.db-shm", "opscore.db.lock", "opscore.db.log")
    assert modes == dict.fromkeys(names, 0o600)


def test_database_file_keeps_the_mode_that_it_has(tmp_path: Path) -> None:
    file = tmp_path / "opscore.db"
    file.touch()
    file.chmod(0o640)
    with service(tmp_path, settings(f"sqlite:///{file}")):
        modes = {one.stat().st_mode & 0o777 for one in tmp_path.glob("opscore.db*[!k]")}
    assert modes == {0o640}
