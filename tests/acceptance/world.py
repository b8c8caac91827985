"""A service with the agents and the AgentKit around it, and what tests ask of them.

The service is a process of its own. AgentKit and the agents are the simulators, served over
loopback by the test's event loop; a test that kills an agent starts it as a process.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import httpx

from opscore.simulators.agent import SimulatedAgent
from opscore.simulators.agentkit import SimulatedAgentKit
from opscore.simulators.behaviour import AgentBehaviour, AgentKitBehaviour
from opscore.simulators.running import running
from tests.acceptance.processes import PATIENCE, Service, eventually, plain_client

ENDED = {"completed", "failed", "cancelled", "timed_out"}
API = "/v1/opscore"

Value = TypeVar("Value")


@dataclass
class World:
    """`kit_port` is where the service looks for its AgentKit."""

    service: Service
    http: httpx.AsyncClient
    kit_port: int
    kit: SimulatedAgentKit | None = None
    kit_url: str = ""
    _running: list[AbstractAsyncContextManager[Any]] = field(default_factory=list)

    # --- who takes part -----------------------------------------------------------------------

    async def agentkit(self, **behaviour: Any) -> SimulatedAgentKit:
        """An AgentKit where the service looks for it, until the test ends."""
        return await self._enter(self.agentkit_for_a_while(**behaviour))

    @asynccontextmanager
    async def agentkit_for_a_while(self, **behaviour: Any) -> AsyncIterator[SimulatedAgentKit]:
        kit = SimulatedAgentKit(
            webhook_url=self.service.webhook_url,
            webhook_secret=self.service.secret,
            behaviour=AgentKitBehaviour.model_validate(behaviour),
            client=plain_client(),
        )
        async with running(kit.app, port=self.kit_port) as self.kit_url:
            self.kit = kit
            try:
                yield kit
            finally:
                self.kit = None

    async def mend(self, **behaviour: Any) -> None:
        """Change AgentKit's behaviour while it runs."""
        answer = await self.http.patch(f"{self.kit_url}/simulator/behaviour", json=behaviour)
        answer.raise_for_status()

    async def agent(self, capability: str, **behaviour: Any) -> SimulatedAgent:
        """An agent that is known to the service; through AgentKit if there is one."""
        agent = await self.unknown_agent(capability, **behaviour)
        await self.until_known(agent.agent_id)
        return agent

    async def unknown_agent(self, capability: str, **behaviour: Any) -> SimulatedAgent:
        """An agent that has registered and has not been waited for."""
        agent = SimulatedAgent(
            name=f"{capability}-{uuid4().hex[:6]}",
            capabilities=[capability],
            opscore_url=self.service.url,
            api_key=self.service.key,
            agentkit_url=self.kit_url if self.kit else None,
            behaviour=AgentBehaviour.model_validate({"workSeconds": 0.05, **behaviour}),
            client=plain_client(),
        )
        url = await self._enter(running(agent.app))
        await agent.register(f"{url}/task")
        return agent

    async def _enter(self, context: AbstractAsyncContextManager[Value]) -> Value:
        entered = await context.__aenter__()
        self._running.append(context)
        return entered

    async def close(self) -> None:
        """End all that was started; all at once, because each takes its time."""
        ending = (context.__aexit__(None, None, None) for context in self._running)
        await asyncio.gather(*ending)

    async def until_known(self, agent_id: str | None) -> dict[str, Any]:
        async def look() -> httpx.Response:
            return await self.http.get(f"{API}/agent/{agent_id}")

        answer = await eventually(look, lambda answer: answer.status_code == 200)
        agent: dict[str, Any] = answer.json()
        return agent

    # --- what is asked ------------------------------------------------------------------------

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.http.get(f"{API}/{path}", params=query)
        assert answer.is_success, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None) -> Any:
        answer = await self.http.post(f"{API}/{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    async def ready(self) -> Any:
        answer = await self.http.get("/health/ready")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def forwards(self) -> Any:
        return (await self.ready())["agentkitForwards"]["state"]

    async def start(self, agent: SimulatedAgent, *tasks: dict[str, Any], **payload: Any) -> str:
        """Start these tasks as a workflow on the agent; the session's id."""
        definition = {"id": f"flow-{uuid4().hex[:8]}", "tasks": list(tasks)}
        body = {"workflowDefinition": definition, "initialPayload": payload or None}
        session_id: str = (await self.post(f"agent/{agent.agent_id}/workflow", body))["sessionId"]
        return session_id

    async def finish(self, session_id: str, within: float = PATIENCE) -> Any:
        """The session, once it has ended."""
        return await eventually(
            lambda: self.get(f"session/{session_id}"),
            lambda session: session["status"] in ENDED,
            within,
        )

    async def run(self, agent: SimulatedAgent, *tasks: dict[str, Any], **payload: Any) -> Any:
        return await self.finish(await self.start(agent, *tasks, **payload))

    async def tasks(self, session_id: str) -> list[Any]:
        """The session's tasks, oldest first."""
        items: list[Any] = (await self.get(f"session/{session_id}/tasks"))["items"]
        return items[::-1]

    async def task_where(self, session_id: str, **wanted: Any) -> Any:
        """The session's newest task, once it looks as wanted."""

        async def look() -> Any:
            return (await self.tasks(session_id))[-1]

        return await eventually(look, lambda task: wanted.items() <= task.items())

    async def task_waiting(self, session_id: str, reason: str) -> Any:
        """The session's newest task, once it waits for this reason."""

        async def look() -> Any:
            return (await self.tasks(session_id))[-1]

        return await eventually(
            look, lambda task: (task["pendingReason"] or {}).get("code") == reason
        )

    async def events(self, session_id: str, *types: str) -> list[Any]:
        items = (await self.get(f"session/{session_id}/events"))["items"]
        return [event for event in items if not types or event["type"] in types]


@asynccontextmanager
async def world_around(service: Service, kit_port: int) -> AsyncIterator[World]:
    async with service.client() as http:
        world = World(service, http, kit_port)
        try:
            yield world
        finally:
            await world.close()


def sent_to(kit: SimulatedAgentKit | SimulatedAgent) -> list[Any]:
    """The task messages that a simulator was sent."""
    bodies = [entry.body for entry in kit.received.after()]
    return [body for body in bodies if isinstance(body, dict) and "messageType" in body]


def echo_step(step: str, capability: str | None = None, /, **fields: Any) -> dict[str, Any]:
    """A task whose agent gives its parameters back."""
    place = {"agentCapability": capability} if capability else {}
    return {"taskId": step, **place, "parameters": {"step": step}, **fields}
