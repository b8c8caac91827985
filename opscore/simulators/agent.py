"""A simulated agent: it registers, reports, works and reports, in any of the known styles."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opscore.simulators.background import Background
from opscore.simulators.behaviour import AgentBehaviour
from opscore.simulators.control import Control, http_error, parse
from opscore.simulators.dialect import dialect_of
from opscore.simulators.faults import BrokenOff
from opscore.simulators.job import Job, Outcome, job_of
from opscore.simulators.ledger import WorkLedger
from opscore.simulators.opscore_link import OpsCoreLink
from opscore.simulators.received import ReceivedLog
from opscore.simulators.registering import (
    RegistrationRefusedError,
    register_with_agentkit,
    register_with_opscore,
)
from opscore.simulators.reporter import Reporter
from opscore.simulators.wire import RunMessage, validation_failed
from opscore.simulators.work import perform

CRASHED = 70
KNOWN_MESSAGE = "workflow_task"


def crash() -> None:
    """End the process as a fault would: nothing is tidied up."""
    os._exit(CRASHED)


class SimulatedAgent:
    """Serve `app`, then call `register` with the URL of its /task route.

    With `agentkit_url` it registers through AgentKit, without it at Ops-Core itself. An agent that
    somebody else registered is given its `agent_id` and calls `adopt` instead.
    """

    def __init__(
        self,
        *,
        name: str,
        capabilities: Sequence[str],
        opscore_url: str,
        api_key: str,
        agentkit_url: str | None = None,
        agent_id: str | None = None,
        version: str = "1.0.0",
        behaviour: AgentBehaviour | None = None,
        seed: int | None = None,
        client: httpx.AsyncClient | None = None,
        crash: Callable[[], None] = crash,
    ) -> None:
        self.name = name
        self.capabilities = tuple(capabilities)
        self.version = version
        self.agent_id = agent_id
        self.behaviour = behaviour or AgentBehaviour()
        self.received = ReceivedLog()
        self.ledger = WorkLedger()
        self.background = Background()
        self.begun = 0
        self.most_at_once = 0
        self._jobs: list[Job] = []
        self._endpoint = ""
        self._agentkit_url = agentkit_url
        self._random = random.Random(seed)
        self._crash = crash
        self._client = client or httpx.AsyncClient(trust_env=False)
        self._link = OpsCoreLink(self._client, opscore_url, api_key)
        self._reporter = Reporter(self._link, self.behaviour)
        self.app = self._build()

    def _build(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/health", self._health),
                Route("/task", self._task, methods=["POST"]),
                Route("/simulator/restart", self._restart, methods=["POST"]),
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

    async def register(self, endpoint: str) -> str:
        """Register, report `idle` once, and return the agent's id.

        Raises RegistrationRefusedError, or httpx.HTTPError where nobody answers.
        """
        self._endpoint = endpoint
        agent_id = await self._register(endpoint)
        await self.adopt(agent_id)
        return agent_id

    async def restart(self) -> str:
        """Come back as after a reboot: all work is gone, and the agent registers under a new id.

        Raises RegistrationRefusedError where AgentKit still knows the name.
        """
        for job in self._jobs:
            job.abandon()
        self._jobs = []
        self.agent_id = None
        self._reporter.forget_id()
        return await self.register(self._endpoint)

    async def adopt(self, agent_id: str) -> None:
        """Take an id that is registered already, and report `idle` once."""
        self.agent_id = agent_id
        await self._reporter.begin_as(agent_id)

    async def _register(self, endpoint: str) -> str:
        if self._agentkit_url is None:
            return await register_with_opscore(
                self._link,
                agent_id=self.agent_id,
                name=self.name,
                version=self.version,
                capabilities=self.capabilities,
                endpoint=endpoint,
                concurrency=self.behaviour.concurrency,
            )
        return await register_with_agentkit(
            self._client,
            self._agentkit_url,
            name=self.name,
            version=self.version,
            capabilities=self.capabilities,
            endpoint=endpoint,
        )

    @property
    def at_work(self) -> int:
        return len(self._jobs)

    async def _health(self, _request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "status": "ok",
                "agentId": self.agent_id,
                "begun": self.begun,
                "atWork": self.at_work,
                "mostAtOnce": self.most_at_once,
            }
        )

    async def _restart(self, _request: Request) -> JSONResponse:
        try:
            agent_id = await self.restart()
        except RegistrationRefusedError as error:
            raise HTTPException(409, str(error)) from error
        return JSONResponse({"agentId": agent_id})

    async def _task(self, request: Request) -> Response:
        body = await request.body()
        self.received.add(request.url.path, self.agent_id, parse(body))
        message = RunMessage.model_validate_json(body)
        if dialect_of(self.behaviour).echoes and message.message_type != KNOWN_MESSAGE:
            echo = BackgroundTask(self._reporter.echo)
            return JSONResponse({"status": "ignored"}, background=echo)
        if message.message_type == "task_cancel":
            return await self._cancel(message.opscore_task_id)
        self._refuse_if_told()
        job = self._begin(message)
        await asyncio.sleep(self.behaviour.slow_answer)
        return await self._take(job)

    def _refuse_if_told(self) -> None:
        limit = self.behaviour.concurrency
        if self.behaviour.refuse or (limit is not None and self.at_work >= limit):
            raise HTTPException(503, "The agent takes no task now. Try again later.")

    def _begin(self, message: RunMessage) -> Job:
        behaviour = self.behaviour
        job = job_of(message)
        job.crashes = behaviour.crash_after is not None and self.begun >= behaviour.crash_after
        self.begun += 1
        by_rate = self._random.random() < behaviour.fail_rate
        job.fails = by_rate or self.begun <= behaviour.fail_first
        self._jobs.append(job)
        self.most_at_once = max(self.most_at_once, self.at_work)
        return job

    async def _take(self, job: Job) -> Response:
        if job.cancelled:
            self._lay_down(job)
            return _cut_short(job)
        dialect = dialect_of(self.behaviour)
        work = self._start(job, self._work(job) if dialect.works_first else self._report_on(job))
        if dialect.works_first or dialect.reports_first:
            await asyncio.wait([work])
            if work.cancelled():
                return _cut_short(job)
        if dialect.works_first:
            return self._answer_with(job, work.result())
        return JSONResponse({"status": "accepted"}, 202)

    def _start(self, job: Job, work: Coroutine[Any, Any, Outcome]) -> asyncio.Task[Outcome]:
        task = self.background.start(work)
        task.add_done_callback(lambda _: self._lay_down(job))
        job.work = task
        return task

    def _answer_with(self, job: Job, outcome: Outcome) -> Response:
        if outcome.error is not None:
            return JSONResponse({"detail": outcome.error}, 500)
        return JSONResponse(
            {"status": "completed", "result": outcome.result},
            background=BackgroundTask(self._reporter.answered, job, outcome),
        )

    async def _report_on(self, job: Job) -> Outcome:
        async with self._reporter.working(job):
            outcome = await self._work(job)
        await self._reporter.ended(job, outcome)
        return outcome

    def _lay_down(self, job: Job) -> None:
        self._jobs = [other for other in self._jobs if other is not job]

    async def _work(self, job: Job) -> Outcome:
        try:
            return await self._perform(job)
        finally:
            # Before the last report: who hears it may send the next task at once.
            self._lay_down(job)

    async def _perform(self, job: Job) -> Outcome:
        half = self.behaviour.work_seconds / 2
        await asyncio.sleep(half)
        if job.crashes:
            self._crash()
        await asyncio.sleep(half)
        self.ledger.add(job.task_id, job.attempt, succeeded=not job.fails)
        if job.fails:
            return Outcome(error="The agent was told to fail this task.")
        return Outcome(result=perform(self.capabilities, job.parameters))

    async def _cancel(self, task_id: str | None) -> JSONResponse:
        jobs = [job for job in self._jobs if job.task_id == task_id]
        for job in jobs:
            job.cancel()
            self.background.start(self._reporter.cancelled(job))
        return JSONResponse({"status": "cancelled", "stopped": len(jobs)})


def _cut_short(job: Job) -> Response:
    """A restart ends the connection without an answer."""
    return BrokenOff(reset=True) if job.abandoned else JSONResponse({"status": "cancelled"})
