"""SQLite: what was acknowledged outlives the process, however it ends."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opscore.simulators.running import running
from tests.acceptance.processes import OPSCORE, clean_environment, eventually, process, service

pytestmark = pytest.mark.acceptance

API = "/v1/opscore"
STEPS = [{"taskId": "one", "parameters": {"n": 1}}, {"taskId": "two"}]


def settings(folder: Path, agentkit: str = "http://127.0.0.1:9") -> dict[str, Any]:
    return {
        "OPSCORE_STORAGE_URL": f"sqlite:///{folder}/opscore.db",
        "OPSCORE_DISPATCH_MODE": "agentkit",
        "AGENTKIT_API_URL": agentkit,
        "OPSCORE_API_KEY": "a-key-of-the-tests",
    }


@asynccontextmanager
async def accepting() -> AsyncIterator[tuple[str, list[Any]]]:
    """An AgentKit that takes every task, and what it was given."""
    taken: list[Any] = []

    async def run(request: Request) -> Response:
        taken.append(await request.json())
        return JSONResponse({"status": "success", "message": "taken", "data": {}}, 202)

    app = Starlette(routes=[Route("/v1/agents/{agent}/run", run, methods=["POST"])])
    async with running(app) as url:
        yield url, taken


async def test_F2_F5_a_killed_service_goes_on_where_it_was(tmp_path: Path) -> None:
    body = {"workflowDefinition": {"id": "w", "tasks": STEPS}, "initialPayload": {"topic": "x"}}
    key = {"Idempotency-Key": "once"}
    async with accepting() as (agentkit, taken):
        session = await begin(tmp_path, agentkit, body, key)
        await go_on(tmp_path, agentkit, body, key, session)
    # What had been accepted was not sent again.
    assert [message["task_name"] for message in taken] == ["one", "two"]


async def begin(folder: Path, agentkit: str, body: Any, key: dict[str, str]) -> str:
    """Start a session, wait until its first task is accepted, and kill the service."""
    with service(folder, settings(folder, agentkit)) as first:
        async with first.client() as http:
            agent = {"agentId": "a1", "agentName": "one", "capabilities": ["x"]}
            assert (await http.post(f"{API}/agents", json=agent)).status_code == 201
            started = await http.post(f"{API}/agent/a1/workflow", json=body, headers=key)
            assert started.status_code == 202
            session: str = started.json()["sessionId"]
            await eventually(lambda: task_of(http, session, "one"), is_accepted)
            health = (await http.get("/health")).json()
            assert health["storage"]["durable"] is True
        first.process.send(signal.SIGKILL)
        first.process.ended()
    return session


async def go_on(folder: Path, agentkit: str, body: Any, key: dict[str, str], session: str) -> None:
    with service(folder, settings(folder, agentkit)) as second:
        async with second.client() as http:
            again = await http.post(f"{API}/agent/a1/workflow", json=body, headers=key)
            assert (again.status_code, again.json()["sessionId"]) == (202, session)
            assert len((await http.get(f"{API}/sessions")).json()["items"]) == 1
            for step in ("one", "two"):
                await finish(http, session, step)
            ended = (await http.get(f"{API}/session/{session}")).json()
            assert (ended["status"], ended["output"]) == ("completed", "two")


async def task_of(http: Any, session: str, step: str) -> dict[str, Any] | None:
    tasks = (await http.get(f"{API}/session/{session}/tasks")).json()["items"]
    return next((one for one in tasks if one["stepId"] == step), None)


def is_accepted(task: dict[str, Any] | None) -> bool:
    return task is not None and task["acceptedAt"] is not None


async def finish(http: Any, session: str, step: str) -> None:
    """Say as the agent that its task is done, once it was accepted."""
    task = await eventually(lambda: task_of(http, session, step), is_accepted)
    assert task is not None
    done = {"status": "completed", "result": step}
    answer = await http.post(f"{API}/task/{task['taskId']}/result", json=done)
    assert answer.json()["counted"] is True


async def test_F73_a_second_process_on_one_file_is_refused(tmp_path: Path) -> None:
    with service(tmp_path, settings(tmp_path)):
        env = clean_environment() | settings(tmp_path) | {"OPSCORE_PORT": "0"}
        with process("second", tmp_path, *OPSCORE, "serve", env=env) as second:
            assert second.ended() == 2
            assert "another process uses" in second.said


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be one" * 30])
async def test_F75_a_foreign_file_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "opscore.db"
    file.write_bytes(content)
    env = clean_environment() | settings(tmp_path) | {"OPSCORE_PORT": "0"}
    with process("refused", tmp_path, *OPSCORE, "serve", env=env) as refused:
        assert refused.ended() == 2
        assert "cannot be used as a database" in refused.said
    assert file.read_bytes() == content
