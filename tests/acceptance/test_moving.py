"""An instance that moves: out of a process that keeps everything in memory, and into one."""

import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.durable import get, register, start, tasks_of
from tests.acceptance.processes import OPSCORE, clean_environment, process, service

pytestmark = pytest.mark.acceptance

KEY = "a-key-of-the-tests"
STEPS: list[dict[str, Any]] = [{"taskId": "one"}, {"taskId": "two"}]


def opscore(folder: Path, *words: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    env = clean_environment() | {"OPSCORE_API_KEY": key}
    command = [*OPSCORE, *words]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False
    )


def settings(url: str) -> dict[str, str]:
    # Nobody is at this address, so the tasks wait.
    return {
        "OPSCORE_API_KEY": KEY,
        "OPSCORE_STORAGE_URL": url,
        "OPSCORE_DISPATCH_MODE": "agentkit",
        "AGENTKIT_API_URL": "http://127.0.0.1:9",
    }


async def test_from_memory_to_sqlite_and_back_without_losing_anything(tmp_path: Path) -> None:
    with service(tmp_path, settings("memory:")) as first:
        async with first.client() as http:
            await register(http)
            session = await start(http, *STEPS)
            waiting = await tasks_of(http, session)
        made = opscore(tmp_path, "storage", "export", "all.jsonl", "--url", first.url)
        assert (made.returncode, made.stdout) == (0, ""), made.stderr
        assert "agent 1" in made.stderr
    taken = opscore(tmp_path, "storage", "import", "all.jsonl", "--url", "sqlite:///there.db")
    assert taken.returncode == 0, taken.stderr
    with service(tmp_path, settings("sqlite:///there.db")) as second:
        async with second.client() as http:
            assert (await tasks_of(http, session)).keys() == waiting.keys()
            # The key of the trigger has come along.
            assert await start(http, *STEPS) == session
    back = opscore(tmp_path, "storage", "export", "back.jsonl", "--url", "sqlite:///there.db")
    assert back.returncode == 0, back.stderr
    words = (*OPSCORE, "serve", "--import", "back.jsonl")
    env = settings("memory:") | {"OPSCORE_PORT": "0"}
    with process("back", tmp_path, *words, env=env) as last:
        url = last.find(r"Uvicorn running on (http://[0-9.:]+)")
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
            assert (await tasks_of(http, session)).keys() == waiting.keys()
            assert [one["agentId"] for one in (await get(http, "agents"))["items"]] == ["a1"]


def test_an_export_that_does_not_come_leaves_no_file(tmp_path: Path) -> None:
    with service(tmp_path, settings("memory:")) as running:
        wrong = opscore(tmp_path, "storage", "export", "a.jsonl", "--url", running.url, key="wrong")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)
    assert "answered 401: Send the API key" in wrong.stderr
    gone = opscore(tmp_path, "storage", "export", "a.jsonl", "--url", running.url)
    assert (gone.returncode, len(gone.stderr.splitlines())) == (1, 1)
    assert "see that it runs" in gone.stderr
    assert list(tmp_path.glob("*.jsonl*")) == []


def test_a_service_begins_only_with_a_whole_export(tmp_path: Path) -> None:
    file = tmp_path / "cut.jsonl"
    file.write_text('{"kind":"opscore-export","format":1}\n')
    refused = opscore(tmp_path, "serve", "--import", str(file), "--port", "0")
    assert refused.returncode == 2
    assert refused.stderr.endswith(
        "The export ends too early; nothing was imported. Export again.\n"
    )
