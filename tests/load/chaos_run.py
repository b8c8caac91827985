"""One chaos run: everything is started, beaten for a while, left to settle and looked at."""

import asyncio
import contextlib
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from opscore.local_postgres import LocalPostgres
from tests.acceptance.processes import reserved_port
from tests.load.chaos_agents import Agents
from tests.load.chaos_checker import ENDED
from tests.load.chaos_load import API, Load
from tests.load.chaos_plan import STEADY, Blow, Kind, Tempo, plan
from tests.load.chaos_processes import NeverReadyError, Process, agentkit, replica, until_ready
from tests.load.chaos_record import Post, Record, post_of

_OPEN = ("pending", "running", "waiting")
_PAGE = 200
_TELL_EVERY = 5.0
_STARTS_WITHIN = 6.0


@dataclass(frozen=True, slots=True)
class Options:
    storage: str
    seed: int
    seconds: float
    replicas: int
    folder: Path
    agents: int = 8
    mode: str = "agentkit"
    rate: float = 5.0
    fault_rate: float = 0.2
    settle: float = 180.0
    tempo: Tempo = STEADY


@dataclass
class Figures:
    """What happened, in numbers."""

    blows: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    settled_after: float = 0.0


class ChaosRun:
    def __init__(self, options: Options) -> None:
        self.options = options
        self.figures = Figures()
        # Whoever is killed finds its port free again.
        self._reserved = contextlib.ExitStack()
        kit_port, *ports = [
            self._reserved.enter_context(reserved_port()) for _ in range(1 + options.replicas)
        ]
        self._urls = [f"http://127.0.0.1:{port}" for port in ports]
        self._kit_url = f"http://127.0.0.1:{kit_port}"
        self._ports = ports
        self._kit = agentkit(
            kit_port,
            f"{self._urls[0]}/v1/opscore/internal/agent/notify",
            options.fault_rate,
            options.seed,
            options.folder,
        )
        self._database: LocalPostgres | None = None
        self._replicas: list[Process] = []
        self._agents = Agents(options.seed, options.agents, self._urls, self._kit_url)
        self._load = Load(options.seed, self._urls, options.rate)
        self._deaths: list[str] = []
        self._posts: list[Post] = []
        self._posts_seen = 0

    async def run(self) -> Record:
        async with self._everything():
            await self._load.save_workflows()
            await self._until_agents_are_known()
            async with self._telling():
                await self._chaos()
                await self._settle()
            return await self._collect()

    # --- what takes part ------------------------------------------------------------------

    @asynccontextmanager
    async def _everything(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.enter_context(self._reserved)
            storage = self._storage(stack)
            self._replicas = [
                replica(
                    number, port, storage, self.options.mode, self._kit_url, self.options.folder
                )
                for number, port in enumerate(self._ports)
            ]
            for process in (self._kit, *self._replicas):
                stack.callback(process.end)
                process.start()
            await until_ready(self._kit_url, self._kit, "/health")
            for url, process in zip(self._urls, self._replicas, strict=True):
                await until_ready(url, process)
            stack.push_async_callback(self._load.aclose)
            await stack.enter_async_context(self._agents.at_work())
            yield

    def _storage(self, stack: AsyncExitStack) -> str:
        if self.options.storage == "sqlite":
            return f"sqlite:///{self.options.folder}/chaos.db"
        self._database = stack.enter_context(LocalPostgres())
        return self._database.url

    async def _until_agents_are_known(self) -> None:
        async def all_are() -> bool:
            return len(await self._pages("agents")) == self.options.agents

        async with asyncio.timeout(30):
            await _eventually(all_are)

    # --- the blows ------------------------------------------------------------------------

    async def _chaos(self) -> None:
        options = self.options
        with_database = self._database is not None
        all_series = plan(
            options.seed, options.seconds, options.replicas, with_database, options.tempo
        )
        loading = asyncio.create_task(self._load.run(self._agents.ids), name="load")
        end = time.monotonic() + options.seconds
        async with asyncio.TaskGroup() as striking:
            for series in all_series:
                striking.create_task(self._strike_until(end, series))
        self._check(loading)
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading

    async def _strike_until(self, end: float, series: Sequence[Blow]) -> None:
        for blow in series:
            remaining = end - time.monotonic()
            await asyncio.sleep(max(0, min(blow.after, remaining)))
            if blow.after >= remaining:
                return
            self.figures.blows[blow.kind] += 1
            await self._strike(blow)

    def _check(self, loading: asyncio.Task[None]) -> None:
        """The run is worth nothing without its load or its AgentKit."""
        if loading.done():
            loading.result()
        if not self._kit.is_running:
            raise RuntimeError(f"The simulated AgentKit ended.\n{self._kit.story()}")

    async def _strike(self, blow: Blow) -> None:
        process = self._replicas[blow.replica]
        match blow.kind:
            case Kind.KILL:
                self._note_death(process)
                process.kill()
                process.start()
                if not blow.eager:
                    await self._until_serving(blow.replica)
            case Kind.STOP:
                struck = process.popen
                struck.send_signal(signal.SIGSTOP)
                await asyncio.sleep(blow.lasts)
                # Nothing, if it was killed meanwhile.
                struck.send_signal(signal.SIGCONT)
            case Kind.DATABASE:
                await self._strike_database(blow.lasts)

    async def _until_serving(self, number: int) -> None:
        """A replica killed in each of its starts would be no load on anything.

        Whoever is stopped or without a database meanwhile is not waited for.
        """
        with contextlib.suppress(NeverReadyError):
            await until_ready(self._urls[number], self._replicas[number], within=_STARTS_WITHIN)

    def _note_death(self, process: Process) -> None:
        status = process.popen.poll()
        if status is not None:
            self._deaths.append(f"{process.name}, status {status}\n{process.story()}\n")

    async def _strike_database(self, down: float) -> None:
        assert self._database is not None
        await asyncio.to_thread(self._database.kill)
        await asyncio.sleep(down)
        await asyncio.to_thread(self._database.start)

    # --- the end --------------------------------------------------------------------------

    async def _settle(self) -> None:
        """With everything up, all that was begun must come to its end; AgentKit stays as it is."""
        started = time.monotonic()
        for url, process in zip(self._urls, self._replicas, strict=True):
            self._note_death(process)
            if not process.is_running:
                process.start()
            await until_ready(url, process)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.options.settle):
                await self._load.settle()
                await _eventually(self._have_all_ended)
        self.figures.settled_after = time.monotonic() - started

    async def _have_all_ended(self) -> bool:
        for status in _OPEN:
            if (await self._get("sessions", status=status, limit=1))["items"]:
                return False
        # One may have changed from a status still to be looked for to one that had been already.
        return all(session["status"] in ENDED for session in await self._pages("sessions"))

    async def _collect(self) -> Record:
        await self._read_posts()
        self.figures.faults.update(await self._faults())
        return Record(
            sent=self._load.sent,
            acks=self._load.acks,
            cancelled=self._load.cancelled,
            counted=self._agents.counted,
            answers=dict(self._load.answers + self._agents.answers),
            deaths=self._deaths,
            posts=self._posts,
            received=self._agents.received,
            worked=self._agents.worked,
            nameless=self._agents.nameless,
            sessions=await self._pages("sessions"),
            tasks=await self._pages("tasks"),
            events=await self._pages("events"),
        )

    async def _faults(self) -> dict[str, int]:
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            faults: dict[str, int] = (await http.get(f"{self._kit_url}/health")).json()["faults"]
        return faults

    async def _pages(self, what: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        cursor: Any = None
        while True:
            query = {"limit": _PAGE} if cursor is None else {"limit": _PAGE, "cursor": cursor}
            page = await self._get(what, **query)
            items += page["items"]
            cursor = page["nextCursor"]
            # The event log goes on for ever: its cursor is given even where it ends.
            if not page["items"] or cursor is None:
                return items

    async def _get(self, what: str, **query: Any) -> Any:
        answer = await self._load.http.get(f"{API}/{what}", params=query)
        answer.raise_for_status()
        return answer.json()

    # --- on the way -----------------------------------------------------------------------

    @asynccontextmanager
    async def _telling(self) -> AsyncIterator[None]:
        telling = asyncio.create_task(self._tell(), name="progress")
        try:
            yield
        finally:
            telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await telling

    async def _tell(self) -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(_TELL_EVERY)
            await self._read_posts()
            blows = ", ".join(f"{kind} {count}" for kind, count in self.figures.blows.items())
            print(
                f"{time.monotonic() - started:5.0f} s: {len(self._load.sent)} triggers sent, "
                f"{len(self._load.acks)} acked, {len(self._posts)} posts, {blows}",
                file=sys.stderr,
                flush=True,
            )

    async def _read_posts(self) -> None:
        """The simulators keep the newest only, so they are read while they come."""
        self._agents.read_received()
        async with httpx.AsyncClient(trust_env=False, verify=False, timeout=30) as http:
            page = await http.get(
                f"{self._kit_url}/simulator/received", params={"after": self._posts_seen}
            )
        self._posts += _posts(page.json()["items"])
        self._posts_seen = page.json()["next"]


def _posts(items: Sequence[dict[str, Any]]) -> list[Post]:
    return [post_of(item["agentId"], item["body"]) for item in items if "/run" in item["path"]]


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    while True:
        if await condition():
            return
        await asyncio.sleep(0.2)
