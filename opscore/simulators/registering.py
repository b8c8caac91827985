"""How a simulated agent makes itself known: through AgentKit, or to Ops-Core itself."""

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import httpx

from opscore.simulators.opscore_link import OpsCoreLink

REGISTER_TIMEOUT = 10.0


class RegistrationRefusedError(Exception):
    """The other side answered and said no; trying the same again does not help."""


async def register_with_agentkit(
    client: httpx.AsyncClient,
    url: str,
    *,
    name: str,
    version: str,
    capabilities: Sequence[str],
    endpoint: str,
) -> str:
    """Register, and return the id that AgentKit made. The URL may end in /v1."""
    base = url.rstrip("/").removesuffix("/v1")
    card: dict[str, Any] = {
        "agentName": name,
        "version": version,
        "contactEndpoint": endpoint,
        "metadata": None,
    }
    if capabilities:
        card["capabilities"] = list(capabilities)
    response = await client.post(f"{base}/v1/agents/register", json=card, timeout=REGISTER_TIMEOUT)
    if response.status_code == httpx.codes.CONFLICT:
        raise RegistrationRefusedError(
            f"AgentKit knows an agent named {name!r} already. Choose another name, "
            "or restart AgentKit to make it forget."
        )
    _expect_success(response, "AgentKit")
    return str(response.json()["data"]["agentId"])


async def register_with_opscore(
    link: OpsCoreLink,
    *,
    agent_id: str | None,
    name: str,
    version: str,
    capabilities: Sequence[str],
    endpoint: str,
    concurrency: int | None,
) -> str:
    """Register under the given id, or under a new one, and return it."""
    chosen = agent_id or str(uuid4())
    card: dict[str, Any] = {
        "agentId": chosen,
        "agentName": name,
        "version": version,
        "capabilities": list(capabilities),
        "contactEndpoint": endpoint,
    }
    if concurrency is not None:
        card["concurrency"] = concurrency
    _expect_success(await link.register(card), "Ops-Core")
    return chosen


def _expect_success(response: httpx.Response, who: str) -> None:
    if not response.is_success:
        raise RegistrationRefusedError(
            f"{who} refused the registration with {response.status_code}: {response.text[:500]}"
        )
