"""The simulated agent, against a stub of Ops-Core and of AgentKit."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from opscore.simulators.agent import SimulatedAgent
from opscore.simulators.behaviour import AgentBehaviour
from opscore.simulators.registering import RegistrationRefusedError
from tests.unit.waiting import until

AGENT_ID = "agent-1"
WORK = {"echo": {"n": 1}}
FAILED = {"error": "The agent was told to fail this task."}
NAMED = {"opscore_task_id": "t1"}


@dataclass
class Stub:
    """Ops-Core and AgentKit in one: keeps every POST and answers what it was told."""

    status: int = 202
    posts: list[tuple[str, str, Any]] = field(default_factory=list)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> JSONResponse:
        key = request.headers.get("authorization", "")
        self.posts.append((request.url.path, key, await request.json()))
        return JSONResponse({"data": {"agentId": AGENT_ID}}, self.status)

    @property
    def states(self) -> list[tuple[str, Any]]:
        """The words and details of all state reports."""
        return [(body["state"], body["details"]) for path, _, body in self.posts if "state" in body]

    def bodies(self, ending: str) -> list[Any]:
        return [body for path, _, body in self.posts if path.endswith(ending)]


@dataclass
class World:
    agent: SimulatedAgent
    http: httpx.AsyncClient
    stub: Stub

    async def send(self, task_id: str | None = "t1", kind: str = "workflow_task") -> httpx.Response:
        payload = {"task_name": "t", "task_parameters": {"n": 1}, "attempt": 3}
        message = {
            "senderId": "opscore_system_id",
            "messageType": kind,
            "payload": payload,
            "opscore_task_id": task_id,
        }
        return await self.http.post("/task", json=message)

    async def do(self, task_id: str | None = "t1") -> httpx.Response:
        """Send a task and wait until the agent has done and said everything."""
        answer = await self.send(task_id)
        await self.agent.background.settle()
        return answer


@asynccontextmanager
async def world(
    *,
    crash: Callable[[], None] = lambda: None,
    direct: bool = False,
    capabilities: tuple[str, ...] = ("x",),
    **behaviour: Any,
) -> AsyncIterator[World]:
    stub = Stub()
    agent = SimulatedAgent(
        name="a1",
        capabilities=capabilities,
        opscore_url="http://stub",
        api_key="k1",
        agentkit_url=None if direct else "http://stub/v1/",
        behaviour=AgentBehaviour(**{"work_seconds": 0, "announce": False, **behaviour}),
        client=httpx.AsyncClient(transport=httpx.ASGITransport(stub.app)),
        crash=crash,
    )
    transport = httpx.ASGITransport(agent.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as http:
        stub.status = 201
        await agent.register("http://agent/task")
        stub.status = 202
        yield World(agent, http, stub)
    await agent.aclose()


# --- registration ---------------------------------------------------------------------------


async def test_it_registers_with_agentkit_and_reports_idle_once() -> None:
    async with world(announce=True) as its:
        [(path, key, card), (_, report_key, report)] = its.stub.posts
    assert (path, key, report_key) == ("/v1/agents/register", "", "Bearer k1")
    assert card == {
        "agentName": "a1",
        "version": "1.0.0",
        "capabilities": ["x"],
        "contactEndpoint": "http://agent/task",
        "metadata": None,
    }
    assert (report["agentId"], report["state"], report["details"]) == (AGENT_ID, "idle", {})


async def test_agent_without_capabilities_is_accepted() -> None:
    async with world(capabilities=()) as its:
        [(_, _, card)] = its.stub.posts
        assert "capabilities" not in card
        assert (await its.do()).status_code == 202
        assert its.stub.states[-1] == ("idle", {**NAMED, "result": WORK})


async def test_it_registers_directly_with_its_own_id_and_concurrency() -> None:
    async with world(direct=True, concurrency=3) as its:
        [(path, key, card)] = its.stub.posts
        assert (path, key) == ("/v1/opscore/agents", "Bearer k1")
        assert card["agentId"] == its.agent.agent_id
        assert card["concurrency"] == 3


@pytest.mark.parametrize(("status", "word"), [(409, "Choose another name"), (500, "500")])
async def test_a_refused_registration_says_why(status: int, word: str) -> None:
    async with world() as its:
        its.stub.status = status
        with pytest.raises(RegistrationRefusedError, match=word):
            await its.agent.register("http://agent/task")


async def test_an_agent_registered_by_others_takes_its_id() -> None:
    async with world(announce=True, style="capitals") as its:
        await its.agent.adopt("other")
        assert its.stub.posts[-1][0] == "/v1/opscore/agent/other/state"
        assert its.stub.states[-1] == ("IDLE", {})


# --- styles ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "states"),
    [
        ({"style": "reports"}, [("active", NAMED), ("idle", {**NAMED, "result": WORK})]),
        ({"style": "finished"}, [("active", NAMED), ("finished", {**NAMED, "result": WORK})]),
        (
            {"style": "reports", "task_ids": False},
            [("active", {}), ("idle", {"result": WORK})],
        ),
        ({"style": "reports", "silent": True}, []),
    ],
)
async def test_a_style_answers_at_once_and_reports(
    behaviour: dict[str, Any], states: list[tuple[str, Any]]
) -> None:
    async with world(**behaviour) as its:
        answer = await its.do()
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
        assert its.stub.states == states


@pytest.mark.parametrize(
    ("behaviour", "states"),
    [
        ({"style": "example"}, [("active", {}), ("idle", {})]),
        (
            {"style": "reports", "works_first": True},
            [("active", NAMED), ("idle", {**NAMED, "result": WORK})],
        ),
    ],
)
async def test_a_style_works_first_and_reports_afterwards(
    behaviour: dict[str, Any], states: list[tuple[str, Any]]
) -> None:
    async with world(**behaviour) as its:
        answer = await its.do()
        assert answer.json() == {"status": "completed", "result": WORK}
        assert its.stub.states == states


@pytest.mark.fault("F123")
@pytest.mark.parametrize(
    ("behaviour", "states"),
    [
        ({"style": "capitals"}, [("BUSY", {}), ("IDLE", {"last_task_result": WORK})]),
        (
            {"style": "reports", "reports_first": True},
            [("active", NAMED), ("idle", {**NAMED, "result": WORK})],
        ),
    ],
)
async def test_a_style_reports_first_and_answers_afterwards(
    behaviour: dict[str, Any], states: list[tuple[str, Any]]
) -> None:
    async with world(**behaviour) as its:
        answer = await its.send()
        assert its.stub.states == states
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})


async def test_reports_wait_for_their_delay() -> None:
    async with world(style="example", report_delay=60) as its:
        sending = asyncio.create_task(its.send())
        await until(lambda: its.agent.begun == 1)
        assert its.stub.states == []
        sending.cancel()


async def test_a_precise_agent_uses_the_routes_of_the_task() -> None:
    async with world(style="precise", work_seconds=0.01) as its:
        await its.do()
        assert its.stub.states == []
        assert its.stub.bodies("/v1/opscore/task/t1/heartbeat")[0]["attempt"] == 3
        assert its.stub.bodies("/v1/opscore/task/t1/result") == [
            {"status": "completed", "result": WORK, "attempt": 3}
        ]


# --- failing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "states"),
    [
        ("reports", [("active", NAMED), ("error", {**NAMED, **FAILED})]),
        ("finished", [("active", NAMED), ("error", {**NAMED, **FAILED})]),
        ("capitals", [("BUSY", {}), ("ERROR", FAILED)]),
    ],
)
async def test_a_failure_is_reported(style: str, states: list[tuple[str, Any]]) -> None:
    async with world(style=style, fail_rate=1) as its:
        await its.do()
        assert its.stub.states == states


async def test_a_precise_failure_is_posted() -> None:
    async with world(style="precise", fail_rate=1) as its:
        await its.do()
        assert its.stub.bodies("/result") == [{"status": "failed", "attempt": 3, **FAILED}]


async def test_a_works_first_failure_is_a_500_and_nothing_else() -> None:
    async with world(style="example", fail_rate=1) as its:
        assert (await its.do()).status_code == 500
        assert its.stub.states == []


async def test_it_fails_its_first_tasks_only() -> None:
    async with world(fail_first=2) as its:
        for _ in range(3):
            await its.do()
        assert [word for word, _ in its.stub.states if word != "active"] == [
            "error",
            "error",
            "idle",
        ]


async def test_it_refuses_until_it_is_told_otherwise() -> None:
    async with world(refuse=True) as its:
        assert (await its.do()).status_code == 503
        await its.http.patch("/simulator/behaviour", json={"refuse": False})
        assert (await its.do()).status_code == 202
        assert its.agent.begun == 1


async def test_it_crashes_in_the_middle_of_the_task_after_so_many() -> None:
    crashes: list[int] = []
    async with world(crash_after=1, crash=lambda: crashes.append(1)) as its:
        await its.do()
        assert crashes == []
        await its.do()
        assert crashes == [1]


async def test_a_lost_report_is_not_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as its:
        its.stub.status = 503
        await its.do()
        assert [word for word, _ in its.stub.states] == ["active", "idle"]
        assert "is lost" in caplog.text


# --- several tasks --------------------------------------------------------------------------


async def test_tasks_beyond_its_concurrency_are_refused() -> None:
    async with world(concurrency=2, work_seconds=60) as its:
        answers = [await its.send(f"t{n}") for n in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 503]
        health = (await its.http.get("/health")).json()
        assert (health["atWork"], health["mostAtOnce"], health["begun"]) == (2, 2, 2)


async def test_a_cancelled_task_stops_and_the_others_go_on() -> None:
    async with world(work_seconds=60) as its:
        await its.send("t1")
        await its.send("t2")
        answer = await its.send("t1", kind="task_cancel")
        assert answer.json() == {"status": "cancelled", "stopped": 1}
        await until(lambda: ("idle", NAMED) in its.stub.states)
        assert its.agent.at_work == 1
        assert (await its.send("t9", kind="task_cancel")).json()["stopped"] == 0


async def test_a_cancelled_works_first_task_answers_so() -> None:
    async with world(works_first=True, work_seconds=60) as its:
        sending = asyncio.create_task(its.send("t1"))
        await until(lambda: its.agent.at_work == 1)
        await its.send("t1", kind="task_cancel")
        assert (await sending).json() == {"status": "cancelled"}
        assert its.agent.at_work == 0


@pytest.mark.fault("F122")
@pytest.mark.parametrize("kind", ["task_cancel", "greeting"])
async def test_the_example_agent_echoes_messages_that_it_does_not_know(kind: str) -> None:
    async with world(style="example", work_seconds=60) as its:
        sending = asyncio.create_task(its.send("t1"))
        await until(lambda: its.agent.at_work == 1)
        assert (await its.send("t1", kind=kind)).json() == {"status": "ignored"}
        assert its.stub.states == [("active", {}), ("idle", {})]
        assert its.agent.at_work == 1
        sending.cancel()


@pytest.mark.fault("F126")
async def test_a_restarted_agent_has_a_new_id_and_no_work() -> None:
    async with world(direct=True, work_seconds=60) as its:
        before = its.agent.agent_id
        await its.send("t1")
        await until(lambda: bool(its.stub.states))
        its.stub.status = 201
        answer = await its.http.post("/simulator/restart")
        assert answer.json() == {"agentId": its.agent.agent_id}
        assert its.agent.agent_id != before
        assert its.agent.at_work == 0
        cards = [body for path, _, body in its.stub.posts if path.endswith("/agents")]
        assert [card["agentId"] for card in cards] == [before, its.agent.agent_id]
        assert cards[0]["agentName"] == cards[1]["agentName"]
        assert cards[0]["contactEndpoint"] == cards[1]["contactEndpoint"]
        assert its.stub.states == [("active", NAMED)]


@pytest.mark.fault("F126")
async def test_a_restart_is_refused_while_agentkit_knows_the_name() -> None:
    async with world() as its:
        its.stub.status = 409
        answer = await its.http.post("/simulator/restart")
        assert answer.status_code == 409
        assert "restart AgentKit" in answer.json()["detail"]


async def test_a_task_that_comes_before_its_id_is_reported_under_it() -> None:
    stub = Stub()
    client = httpx.AsyncClient(transport=httpx.ASGITransport(stub.app))
    agent = SimulatedAgent(
        name="a1",
        capabilities=["x"],
        opscore_url="http://stub",
        api_key="k1",
        behaviour=AgentBehaviour(work_seconds=0, announce=False),
        client=client,
    )
    transport = httpx.ASGITransport(agent.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://agent") as http:
        await World(agent, http, stub).send()
        assert stub.posts == []
        await agent.adopt("late")
        await agent.background.settle()
    await agent.aclose()
    assert {path for path, _, _ in stub.posts} == {"/v1/opscore/agent/late/state"}


# --- what tests may do ----------------------------------------------------------------------


async def test_what_was_received_can_be_read() -> None:
    async with world() as its:
        await its.do("t7")
        received = (await its.http.get("/simulator/received")).json()["items"]
        assert [entry["body"]["opscore_task_id"] for entry in received] == ["t7"]
        assert received[0]["agentId"] == AGENT_ID


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"senderId": "x"}'])
async def test_a_message_it_cannot_read_is_422(body: bytes) -> None:
    async with world() as its:
        assert (await its.http.post("/task", content=body)).status_code == 422
        assert its.agent.begun == 0
