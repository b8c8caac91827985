"""The simulators as real processes, with a stub in the place of Ops-Core."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from opscore.simulators.running import running
from tests.acceptance.processes import reserved_port

pytestmark = pytest.mark.acceptance

PATIENCE = 60
SECRET = "whsec_test_0123456789abcdef"
MESSAGE = {
    "senderId": "opscore_system_id",
    "messageType": "workflow_task",
    "payload": {"task_name": "t", "task_parameters": {"topic": "tides"}, "attempt": 1},
    "opscore_task_id": "t1",
}


@dataclass
class StubOpsCore:
    """Takes every POST with 202, and lets a test wait for the next."""

    posts: "asyncio.Queue[tuple[str, Any]]" = field(default_factory=asyncio.Queue)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> JSONResponse:
        self.posts.put_nowait((request.url.path, await request.json()))
        return JSONResponse({}, 202)

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(PATIENCE):
            return await self.posts.get()


@dataclass
class Simulator:
    process: asyncio.subprocess.Process
    url: str

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()


async def launch(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "opscore", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def simulator(*arguments: str) -> AsyncIterator[Simulator]:
    process = await launch("simulate", *arguments)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
        found = re.search(r"listens on (http://\S+)", line)
        assert found is not None, line
        yield Simulator(process, found[1])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@dataclass
class World:
    opscore: StubOpsCore
    opscore_url: str
    http: httpx.AsyncClient

    def agentkit(self, *switches: str) -> AbstractAsyncContextManager[Simulator]:
        notify = f"{self.opscore_url}/v1/opscore/internal/agent/notify"
        places = ("--port", "0", "--webhook-url", notify, "--webhook-secret", SECRET)
        return simulator("agentkit", *places, *switches)

    def agent(self, agentkit_url: str, *switches: str) -> AbstractAsyncContextManager[Simulator]:
        places = ("--agentkit-url", agentkit_url, "--opscore-url", self.opscore_url)
        own = ("--name", "a1", "--capability", "research", "--api-key", "k1")
        return simulator("agent", *places, *own, "--work-seconds", "0", *switches)

    async def run(self, agentkit: Simulator, agent_id: str) -> httpx.Response:
        return await self.http.post(f"{agentkit.url}/v1/agents/{agent_id}/run", json=MESSAGE)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    opscore = StubOpsCore()
    async with running(opscore.app) as url, httpx.AsyncClient(trust_env=False) as http:
        yield World(opscore, url, http)


async def test_an_agent_registers_is_announced_takes_a_task_and_reports(world: World) -> None:
    async with world.agentkit() as kit, world.agent(kit.url, "--no-announce") as agent:
        path, webhook = await world.opscore.next()
        assert path == "/v1/opscore/internal/agent/notify"
        details = webhook["agent_details"]
        assert details["contactEndpoint"] == f"{agent.url}/task"
        assert (await world.run(kit, details["agentId"])).status_code == 202
        reports = [(await world.opscore.next())[1] for _ in range(2)]
        assert [report["state"] for report in reports] == ["active", "idle"]
        assert reports[1]["details"]["opscore_task_id"] == "t1"
        assert reports[1]["details"]["result"]["topic"] == "tides"
        received = (await world.http.get(f"{agent.url}/simulator/received")).json()["items"]
        assert [entry["agentId"] for entry in received] == [details["agentId"]]
        assert (await agent.stop(), await kit.stop(signal.SIGINT)) == (0, 0)


async def test_the_report_can_come_before_the_webhook(world: World) -> None:
    async with world.agentkit("--webhook-delay", "2") as kit, world.agent(kit.url):
        first, second = await world.opscore.next(), await world.opscore.next()
        assert first[0].endswith("/state")
        assert second[0].endswith("/notify")


async def test_an_agent_waits_for_its_agentkit(world: World) -> None:
    with reserved_port() as port:
        async with world.agent(f"http://127.0.0.1:{port}/v1/", "--no-announce") as agent:
            assert (await world.http.get(f"{agent.url}/health")).json()["agentId"] is None
            async with world.agentkit("--port", str(port)):
                _, webhook = await world.opscore.next()
                assert webhook["agent_details"]["agentName"] == "a1"


async def test_an_agent_whose_name_is_taken_says_so_and_ends(world: World) -> None:
    async with world.agentkit() as kit, world.agent(kit.url), world.agent(kit.url) as second:
        assert await second.ended() == 1
        assert b"Choose another name" in (await second.process.communicate())[1]


async def test_F36_an_agent_that_crashes_mid_task_says_nothing_more(world: World) -> None:
    switches = ("--no-announce", "--crash-after", "0")
    async with world.agentkit() as kit, world.agent(kit.url, *switches) as agent:
        _, webhook = await world.opscore.next()
        await world.run(kit, webhook["agent_details"]["agentId"])
        assert await agent.ended() == 70
        assert (await world.opscore.next())[1]["state"] == "active"
        assert world.opscore.posts.empty()


async def test_an_agent_registers_directly_or_adopts_its_id(world: World) -> None:
    async with world.agent("", "--direct-register", "--agent-id", "x1"):
        registration, report = await world.opscore.next(), await world.opscore.next()
        assert (registration[0], registration[1]["agentId"]) == ("/v1/opscore/agents", "x1")
        assert report[0] == "/v1/opscore/agent/x1/state"
    async with world.agent("", "--agent-id", "x2", "--style", "capitals"):
        path, report_body = await world.opscore.next()
        assert (path, report_body["state"]) == ("/v1/opscore/agent/x2/state", "IDLE")


async def test_a_port_that_is_taken_is_one_sentence(world: World) -> None:
    port = str(httpx.URL(world.opscore_url).port)
    process = await launch("simulate", "agentkit", "--port", port)
    _, errors = await process.communicate()
    assert process.returncode == 1
    assert errors.decode().strip().endswith("Choose another port.")
    assert b"Traceback" not in errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("agentkit", "--fail-rate", "2"),
        ("agentkit", "--forwarding", "perhaps"),
        ("agent", "--name", "a1", "--capability", "x", "--api-key", "k", "--style", "loud"),
    ],
)
async def test_a_wrong_switch_is_named(arguments: tuple[str, ...]) -> None:
    process = await launch("simulate", *arguments)
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert arguments[-2].encode() in errors
