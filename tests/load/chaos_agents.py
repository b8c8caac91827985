"""The agents of a chaos run: simulated ones that work, fail, and report to whoever is there."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from opscore.simulators.agent import SimulatedAgent
from opscore.simulators.behaviour import AgentBehaviour
from opscore.simulators.dialect import dialect_of
from opscore.simulators.running import running
from tests.load.chaos_checker import HEARTBEAT
from tests.load.chaos_client import Insistent
from tests.load.chaos_processes import KEY
from tests.load.chaos_record import Post, Work, post_of
from tests.load.chaos_workflows import CAPABILITIES

_BEHAVIOURS: tuple[dict[str, Any], ...] = (
    {"style": "precise"},
    {"style": "reports"},
    {"style": "example"},
    {"style": "finished"},
    {"style": "reports", "task_ids": False},
)
_CARELESS = 4
_FAIL_RATE = 0.1
_HEARTBEAT_EVERY = 5.0
_PATIENCE = 300.0
# Below the grace in which a report without a task id is still taken for an attempt taken back.
_PATIENCE_OF_NAMELESS = 5.0


class Agents:
    """Every fourth agent tries each report once only, as careless clients do."""

    def __init__(self, seed: int, number: int, replicas: Sequence[str], agentkit: str) -> None:
        self.answers: Counter[str] = Counter()
        self.counted: list[str] = []
        self.received: list[Post] = []
        self.worked: list[Work] = []
        self._read = [0] * number
        self._read_work = [0] * number
        self._draw = random.Random(f"{seed} agents")
        self._clients = [
            self._client(replicas, 0 if n % _CARELESS == 3 else _patience(n)) for n in range(number)
        ]
        self._agents = [self._agent(n, client, agentkit) for n, client in enumerate(self._clients)]

    def _client(self, replicas: Sequence[str], patience: float) -> httpx.AsyncClient:
        transport = Insistent(replicas, self._draw, self.answers, patience)
        return httpx.AsyncClient(
            mounts={"http://replica": transport},
            event_hooks={"response": [self._note_result]},
            trust_env=False,
            verify=False,
        )

    def _agent(self, n: int, client: httpx.AsyncClient, agentkit: str) -> SimulatedAgent:
        work = self._draw.uniform(0.02, 0.3)
        return SimulatedAgent(
            name=f"agent-{n}",
            capabilities=[CAPABILITIES[n % len(CAPABILITIES)]],
            opscore_url="http://replica",
            api_key=KEY,
            agentkit_url=agentkit,
            behaviour=AgentBehaviour(
                **_behaviour(n),
                work_seconds=work,
                fail_rate=_FAIL_RATE,
                announce=False,
            ),
            seed=self._draw.randrange(2**32),
            client=client,
        )

    @property
    def nameless(self) -> list[str]:
        return [
            agent.agent_id or ""
            for agent in self._agents
            if not dialect_of(agent.behaviour).names_task
        ]

    @property
    def ids(self) -> list[str]:
        return [agent.agent_id or "" for agent in self._agents]

    def read_received(self) -> None:
        for n, agent in enumerate(self._agents):
            for entry in agent.received.after(self._read[n]):
                self.received.append(post_of(entry.agent_id, entry.body))
                self._read[n] = entry.n
            for done in agent.ledger.after(self._read_work[n]):
                work = Work(
                    agent.agent_id or "", done.task_id or "", done.attempt or 0, done.succeeded
                )
                self.worked.append(work)
                self._read_work[n] = done.n

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """They are registered, work and send heartbeats while the block runs."""
        async with AsyncExitStack() as stack:
            for agent in self._agents:
                url = await stack.enter_async_context(running(agent.app))
                await agent.register(f"{url}/task")
            beating = asyncio.create_task(self._beat(), name="heartbeats")
            stack.callback(beating.cancel)
            yield

    async def _beat(self) -> None:
        """An agent without work says so: a report that was lost must not keep it busy for ever."""
        while True:
            await asyncio.sleep(_HEARTBEAT_EVERY)
            idle = [
                (agent, client)
                for agent, client in zip(self._agents, self._clients, strict=True)
                if not agent.at_work
            ]
            await asyncio.gather(*(_say_idle(agent.agent_id, client) for agent, client in idle))

    async def _note_result(self, response: httpx.Response) -> None:
        """Remember which results were said to count."""
        path = response.request.url.path
        if not path.endswith("/result") or not response.is_success:
            return
        await response.aread()
        succeeded = json.loads(response.request.content)["status"] == "completed"
        if succeeded and response.json()["counted"]:
            self.counted.append(path.split("/")[-2])


def _behaviour(n: int) -> dict[str, Any]:
    return _BEHAVIOURS[n % len(_BEHAVIOURS)]


def _patience(n: int) -> float:
    names_tasks = dialect_of(AgentBehaviour(**_behaviour(n))).names_task
    return _PATIENCE if names_tasks else _PATIENCE_OF_NAMELESS


async def _say_idle(agent_id: str | None, client: httpx.AsyncClient) -> None:
    report: dict[str, Any] = {
        "agentId": agent_id,
        "timestamp": datetime.now(UTC).isoformat(),
        "state": "idle",
        "details": HEARTBEAT,
    }
    url = f"http://replica/v1/opscore/agent/{agent_id}/state"
    try:
        await client.post(url, json=report, headers={"Authorization": f"Bearer {KEY}"})
    except httpx.TransportError:
        # A careless agent: the next heartbeat says the same.
        return
