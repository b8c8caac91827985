"""The wrong answers of the simulated AgentKit, as a client on a real connection sees them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, get_args

import httpx
import pytest

from opscore.simulators.agentkit import SimulatedAgentKit
from opscore.simulators.behaviour import AgentKitBehaviour
from opscore.simulators.faults import ALL_FAULTS, IN_DOUBT
from opscore.simulators.running import running
from opscore.simulators.words import Fault
from tests.unit.test_simulators_agentkit import CARD, MESSAGE, Stub

STATUSES: dict[Fault, int] = {
    "error": 500,
    "bad_gateway": 502,
    "unavailable": 503,
    "throttled": 429,
    "rejected": 422,
    "redirect": 307,
    "status_error": 202,
    "broken_json": 202,
    "html": 200,
    "empty": 202,
    "huge": 202,
    "silence": 202,
}
ENDINGS: dict[Fault, type[Exception]] = {
    "reset": httpx.ReadError,
    "truncated": httpx.RemoteProtocolError,
    "late": httpx.ReadTimeout,
}
TOOL = {**MESSAGE, "messageType": "tool_invocation", "payload": {"tool_name": "mock_tool"}}


@dataclass
class World:
    kit: SimulatedAgentKit
    http: httpx.AsyncClient
    agent: Stub
    agent_id: str = ""

    async def run(self, fault: Fault, message: Any = MESSAGE) -> httpx.Response:
        self.kit.behaviour.change({"faultRate": 1, "faults": [fault]})
        path, patience = f"/v1/agents/{self.agent_id}/run", 0.3 if fault == "late" else 30
        return await self.http.post(path, json=message, timeout=patience)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    agent = Stub()
    client = httpx.AsyncClient(mounts={"http://agent": httpx.ASGITransport(agent.app)})
    kit = SimulatedAgentKit(client=client, seed=1)
    async with (
        running(kit.app) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as http,
    ):
        answer = await http.post("/v1/agents/register", json=CARD)
        yield World(kit, http, agent, answer.json()["data"]["agentId"])


def test_each_fault_is_looked_at() -> None:
    assert {*STATUSES, *ENDINGS} == set(ALL_FAULTS) == set(get_args(Fault))


@pytest.mark.parametrize(("fault", "status"), STATUSES.items())
async def test_a_wrong_answer(world: World, fault: Fault, status: int) -> None:
    answer = await world.run(fault)
    assert answer.status_code == status
    says_success = answer.content.startswith(b"{") and b'"data"' in answer.content
    assert says_success is (fault == "silence")
    assert world.kit.faults == {fault: 1}


@pytest.mark.parametrize(("fault", "error"), ENDINGS.items())
async def test_an_answer_that_never_comes_whole(
    world: World, fault: Fault, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await world.run(fault)
    # The next one finds a service that is there.
    assert (await world.run("html")).status_code == 200


async def test_F32_the_huge_answer_is_larger_than_anybody_reads(world: World) -> None:
    assert len((await world.run("huge")).content) > 1024 * 1024


@pytest.mark.parametrize("fault", ["html", "unavailable"])
async def test_a_task_comes_through_only_where_that_is_in_doubt(world: World, fault: Fault) -> None:
    for _ in range(20):
        await world.run(fault)
    await world.kit.background.settle()
    arrived = len(world.agent.requests)
    assert 0 < arrived < 20 if fault in IN_DOUBT else arrived == 0


async def test_a_tool_is_answered_wrongly_too(world: World) -> None:
    answer = await world.run("html", TOOL)
    await world.kit.background.settle()
    assert (answer.status_code, world.agent.requests) == (200, [])
    silent = await world.run("silence", TOOL)
    assert silent.json()["data"] == {"result": {}}


async def test_the_share_of_wrong_answers_is_kept(world: World) -> None:
    world.kit.behaviour.change({"faultRate": 0.5, "faults": ["html"]})
    path = f"/v1/agents/{world.agent_id}/run"
    statuses = [(await world.http.post(path, json=MESSAGE)).status_code for _ in range(40)]
    assert 8 < statuses.count(200) < 32
    health = (await world.http.get("/health")).json()
    assert health["faults"] == {"html": statuses.count(200)}


@pytest.mark.parametrize("patch", [{"faultRate": 1.1}, {"faults": []}, {"faults": ["flood"]}])
def test_a_wrong_wish_is_refused(patch: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fault|Input|items"):
        AgentKitBehaviour().change(patch)
