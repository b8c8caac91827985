"""Reports of a simulated agent on itself and on its tasks, in the dialect of its style."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from opscore.simulators.behaviour import AgentBehaviour
from opscore.simulators.dialect import Dialect, dialect_of
from opscore.simulators.job import Job, Outcome
from opscore.simulators.opscore_link import OpsCoreLink


class Reporter:
    """A task may arrive before its agent knows its own id; what it reports waits for that."""

    def __init__(self, link: OpsCoreLink, behaviour: AgentBehaviour) -> None:
        self._link = link
        self._behaviour = behaviour
        self._agent_id = ""
        self._known = asyncio.Event()

    async def begin_as(self, agent_id: str) -> None:
        self._agent_id = agent_id
        self._known.set()
        if self._behaviour.announce:
            await self._state(self._dialect.idle, {})

    def forget_id(self) -> None:
        """Hold back all reports until the agent has an id again."""
        self._known.clear()

    @asynccontextmanager
    async def working(self, job: Job) -> AsyncIterator[None]:
        """Say that the work begins; a precise agent says so again while the block runs."""
        if not self._dialect.precise:
            await self._state(self._dialect.active, self._dialect.details(job.task_id))
            yield
            return
        beating = asyncio.create_task(self._beat(job))
        try:
            yield
        finally:
            beating.cancel()

    async def ended(self, job: Job, outcome: Outcome) -> None:
        if self._dialect.precise:
            await self._post_result(job, outcome)
        elif outcome.error is None:
            details = self._dialect.result_details(job.task_id, outcome.result)
            await self._state(self._dialect.done, details)
        elif self._dialect.error is not None:
            details = self._dialect.details(job.task_id, error=outcome.error)
            await self._state(self._dialect.error, details)

    async def answered(self, job: Job, outcome: Outcome) -> None:
        """The answer to the task carried the result already; the reports follow it."""
        async with self.working(job):
            await self.ended(job, outcome)

    async def echo(self) -> None:
        """Report the end of work although there was none."""
        await self._state(self._dialect.active, {})
        await self._state(self._dialect.idle, {})

    async def cancelled(self, job: Job) -> None:
        await self._state(self._dialect.idle, self._dialect.details(job.task_id))

    @property
    def _dialect(self) -> Dialect:
        return dialect_of(self._behaviour)

    async def _state(self, word: str, details: Mapping[str, Any]) -> None:
        await self._known.wait()
        await asyncio.sleep(self._behaviour.report_delay)
        if not self._behaviour.silent:
            await self._link.state(self._agent_id, word, details)

    async def _beat(self, job: Job) -> None:
        while job.task_id is not None and not self._behaviour.silent:
            await self._link.heartbeat(job.task_id, job.attempt, {"working": True})
            await asyncio.sleep(self._behaviour.heartbeat_seconds)

    async def _post_result(self, job: Job, outcome: Outcome) -> None:
        if job.task_id is None or self._behaviour.silent:
            return
        if outcome.error is None:
            await self._link.completed(job.task_id, job.attempt, outcome.result)
        else:
            await self._link.failed(job.task_id, job.attempt, outcome.error)
