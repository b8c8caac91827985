"""The core of the service without its HTTP: real parts, a clock moved by hand, fake couriers."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from opscore.agentkit_client import SendControl
from opscore.ids import task_id
from opscore.lifecycle import Lifecycle, Limits
from opscore.models import (
    Accepted,
    Agent,
    Claim,
    Delivery,
    Event,
    EventFilter,
    EventType,
    Outcome,
    Policy,
    Registration,
    Retention,
    Task,
    TaskDefinition,
    TaskFilter,
    WorkflowDefinition,
    WorkflowSession,
)
from opscore.session_starter import Trigger
from opscore.storage import Storage
from opscore.tracing import Tracer
from opscore.workflow.catalog import Catalog
from opscore.workflow.dispatcher import Courier, Dispatcher
from opscore.workflow.engine import Engine
from opscore.workflow.housekeeper import Housekeeper
from opscore.workflow.orphans import OrphanedTasks
from opscore.workflow.retention import RetentionLoop
from opscore.workflow.timekeeper import Timekeeper
from tests.builders import definition
from tests.fakes import ManualClock, settle


@dataclass
class Call:
    """One message under way, until the test answers it."""

    via: Delivery
    claim: Claim
    seconds: float
    control: SendControl
    answer: "asyncio.Future[Outcome]"

    @property
    def task_id(self) -> str:
        return self.claim.task.id


@dataclass
class Switchboard:
    """A courier whose messages the test answers one by one, or all at once with `always`.

    Each is sent at once, except to agents for which `connects` is false.
    """

    always: Outcome | Callable[[Call], Outcome] | None = None
    connects: Callable[[Agent], bool] = lambda _: True
    calls: list[Call] = field(default_factory=list)
    cancelled: list[tuple[str, str, Delivery]] = field(default_factory=list)

    async def run(self, claim: Claim, seconds: float, control: SendControl, /) -> Outcome:
        return await self._take(Delivery.AGENTKIT, claim, seconds, control)

    async def deliver(self, claim: Claim, seconds: float, control: SendControl, /) -> Outcome:
        return await self._take(Delivery.DIRECT, claim, seconds, control)

    async def cancel(self, task: Task, agent: Agent, via: Delivery, /) -> None:
        self.cancelled.append((task.id, agent.id, via))

    @property
    def open(self) -> list[Call]:
        return [call for call in self.calls if not call.answer.done()]

    @property
    def routes(self) -> list[Delivery]:
        return [call.via for call in self.calls]

    async def answer(self, outcome: Outcome | None = None, count: int | None = None) -> None:
        """Answer the oldest open calls, all of them unless told how many."""
        for call in self.open[:count]:
            call.answer.set_result(outcome or Accepted())
        await settle(50)

    async def _take(
        self, via: Delivery, claim: Claim, seconds: float, control: SendControl
    ) -> Outcome:
        call = Call(via, claim, seconds, control, asyncio.get_running_loop().create_future())
        self.calls.append(call)
        if self.connects(claim.agent):
            control.mark_sent()
        if self.always is not None:
            await asyncio.sleep(0)
            call.answer.set_result(self.always(call) if callable(self.always) else self.always)
        return await call.answer


class House:
    def __init__(
        self,
        storage: Storage,
        courier: Courier,
        policy: Policy | None = None,
        *,
        concurrency: int = 10,
        awaited_answers: int = 5000,
        retention: Retention | None = None,
        limits: Limits | None = None,
        owner: str = "d1",
    ) -> None:
        self.clock = ManualClock()
        self.storage = storage
        self.engine = Engine(self.storage, self.clock, policy or Policy())
        self.catalog = Catalog(self.engine)
        self.lifecycle = Lifecycle(self.engine, self.catalog, limits or Limits())
        self.tracer = Tracer(self.clock)
        self.dispatcher = Dispatcher(
            self.engine,
            courier,
            self.tracer,
            owner,
            concurrency,
            agentkit_timeout=30,
            awaited_answers=awaited_answers,
        )
        self.timekeeper = Timekeeper(self.engine)
        self.orphans = OrphanedTasks(self.engine)
        self.housekeeper = Housekeeper(self.engine, tick=0.001)
        self.retention = RetentionLoop(self.engine, retention or Retention(), owner)
        self._running: list[asyncio.Task[None]] = []

    # --- running --------------------------------------------------------------------------

    async def start(self) -> None:
        self.spawn(self.dispatcher.run())
        self.spawn(self.dispatcher.keep_leases())
        self.spawn(self.timekeeper.run())
        self.spawn(self.orphans.run())
        await settle(50)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        task = asyncio.create_task(work)
        self._running.append(task)
        return task

    async def close(self) -> None:
        """Nothing that ran may have died of itself."""
        await self.dispatcher.stop(0)
        ended = [task for task in self._running if task.done() and not task.cancelled()]
        died = [error for task in ended if (error := task.exception()) is not None]
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        assert died == []

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """In steps: what was begun before happens before, what falls due on the way on the way."""
        await settle(50)
        while seconds > 0:
            self.clock.advance(min(step, seconds))
            seconds -= step
            await settle(50)

    async def eventually(self, true: Callable[[], bool], seconds: float = 30) -> None:
        """For the few waits that are real time, whatever the clock says."""
        async with asyncio.timeout(seconds):
            while not true():  # noqa: ASYNC110 - what it waits for sets no event
                await asyncio.sleep(0.001)

    # --- acting ---------------------------------------------------------------------------

    async def register(self, agent_id: str = "a1", **changes: Any) -> None:
        values: dict[str, Any] = {
            "name": agent_id,
            "capabilities": ("research",),
            "contact_endpoint": f"http://127.0.0.1:9000/{agent_id}",
        }
        await self.lifecycle.register_agent(Registration(agent_id, **values | changes))

    async def trigger(
        self, *steps: TaskDefinition, agent_id: str = "a1", key: str | None = None, **changes: Any
    ) -> WorkflowSession:
        """Start a workflow of these steps, or of one."""
        wanted: WorkflowDefinition = definition(*steps, **changes)
        started = await self.lifecycle.start_session(Trigger(agent_id, {}, definition=wanted), key)
        session = await self.session(started.id)
        await settle(50)
        return session

    async def prune(self) -> None:
        """Prune until nothing is left to prune; the pauses in between pass."""
        pruning = self.spawn(self.retention.prune())
        await settle(50)
        while not pruning.done():
            await self.pass_time(1)

    # --- looking --------------------------------------------------------------------------

    async def session(self, session_id: str) -> WorkflowSession:
        return await self.lifecycle.get_session(session_id)

    async def tasks(self, session_id: str | None = None) -> list[Task]:
        """Oldest first."""
        page = await self.storage.tasks(TaskFilter(session_id=session_id), None, 100_000)
        return list(reversed(page.items))

    async def task(self, session_id: str | None = None, step_id: str = "one") -> Task:
        """The task of a session's step; without a session there must be only one task."""
        if session_id is not None:
            return await self.lifecycle.get_task(task_id(session_id, step_id))
        (only,) = await self.tasks()
        return only

    async def events(self, type_: EventType | None = None) -> list[Event]:
        where = EventFilter(frozenset({type_}) if type_ else frozenset())
        return list((await self.storage.events(where, 0, 1_000_000)).items)
