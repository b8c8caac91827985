"""A simulated AgentKit: it behaves as the real one does, flaws included."""

import asyncio
import hmac
import logging
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opscore.simulators.background import Background
from opscore.simulators.behaviour import AgentKitBehaviour
from opscore.simulators.control import Control, http_error, parse
from opscore.simulators.faults import IN_DOUBT, wrong_answer
from opscore.simulators.received import ReceivedLog
from opscore.simulators.tools import invoke
from opscore.simulators.webhook import send_webhook
from opscore.simulators.wire import Registration, RunMessage, validation_failed
from opscore.simulators.words import Fault

FORWARD_TIMEOUT = 15.0
TOOL_INVOCATION = "tool_invocation"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RegisteredAgent:
    id: str
    registration: Registration
    at: datetime

    def to_webhook(self) -> dict[str, Any]:
        registration = self.registration.model_dump(mode="json", by_alias=True)
        stamp = self.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        return {"agentId": self.id, **registration, "registration_time": stamp}


class SimulatedAgentKit:
    """Keeps its registry in memory. The webhook is skipped when URL or secret is missing."""

    def __init__(
        self,
        *,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        behaviour: AgentKitBehaviour | None = None,
        required_key: str | None = None,
        seed: int | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.behaviour = behaviour or AgentKitBehaviour()
        self.received = ReceivedLog()
        self.agents: dict[str, RegisteredAgent] = {}
        self.faults: Counter[Fault] = Counter()
        self.background = Background()
        self._webhook_url = webhook_url
        self._webhook_secret = webhook_secret
        self._required_key = required_key
        self._random = random.Random(seed)
        self._client = client or httpx.AsyncClient(trust_env=False)
        self.app = self._build()

    def _build(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/v1/agents/register", self._register, methods=["POST"]),
                Route("/v1/agents/{agent_id}/run", self._run, methods=["POST"]),
                Route("/simulator/forget", self._forget, methods=["POST"]),
                *Control(self.behaviour, self.received).routes,
            ],
            exception_handlers={
                HTTPException: http_error,
                ValidationError: validation_failed,
            },
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await self.aclose()

    async def aclose(self) -> None:
        await self.background.stop()
        await self._client.aclose()

    async def _health(self, _request: Request) -> JSONResponse:
        return JSONResponse(
            {"status": "ok", "service": "simulated-agentkit", "faults": dict(self.faults)}
        )

    async def _forget(self, request: Request) -> JSONResponse:
        """Forget one agent, or all of them as after a restart."""
        body = parse(await request.body())
        agent_id = body.get("agentId") if isinstance(body, dict) else None
        forgotten = [agent_id] if agent_id in self.agents else []
        if agent_id is None:
            forgotten = list(self.agents)
        for known in forgotten:
            del self.agents[known]
        return JSONResponse({"forgotten": forgotten})

    async def _register(self, request: Request) -> JSONResponse:
        body = await self._receive(request, None)
        registration = Registration.model_validate_json(body)
        name = registration.agent_name
        if any(agent.registration.agent_name == name for agent in self.agents.values()):
            raise HTTPException(409, f"Agent with name '{name}' is already registered.")
        agent = RegisteredAgent(str(uuid4()), registration, datetime.now(UTC))
        self.agents[agent.id] = agent
        logger.info("registered %r as %s", name, agent.id)
        self.background.start(self._announce(agent))
        answer = {
            "status": "success",
            "message": f"Agent '{name}' registered successfully.",
            "data": {"agentId": agent.id},
            "error_code": None,
        }
        return JSONResponse(answer, 201)

    async def _announce(self, agent: RegisteredAgent) -> None:
        if not self._webhook_url or not self._webhook_secret:
            logger.info("webhook skipped: no URL or no secret is configured")
            return
        await asyncio.sleep(self.behaviour.webhook_delay)
        body = {"event_type": "REGISTER", "agent_details": agent.to_webhook()}
        await send_webhook(self._client, self._webhook_url, self._webhook_secret, body)

    async def _run(self, request: Request) -> Response:
        agent_id = request.path_params["agent_id"]
        body = await self._receive(request, agent_id)
        await asyncio.sleep(self.behaviour.slow)
        self._fail_at_the_rate()
        message = RunMessage.model_validate_json(body)
        agent = self.agents.get(agent_id)
        if agent is None:
            raise HTTPException(404, f"Agent with ID '{agent_id}' not found.")
        if self._random.random() < self.behaviour.fault_rate:
            return await self._answer_wrongly(agent, message)
        if message.message_type != TOOL_INVOCATION:
            self.background.start(self._forward(agent, message))
        await asyncio.sleep(self.behaviour.answer_delay)
        return _right_answer(agent, message)

    async def _answer_wrongly(self, agent: RegisteredAgent, message: RunMessage) -> Response:
        """Whether a task came through in spite of a wrong answer, nobody can tell."""
        fault = self._random.choice(self.behaviour.faults)
        self.faults[fault] += 1
        is_task = message.message_type != TOOL_INVOCATION
        if fault in IN_DOUBT and is_task and self._random.random() < 0.5:
            self.background.start(self._forward(agent, message))
        if fault == "late":
            await asyncio.sleep(self.behaviour.late)
        if fault in ("late", "silence"):
            return _right_answer(agent, message)
        return wrong_answer(fault)

    def _fail_at_the_rate(self) -> None:
        if self._random.random() >= self.behaviour.fail_rate:
            return
        after = self.behaviour.retry_after
        headers = None if after is None else {"Retry-After": f"{after:g}"}
        raise HTTPException(self.behaviour.fail_status, "AgentKit was told to fail.", headers)

    async def _forward(self, agent: RegisteredAgent, message: RunMessage) -> None:
        if self.behaviour.silent:
            return
        await asyncio.sleep(self.behaviour.forward_delay)
        endpoint = agent.registration.contact_endpoint
        if self.behaviour.forwarding == "loses":
            logger.error(
                "forwarding to agent %s failed: Invalid type for url. Expected str or httpx.URL, "
                "got %s: %r",
                *(agent.id, type(endpoint), endpoint),
            )
            return
        headers = {"Content-Type": "application/json"}
        try:
            response = await self._client.post(
                str(endpoint), content=message.to_json(), headers=headers, timeout=FORWARD_TIMEOUT
            )
        except httpx.HTTPError as error:
            logger.error("forwarding to agent %s failed: %r", agent.id, error)
            return
        if not response.is_success:
            status = response.status_code
            logger.error("forwarding to agent %s failed: answered %d", agent.id, status)

    async def _receive(self, request: Request, agent_id: str | None) -> bytes:
        body = await request.body()
        self.received.add(request.url.path, agent_id, parse(body))
        self._check_key(request)
        return body

    def _check_key(self, request: Request) -> None:
        if self._required_key is None:
            return
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self._required_key}".encode()):
            raise HTTPException(401, "Send the key as 'Authorization: Bearer <key>'.")


def _right_answer(agent: RegisteredAgent, message: RunMessage) -> Response:
    if message.message_type == TOOL_INVOCATION:
        return JSONResponse(invoke(message.payload), 202)
    return JSONResponse(_accepted(agent.id), 202)


def _accepted(agent_id: str) -> dict[str, Any]:
    return {
        "status": "success",
        "message": f"Task accepted for agent {agent_id}. Dispatch scheduled.",
        "data": {"agentId": agent_id, "dispatch_status": "scheduled"},
        "error_code": None,
    }
