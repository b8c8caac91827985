"""The demo as a user runs it: real processes on free ports, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from opscore.cli.children import ProcessFailedError, children_in
from opscore.cli.demo_story import AGENTS
from tests.databases import require_postgres

pytestmark = [pytest.mark.acceptance, pytest.mark.slow, pytest.mark.timeout(240)]

TIME_LIMIT = 100
RUNNING = "Everything keeps running"


@contextmanager
def demo(folder: Path, *switches: str) -> Iterator[subprocess.Popen[str]]:
    """The demo, begun where a user's own settings would break it if it took them."""
    (folder / ".env").write_text("OPSCORE_DISPATCH_MODE=nonsense\nOPSCORE_PORT=1\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "opscore", "demo", *switches],
        cwd=folder,
        env={**os.environ, "TMPDIR": str(folder), "OPSCORE_STORAGE_URL": "nonsense:"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=TIME_LIMIT)


def read_until(stream: IO[str] | None, words: str) -> str:
    assert stream is not None
    lines: list[str] = []
    for line in stream:
        lines.append(line)
        if words in line:
            return "".join(lines)
    raise AssertionError(f"{words!r} never came; the demo said: {''.join(lines)}")


def urls_in_logs(folder: Path) -> set[str]:
    logs = [path.read_text() for path in folder.glob("opscore-demo-*/*.log")]
    assert len(logs) == 2 + len(AGENTS)
    return {url for log in logs for url in re.findall(r"listens on (http://[0-9.:]+)", log)}


def assert_all_gone(urls: set[str]) -> None:
    for url in urls:
        with pytest.raises(httpx.ConnectError):
            httpx.get(url, trust_env=False)


def test_a_whole_workflow_with_one_retry(tmp_path: Path) -> None:
    with demo(tmp_path, "--once") as process:
        output, errors = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, errors) == (0, "")
    said = re.findall(r"^\d\d:\d\d:\d\d\.\d{3}  (\S+) +(.+)$", output, re.MULTILINE)
    wanted = [
        ("ops-core", "the workflow research-brief starts"),
        ("researcher", "gather is completed"),
        ("analyst", "analyse is sent, attempt 1"),
        ("analyst", "analyse failed: The agent was told to fail this task."),
        ("analyst", "analyse is sent, attempt 2"),
        ("analyst", "analyse is completed"),
        ("writer", "write is completed"),
        ("ops-core", "the workflow is completed"),
    ]
    assert [line for line in said if line in wanted] == wanted
    assert '"title": "A brief on tidal power"' in output
    assert "\x1b" not in output
    urls = urls_in_logs(tmp_path)
    assert len(urls) >= 1 + len(AGENTS)
    assert_all_gone(urls | set(re.findall(r"http://127\.0\.0\.1:\d+", output)))


def test_it_runs_on_sqlite_and_refuses_a_storage_with_agents_in_it(tmp_path: Path) -> None:
    with demo(tmp_path, "--once", "--storage", "sqlite") as process:
        output, errors = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, errors) == (0, "")
    assert "the workflow is completed" in output
    [used] = re.findall(r"^Everything is kept in (/.+/opscore\.db)\.$", output, re.MULTILINE)
    with demo(tmp_path, "--once", "--storage", f"sqlite:///{used}") as process:
        _, errors = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 1
    assert f"There are agents in {used} already" in errors


def test_it_runs_on_postgres_and_leaves_nothing(tmp_path: Path) -> None:
    require_postgres()
    with demo(tmp_path, "--once", "--storage", "postgres") as process:
        output, errors = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, errors) == (0, "")
    assert "Everything is kept in a PostgreSQL of its own." in output
    assert "the workflow is completed" in output
    assert list(tmp_path.glob("opscore-postgres-*")) == []


def test_its_postgres_ends_with_it(tmp_path: Path) -> None:
    require_postgres()
    with demo(tmp_path, "--storage", "postgres") as process:
        read_until(process.stdout, "gather is sent")
        [data] = tmp_path.glob("opscore-postgres-*/data")
        [pid] = (data / "postmaster.pid").read_text().splitlines()[:1]
        os.kill(int(pid), 0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0
    assert not data.parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


def test_an_unknown_storage_is_refused(tmp_path: Path) -> None:
    with demo(tmp_path, "--storage", "paper") as process:
        _, errors = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 1
    assert "--storage 'paper' is unknown; use memory, sqlite, postgres, or a URL" in errors
    assert list(tmp_path.glob("opscore-demo-*/*.log")) == []


def test_it_keeps_running_until_ctrl_c(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        output = read_until(process.stdout, RUNNING)
        urls = urls_in_logs(tmp_path)
        [key] = re.findall(r"^ +key=(\w+)$", output, re.MULTILINE)
        [api] = re.findall(r"^ +api=(\S+)$", output, re.MULTILINE)
        paths = re.findall(r'curl -s "\$api(\S+)"', output)
        assert len(paths) == 4
        for path in paths:
            answer = httpx.get(
                api + path, headers={"Authorization": f"Bearer {key}"}, trust_env=False
            )
            assert answer.status_code == 200
        [docs] = re.findall(r"(http\S+/docs)", output)
        assert httpx.get(docs, trust_env=False).status_code == 200
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=TIME_LIMIT)
    assert (process.returncode, errors) == (0, "")
    assert "stopped" in rest
    assert_all_gone({*urls, api})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_the_middle_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    with demo(tmp_path) as process:
        read_until(process.stdout, "gather is sent")
        urls = urls_in_logs(tmp_path)
        process.send_signal(number)
        process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 0
    assert_all_gone(urls)


@pytest.mark.skipif(not Path("/proc").exists(), reason="finds the child processes in /proc")
def test_a_process_that_dies_is_named_and_all_others_end(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        read_until(process.stdout, RUNNING)
        urls = urls_in_logs(tmp_path)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        writers = [
            pid for pid in children if b"writer" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(int(writers[0]), signal.SIGKILL)
        _, errors = process.communicate(timeout=TIME_LIMIT)
    assert process.returncode == 1
    assert "The demo failed: writer ended unexpectedly with status -9" in errors
    assert "listens on" in errors
    assert_all_gone(urls)


def test_a_process_that_cannot_start_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with children_in(tmp_path, os.environ) as children:
        child = children.start("broken", "no-such-command")
        child.process.wait(TIME_LIMIT)
        with pytest.raises(ProcessFailedError, match=r"(?s)broken ended .+No such command"):
            children.check()
