"""The client: hands tasks to AgentKit or straight to agents, and says how that ended."""

import logging
import ssl
from dataclasses import replace
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from opscore.agentkit_client.addresses import check_endpoint
from opscore.agentkit_client.answers import HttpAnswer, agentkit_outcome, direct_outcome
from opscore.agentkit_client.connecting import (
    CONNECT_TIMEOUT,
    Connector,
    Resolver,
    Target,
    resolve,
)
from opscore.agentkit_client.errors import ExchangeError
from opscore.agentkit_client.guarded_stream import SendControl
from opscore.agentkit_client.messages import cancel_message, encode, task_message
from opscore.agentkit_client.transport import Headers, Transport
from opscore.clock import Clock, SystemClock
from opscore.crash_points import crash_point
from opscore.exceptions import ConfigurationError, ForbiddenEndpointError
from opscore.models import (
    ANY_ENDPOINT,
    Agent,
    Claim,
    Delivery,
    EndpointPolicy,
    FailureCode,
    Outcome,
    Task,
)
from opscore.settings import Settings

CANCEL_TIMEOUT = 5.0

_HEADERS: Headers = [
    (b"Content-Type", b"application/json"),
    (b"Accept", b"application/json"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"opscore"),
]

logger = logging.getLogger(__name__)


class AgentKitClient:
    """Every way an HTTP exchange can end comes back as an Outcome; nothing is raised.

    The key goes to AgentKit alone. AgentKit itself may live on a private network; agents may
    where `endpoints` says. Close the client at the end, or use it with `async with`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        endpoints: EndpointPolicy = ANY_ENDPOINT,
        max_connections: int = 200,
        awaited_answers: int = 5000,
        connect_timeout: float = CONNECT_TIMEOUT,
        tls: ssl.SSLContext | None = None,
        resolver: Resolver = resolve,
        clock: Clock | None = None,
    ) -> None:
        self._agentkit = _agentkit_target(base_url)
        self._key = _checked_key(api_key)
        self._endpoints = endpoints
        self._clock = clock or SystemClock()
        self._to_agentkit = Transport(
            Connector(ANY_ENDPOINT, resolver, tls, connect_timeout),
            max_connections,
            max_connections,
        )
        self._to_agents = Transport(
            Connector(endpoints, resolver, tls, connect_timeout),
            max_connections + awaited_answers,
            max_connections,
        )

    @classmethod
    def from_settings(cls, settings: Settings, clock: Clock | None = None) -> Self:
        key = settings.agentkit_api_key
        return cls(
            settings.agentkit_api_url,
            api_key=key.get_secret_value() if key else None,
            endpoints=settings.endpoint_policy,
            max_connections=settings.dispatch_concurrency,
            awaited_answers=settings.awaited_answers,
            connect_timeout=settings.connect_timeout,
            clock=clock,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._to_agentkit.close()
        await self._to_agents.close()

    async def run(
        self,
        claim: Claim,
        timeout: float,  # noqa: ASYNC109 - see Transport
        control: SendControl | None = None,
    ) -> Outcome:
        """Give the task to AgentKit for its agent; `timeout` is for the whole exchange."""
        message = task_message(claim)
        try:
            answer = await self._ask_agentkit(claim.agent.id, message, timeout, control)
        except ExchangeError as error:
            return error.failure("AgentKit")
        return agentkit_outcome(answer, claim.task, self._clock.wall())

    async def deliver(
        self,
        claim: Claim,
        timeout: float,  # noqa: ASYNC109 - see Transport
        control: SendControl | None = None,
    ) -> Outcome:
        """Give the task to its agent itself, at the agent's contact endpoint."""
        try:
            target = self._agent_target(claim.agent)
            answer = await self._ask_agent(target, task_message(claim), timeout, control)
        except ExchangeError as error:
            return error.failure("the agent's contact endpoint")
        return direct_outcome(answer, target.name, self._clock.wall())

    async def cancel(self, task: Task, agent: Agent, via: Delivery) -> None:
        """Tell the agent to stop, if it can be told; that it cannot is only logged."""
        message = cancel_message(task)
        try:
            if via is Delivery.AGENTKIT:
                answer = await self._ask_agentkit(agent.id, message, CANCEL_TIMEOUT)
            else:
                answer = await self._ask_agent(self._agent_target(agent), message, CANCEL_TIMEOUT)
        except ExchangeError as error:
            _log_cancel(task, agent, error.reason)
            return
        if not 200 <= answer.status < 300:
            _log_cancel(task, agent, f"the answer was HTTP {answer.status}")

    async def _ask_agentkit(
        self,
        agent_id: str,
        message: dict[str, Any],
        seconds: float,
        control: SendControl | None = None,
    ) -> HttpAnswer:
        path = b"/v1/agents/%s/run" % _quoted(agent_id)
        target = self._agentkit.at(self._agentkit.path + path)
        headers = _HEADERS
        if self._key is not None:
            headers = [*_HEADERS, (b"Authorization", b"Bearer " + self._key)]
        answer = await self._to_agentkit.post(target, headers, _encoded(message), seconds, control)
        crash_point("agentkit.answered")
        return self._without_key(answer)

    async def _ask_agent(
        self,
        target: Target,
        message: dict[str, Any],
        seconds: float,
        control: SendControl | None = None,
    ) -> HttpAnswer:
        answer = await self._to_agents.post(target, _HEADERS, _encoded(message), seconds, control)
        crash_point("direct.answered")
        return answer

    def _agent_target(self, agent: Agent) -> Target:
        if not agent.contact_endpoint:
            raise ExchangeError(
                FailureCode.NO_ENDPOINT,
                "The agent has no contact endpoint; register it with one, or deliver by AgentKit.",
            )
        try:
            return _endpoint_target(agent.contact_endpoint, self._endpoints)
        except ForbiddenEndpointError as error:
            raise ExchangeError(
                FailureCode.FORBIDDEN_ENDPOINT, error.detail, terminal=True
            ) from error

    def _without_key(self, answer: HttpAnswer) -> HttpAnswer:
        """A service that echoes its request must not bring our key into a stored failure."""
        if self._key is None or self._key not in answer.body:
            return answer
        return replace(answer, body=answer.body.replace(self._key, b"[hidden]"))


def _agentkit_target(base_url: str) -> Target:
    try:
        target = Target.parse(check_endpoint(base_url.strip(), ANY_ENDPOINT), "AgentKit")
    except (ForbiddenEndpointError, ValueError) as error:
        raise ConfigurationError(
            "AGENTKIT_API_URL is not usable; write http://host:port, with no user, query or #."
        ) from error
    if b"?" in target.path:
        raise ConfigurationError("AGENTKIT_API_URL must not carry a query; remove what follows ?.")
    return target.at(target.path.rstrip(b"/").removesuffix(b"/v1").rstrip(b"/"))


@lru_cache(maxsize=4096)
def _endpoint_target(url: str, policy: EndpointPolicy) -> Target:
    check_endpoint(url, policy)
    try:
        target = Target.parse(url, url.partition("?")[0])
    except ValueError as error:
        raise ForbiddenEndpointError(
            "The contact endpoint is not a valid URL; write http://host:port/path."
        ) from error
    return target


def _checked_key(key: str | None) -> bytes | None:
    if not key:
        return None
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigurationError(
            "AGENTKIT_API_KEY may hold only printable ASCII characters without spaces."
        )
    return key.encode()


def _encoded(message: dict[str, Any]) -> bytes:
    try:
        return encode(message)
    except TypeError as error:
        raise ExchangeError(
            FailureCode.REJECTED,
            "The task's parameters cannot be written as JSON; correct the workflow's input.",
            terminal=True,
        ) from error


def _quoted(agent_id: str) -> bytes:
    """The id as one segment of a path, whatever is in it."""
    quoted = quote(agent_id, safe="")
    return (quoted.replace(".", "%2E") if quoted in (".", "..") else quoted).encode()


def _log_cancel(task: Task, agent: Agent, reason: str) -> None:
    logger.info(
        "The agent could not be told that its task was cancelled: %s",
        reason,
        extra={"task_id": task.id, "agent_id": agent.id},
    )
