"""The service as a process: how it starts, refuses to start, is stopped and says what it does.

Where a test does not ask for a storage, what it looks at is decided without one.
"""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.processes import (
    OPSCORE,
    clean_environment,
    eventually,
    process,
    reserved_port,
    service,
    wait_until_ready,
)
from tests.acceptance.world import API, World, echo_step, world_around

pytestmark = pytest.mark.acceptance

DIRECT = {"OPSCORE_DISPATCH_MODE": "direct"}
TEMPLATE = "id: greet\ntasks:\n  - taskId: only\n    parameters: {step: only}\n"
BROKEN = "id: greet\ntasks:\n  - taskId: only\n    nextTaskid: other\n"


@asynccontextmanager
async def world_with(folder: Path, **settings: Any) -> AsyncIterator[World]:
    with service(folder, DIRECT | settings) as running:
        async with world_around(running, 0) as world:
            yield world


# --- refusing to start ---------------------------------------------------------------------------

# The settings, and what the sentence about them must say.
REFUSED: dict[str, tuple[dict[str, str], list[str]]] = {
    "no key": ({"OPSCORE_API_KEY": ""}, [r"^OPSCORE_API_KEY: not set\. .*OPSCORE_DEV=1"]),
    "several values": (
        {
            "OPSCORE_DISPATCH_MODE": "nonsense",
            "OPSCORE_DISPATCH_CONCURRENCY": "0",
            "OPSCORE_RUN_TIMEOUT": "-1",
            "OPSCORE_PROBE_INTERVAL": "soon",
            "OPSCORE_PORT": "65536",
            "LOG_LEVEL": "LOUD",
            "AGENTKIT_TIMEOUT": "1e9",
        },
        [
            r"^OPSCORE_DISPATCH_MODE: write auto, agentkit or direct\.$",
            r"^OPSCORE_DISPATCH_CONCURRENCY: write a whole number from 1 to 10,000\.$",
            r"^OPSCORE_RUN_TIMEOUT: write a duration above 0, at most 30d\.$",
            r"^OPSCORE_PROBE_INTERVAL: write a duration from 1s to 1d\.$",
            r"^OPSCORE_PORT: write a whole number from 0 to 65,535\.$",
            r"^LOG_LEVEL: write DEBUG, INFO, WARNING, ERROR or CRITICAL\.$",
            r"^AGENTKIT_TIMEOUT: write a duration above 0, at most 5m\.$",
        ],
    ),
    "a misspelt variable": (
        {"OPSCORE_STORAGE": "sqlite:///opscore.db"},
        [r"^OPSCORE_STORAGE: no setting has this name\. Did you mean OPSCORE_STORAGE_URL\?$"],
    ),
    "a short key": (
        {"OPSCORE_API_KEY": "short"},
        [r"^OPSCORE_API_KEY: it is too short; write at least 16 characters; .*openssl"],
    ),
    "storage": (
        {"OPSCORE_STORAGE_URL": "postgresql://opscore:canary@127.0.0.1:nine/opscore"},
        [r"^OPSCORE_STORAGE_URL cannot be read; .*%XX"],
    ),
    "agentkit": ({"AGENTKIT_API_URL": "nonsense"}, [r"^AGENTKIT_API_URL .*http://host:port"]),
    "log file": (
        {"OPSCORE_LOG_FILE": "no/such/folder/log"},
        [r"^OPSCORE_LOG_FILE: .*name a file in a folder that exists"],
    ),
    "a broken template": (
        {"OPSCORE_WORKFLOWS_DIR": "broken"},
        [r"greet\.yaml#/tasks/0/nextTaskid: .*Did you mean nextTaskId\?.*line 4"],
    ),
    "port in use": (
        {"OPSCORE_PORT": "<in use>"},
        [r"^OPSCORE_PORT: 127\.0\.0\.1 port \d+ cannot be listened on.*choose another port"],
    ),
}


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """All of them begun at once, because each takes a second of nothing but loading."""
    folder = tmp_path_factory.mktemp("refused")
    (folder / "broken").mkdir()
    (folder / "broken" / "greet.yaml").write_text(BROKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        in_use = str(taken.getsockname()[1])
        begun = {
            name: _begin(folder, {key: value.replace("<in use>", in_use) for key, value in given})
            for name, given in ((name, given.items()) for name, (given, _) in REFUSED.items())
        }
        yield begun
        for attempt in begun.values():
            attempt.kill()
            attempt.communicate()


def _begin(folder: Path, settings: dict[str, str]) -> subprocess.Popen[str]:
    sound = {"OPSCORE_API_KEY": "the-key-of-this-test", "OPSCORE_PORT": "0"}
    env = clean_environment() | sound | settings
    return subprocess.Popen(
        (*OPSCORE, "serve"),
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_clear_sentence_each_and_exit_status_2(
    attempts: dict[str, subprocess.Popen[str]], name: str
) -> None:
    output, errors = attempts[name].communicate(timeout=60)
    assert attempts[name].returncode == 2, errors
    assert output == ""
    assert "Traceback" not in errors
    assert "canary" not in errors
    sentences = [line for line in errors.splitlines() if not line.startswith("{")]
    patterns = REFUSED[name][1]
    assert len(sentences) == len(patterns), errors
    for pattern in patterns:
        assert any(re.search(pattern, sentence) for sentence in sentences), errors


# --- starting ------------------------------------------------------------------------------------


async def test_in_development_a_random_key_is_printed_and_nowhere_logged(tmp_path: Path) -> None:
    env = {"OPSCORE_DEV": "1", "OPSCORE_PORT": "0"}
    with process("opscore", tmp_path, *OPSCORE, "serve", env=env) as started:
        key = started.find(r"API key of this run: (\S+)")
        url = started.find(r"Uvicorn running on (http://[0-9.:]+)")
        wait_until_ready(url)
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as http:
            assert (await http.get(f"{API}/agents")).status_code == 401
            assert (await http.get(f"{API}/agents", headers=headers)).status_code == 200
            assert (await http.get(f"{API}/agent/{key}", headers=headers)).status_code == 404
        assert started.stop() == 0
        assert started.said.count(key) == 1


async def test_other_server_serves_it_and_warns_of_missing_bounds(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "uvicorn", "opscore.api:app", "--port", "0")
    env = {"OPSCORE_API_KEY": "the-key-of-this-test"}
    with process("uvicorn", tmp_path, *command, env=env) as started:
        url = started.find(r"Uvicorn running on (http://[0-9.:]+)")
        wait_until_ready(url)
        assert started.find("(was not started by 'opscore serve')")
        async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as http:
            http.headers["Authorization"] = "Bearer the-key-of-this-test"
            assert (await http.get(f"{API}/agents")).json()["items"] == []
            assert (await http.get("/docs")).status_code == 200


async def test_F22_memory_says_beforehand_that_a_restart_forgets_and_templates_are_loaded(
    tmp_path: Path,
) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "greet.yaml").write_text(TEMPLATE)
    async with world_with(tmp_path, OPSCORE_WORKFLOWS_DIR=templates) as world:
        health = (await world.http.get("/health")).json()
        assert health["storage"]["durable"] is False
        assert "gone after a restart" in health["storage"]["note"]
        assert "gone after a restart" in world.service.process.said

        assert (await world.get("workflow/greet"))["revision"] == 1
        agent = await world.agent("greeting")
        body = {"workflowDefinitionId": "greet"}
        started = await world.post(f"agent/{agent.agent_id}/workflow", body)
        session = await world.finish(started["sessionId"])
        assert session["output"] == {"echo": {"step": "only"}}
        assert session["workflowRevision"] == 1


# --- stopping ------------------------------------------------------------------------------------


async def not_ready(world: World) -> Any:
    """What readiness says once it says no; it must say so while the process still answers."""
    return await eventually(
        lambda: world.http.get("/health/ready"), lambda answer: answer.status_code == 503
    )


# What the drain leaves in the durable ones is looked at below, after a new start.
@pytest.mark.storages("memory")
async def test_F9_after_sigterm_what_is_under_way_ends_and_nothing_new_begins(
    tmp_path: Path, storage_url: str
) -> None:
    async with world_with(tmp_path, OPSCORE_STORAGE_URL=storage_url) as world:
        # All that is looked at while it drains is looked at in this time.
        agent = await world.agent("slow", style="example", workSeconds=5)
        under_way = await world.start(agent, echo_step("only"))
        waiting = await world.start(agent, echo_step("only"))
        await eventually(world.ready, lambda ready: ready["messagesUnderWay"] == 1)

        opscore = world.service.process
        opscore.send(signal.SIGTERM)
        answer = await not_ready(world)
        assert answer.json()["reasons"] == ["The service is shutting down."]
        assert (await world.http.get("/health/live")).status_code == 200
        body = {"workflowDefinition": {"id": "late", "tasks": [echo_step("only")]}}
        refused = await world.http.post(f"{API}/agent/{agent.agent_id}/workflow", json=body)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        report = {"agentId": agent.agent_id, "state": "active"}
        reported = await world.http.post(f"{API}/agent/{agent.agent_id}/state", json=report)
        assert reported.status_code == 202
        [task] = await world.tasks(waiting)
        assert task["status"] == "queued"

        assert await asyncio.to_thread(opscore.ended, 30) == 0
        assert agent.begun == 1
        assert completed(opscore.log_lines(), under_way)
        assert not completed(opscore.log_lines(), waiting)


def completed(lines: list[dict[str, Any]], session_id: str) -> bool:
    """Whether the log tells that a task of the session was completed."""
    return any(
        line.get("session_id") == session_id and "task.completed" in json.dumps(line)
        for line in lines
    )


@pytest.mark.storages("sqlite", "postgres")
async def test_F9_after_sigterm_and_a_new_start_all_is_there_and_what_waited_goes_on(
    tmp_path: Path, storage_url: str
) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "greet.yaml").write_text(TEMPLATE)
    settings = {
        "OPSCORE_STORAGE_URL": storage_url,
        "OPSCORE_WORKFLOWS_DIR": templates,
        "OPSCORE_API_KEY": "a-key-of-the-tests",
    }
    with reserved_port() as port:
        settings["OPSCORE_PORT"] = port
        async with world_with(tmp_path, **settings) as world:
            agent = await world.agent("slow", style="example", workSeconds=0.5)
            under_way = await world.start(agent, echo_step("only"))
            waiting = await world.start(agent, echo_step("first"), echo_step("second"))
            await eventually(world.ready, lambda ready: ready["messagesUnderWay"] == 1)
            world.service.process.send(signal.SIGTERM)
            assert await asyncio.to_thread(world.service.process.ended, 30) == 0
            with service(tmp_path, DIRECT | settings):
                # What the agent said after its answer may have met nobody.
                idle = {"agentId": agent.agent_id, "state": "idle"}
                said = await world.http.post(f"{API}/agent/{agent.agent_id}/state", json=idle)
                assert said.status_code == 202
                assert (await world.finish(waiting))["status"] == "completed"
                assert (await world.get(f"session/{under_way}"))["status"] == "completed"
                tasks = [*await world.tasks(under_way), *await world.tasks(waiting)]
                assert [(task["stepId"], task["attempt"]) for task in tasks] == [
                    ("only", 1),
                    ("first", 1),
                    ("second", 1),
                ]
                assert (await world.get("workflow/greet"))["revision"] == 1
            assert agent.begun == 3


async def test_F9_a_second_sigterm_ends_it_at_once(tmp_path: Path) -> None:
    async with world_with(tmp_path) as world:
        agent = await world.agent("slow", style="example", workSeconds=20)
        await world.start(agent, echo_step("only"))
        await eventually(world.ready, lambda ready: ready["messagesUnderWay"] == 1)
        opscore = world.service.process
        opscore.send(signal.SIGTERM)
        await not_ready(world)
        opscore.send(signal.SIGTERM)
        began = time.monotonic()
        await asyncio.to_thread(opscore.ended)
        assert time.monotonic() - began < 10


async def test_F9_sigterm_ends_a_start_that_waits_for_its_database(tmp_path: Path) -> None:
    with reserved_port() as port:
        env = {
            "OPSCORE_API_KEY": "a-key-of-the-tests",
            "OPSCORE_STORAGE_URL": f"postgresql://postgres@127.0.0.1:{port}/opscore",
        }
        with process("early", tmp_path, *OPSCORE, "serve", env=env) as opscore:
            await asyncio.to_thread(opscore.find, "(Waiting for the database)")
            opscore.send(signal.SIGTERM)
            began = time.monotonic()
            assert await asyncio.to_thread(opscore.ended) == 0
            assert time.monotonic() - began < 10
            assert "A signal ended the start before the service was ready." in opscore.said
            assert "Traceback" not in opscore.said


# --- being held up -------------------------------------------------------------------------------


# In the others a lease is kept by the same process that stood still.
@pytest.mark.storages("postgres")
async def test_F16_a_process_that_stood_still_says_so_and_loses_no_lease(
    tmp_path: Path, storage_url: str
) -> None:
    async with world_with(tmp_path, OPSCORE_STORAGE_URL=storage_url) as world:
        agent = await world.agent("slow", style="example", workSeconds=2)
        session_id = await world.start(agent, echo_step("only"))
        await eventually(world.ready, lambda ready: ready["messagesUnderWay"] == 1)
        opscore = world.service.process
        opscore.send(signal.SIGSTOP)
        await asyncio.sleep(3)
        opscore.send(signal.SIGCONT)
        assert (await world.finish(session_id))["status"] == "completed"
        [task] = await world.tasks(session_id)
        assert (task["attempt"], agent.begun) == (1, 1)
        await eventually(world.ready, lambda ready: ready["worstEventLoopLagSeconds"] >= 1.5)
        assert opscore.find('"level":"(WARNING)".*The event loop was blocked')


# --- what it says --------------------------------------------------------------------------------


async def test_F92_the_log_has_a_file_and_no_secret_stands_in_it(tmp_path: Path) -> None:
    path, kit_key = tmp_path / "opscore.log.jsonl", "canary-of-agentkit-0123456789"
    settings = {
        "OPSCORE_LOG_FILE": path,
        "OPSCORE_LOG_LEVEL": "DEBUG",
        "AGENTKIT_API_KEY": kit_key,
        "AGENTKIT_API_URL": "http://127.0.0.1:9",
        "OPSCORE_DISPATCH_MODE": "agentkit",
    }
    async with world_with(tmp_path, **settings) as world:
        secrets = {world.service.key, world.service.secret, kit_key}
        agent = await world.agent("canary")
        await world.start(agent, echo_step("only"), note=" ".join(secrets))
        answers = [await provoke(world.http, secret) for secret in sorted(secrets)]
        for answer in (one for some in answers for one in some):
            assert answer.status_code >= 400
            assert not any(secret in answer.text for secret in secrets), answer.text
        for secret in secrets:
            # The caller's own request id comes back to it, and is still hidden in the log.
            await world.http.get("/health", headers={"X-Request-Id": secret})
        assert world.service.process.stop() == 0
        written = path.read_text()
        lines = [json.loads(line) for line in written.splitlines()]
        assert {"timestamp", "level", "logger", "message"} <= lines[0].keys()
        assert any("[redacted]" in line.get("path", "") for line in lines)
        assert lines == world.service.process.log_lines()
        for secret in secrets:
            assert secret not in written
            assert secret not in world.service.process.said


async def provoke(http: httpx.AsyncClient, secret: str) -> list[httpx.Response]:
    """Bring a secret to every place that might be logged or given back."""
    body = {"agentId": secret, "state": "idle"}
    return [
        await http.get(f"{API}/agent/{secret}"),
        await http.get(f"{API}/agents", params={"limit": secret}),
        await http.get(f"{API}/agents", headers={"Authorization": f"Basic {secret}"}),
        await http.get(f"{API}/{secret}"),
        await http.post(f"{API}/agent/other/state", json=body),
        await http.post(f"{API}/agents", json={"agentName": 1, "metadata": secret}),
        await http.post(f"{API}/agents", content=f'{{"agentName": "{secret}'),
        await http.post(f"{API}/internal/agent/notify", content=secret.encode()),
    ]
