"""The service's parts, put together in one place and handed to the routes."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from opscore import __version__
from opscore.agentkit_client import AgentKitClient
from opscore.api.refused_agents import RefusedAgents
from opscore.api.storage_check import StorageCheck
from opscore.clock import Clock, SystemClock
from opscore.crash_points import crash_point
from opscore.ids import new_id
from opscore.lifecycle import Lifecycle, Limits
from opscore.logging_config import LogPipeline, log_operation
from opscore.models import Replica
from opscore.processes import place_of_processes
from opscore.settings import Settings
from opscore.storage import Storage, open_storage
from opscore.tracing import Tracer, open_exporter
from opscore.workflow.catalog import Catalog
from opscore.workflow.dispatcher import Courier, Dispatcher
from opscore.workflow.engine import Engine
from opscore.workflow.housekeeper import Housekeeper
from opscore.workflow.invariants import Checker
from opscore.workflow.journal import log_events
from opscore.workflow.orphans import OrphanedTasks
from opscore.workflow.replicas import Presence
from opscore.workflow.retention import RetentionLoop
from opscore.workflow.timekeeper import Timekeeper

logger = logging.getLogger(__name__)


@dataclass
class Core:
    settings: Settings
    storage: Storage
    clock: Clock
    courier: Courier
    tracer: Tracer
    log: LogPipeline | None = None
    replica_id: str = field(default_factory=new_id)
    engine: Engine = field(init=False)
    catalog: Catalog = field(init=False)
    lifecycle: Lifecycle = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    timekeeper: Timekeeper = field(init=False)
    orphans: OrphanedTasks = field(init=False)
    housekeeper: Housekeeper = field(init=False)
    retention: RetentionLoop = field(init=False)
    presence: Presence = field(init=False)
    checker: Checker = field(init=False)
    storage_check: StorageCheck = field(init=False)
    refused_agents: RefusedAgents = field(init=False)
    export_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    failure: str | None = None
    _side_tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.settings
        self.engine = Engine(self.storage, self.clock, settings.policy, settings.agentkit_api_url)
        self.engine.subscribe(log_events)
        self.catalog = Catalog(self.engine)
        limits = Limits(settings.queue_limit, settings.queue_bytes, settings.endpoint_policy)
        self.lifecycle = Lifecycle(self.engine, self.catalog, limits)
        self.dispatcher = Dispatcher(
            self.engine,
            self.courier,
            self.tracer,
            owner=self.replica_id,
            concurrency=settings.dispatch_concurrency,
            agentkit_timeout=settings.agentkit_timeout,
            awaited_answers=settings.awaited_answers,
        )
        self.timekeeper = Timekeeper(self.engine)
        self.orphans = OrphanedTasks(self.engine)
        self.housekeeper = Housekeeper(self.engine)
        self.retention = RetentionLoop(self.engine, settings.retention, self.replica_id)
        self.checker = Checker(self.engine, self.replica_id)
        self.storage_check = StorageCheck(self.storage, self.clock)
        self.refused_agents = RefusedAgents(self.clock)
        self.presence = Presence(self.storage, self.clock, self._replica())

    async def start(self) -> None:
        crash_point("start.storage-open")
        await self.presence.join()
        await self.engine.routes.load()
        if self.settings.workflows_dir is not None:
            with log_operation("load_workflow_templates"):
                await self.catalog.load_folder(self.settings.workflows_dir)
            crash_point("start.templates-loaded")
        self._spawn("dispatcher", self.dispatcher.run)
        self._spawn("leases", self.dispatcher.keep_leases)
        self._spawn("timekeeper", self.timekeeper.run)
        self._spawn("route selector", self.engine.routes.run)
        self._spawn("orphaned tasks", self.orphans.run)
        self._spawn("housekeeper", self.housekeeper.run)
        self._spawn("retention", self.retention.run)
        self._spawn("heartbeat", self.presence.run)
        self._spawn("invariant checker", self.checker.run)
        crash_point("start.running")

    async def drain(self) -> None:
        """Take no new work; let running deliveries end, or give them back. Once is enough."""
        if not self.lifecycle.draining:
            self.lifecycle.drain()
            await self.dispatcher.stop(self.settings.drain_timeout)
            crash_point("drain.done")

    async def stop(self) -> None:
        await self.drain()
        for task in self._side_tasks:
            task.cancel()
        await asyncio.gather(*self._side_tasks, return_exceptions=True)
        await self.presence.leave()

    def _replica(self) -> Replica:
        now = self.clock.now()
        host, pid = socket.gethostname(), os.getpid()
        return Replica(self.replica_id, host, pid, __version__, now, now, place_of_processes())

    def dropped_log_lines(self) -> int:
        return self.log.dropped if self.log else 0

    def _spawn(self, name: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(run(), name=name)
        task.add_done_callback(self._side_task_ended)
        self._side_tasks.append(task)

    def _side_task_ended(self, task: asyncio.Task[None]) -> None:
        """A service without its dispatcher or its timers must not look alive."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self.failure = f"The {task.get_name()} died: {type(error).__name__}."
        logger.critical("%s The service stops.", self.failure, exc_info=error)
        os.kill(os.getpid(), signal.SIGTERM)


async def open_core(
    settings: Settings,
    storage: Storage | None = None,
    courier: Courier | None = None,
    clock: Clock | None = None,
    log: LogPipeline | None = None,
) -> Core:
    """The parts as settings want them, except those that are given."""
    clock = clock or SystemClock()
    return Core(
        settings=settings,
        storage=storage
        or await open_storage(
            settings.storage_url, settings.retention, settings.storage_connections
        ),
        clock=clock,
        courier=courier or AgentKitClient.from_settings(settings, clock),
        tracer=Tracer(clock, open_exporter()),
        log=log,
    )
