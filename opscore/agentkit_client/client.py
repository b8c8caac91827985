"""The client: hands tasks to AgentKit or straight to agents, and says how that ended."""

import logging
from types import TracebackType
from typing import Self

from opscore.models import Agent, Claim, Delivery, Outcome, Task

logger = logging.getLogger(__name__)


class AgentKitClient:
    """Every way an HTTP exchange can end comes back as an Outcome; nothing is raised.

    The key goes to AgentKit alone. `async with` closes the connections at the end.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        allow_private: bool = True,
        max_connections: int = 200,
    ) -> None:
        raise NotImplementedError

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
        raise NotImplementedError

    async def run(self, claim: Claim, timeout: float) -> Outcome:  # noqa: ASYNC109
        raise NotImplementedError

    async def deliver(self, claim: Claim, timeout: float) -> Outcome:  # noqa: ASYNC109
        raise NotImplementedError

    async def cancel(self, task: Task, agent: Agent, via: Delivery) -> None:
        raise NotImplementedError
