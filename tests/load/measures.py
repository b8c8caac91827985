"""The measurements. Each gives a figure and the bound it has to keep, as ratios where it can."""

import asyncio
import gc
import http.client
import json
import os
import resource
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from pydantic import SecretStr

from opscore.agentkit_client import AgentKitClient
from opscore.agentkit_client.messages import task_message
from opscore.api.core import Core, open_core
from opscore.clock import SystemClock
from opscore.ids import new_id
from opscore.models import (
    Claim,
    DispatchMode,
    Policy,
    Registration,
    Retention,
    TaskDefinition,
    WorkflowDefinition,
)
from opscore.settings import Settings
from opscore.storage.memory import MemoryStorage
from opscore.workflow.engine import Engine
from tests.load.asking import ask, register
from tests.load.bare_app import KEY
from tests.load.figures import Figure, at_least, at_most
from tests.load.load_client import Bound, load
from tests.load.reports import CONNECTIONS, reports
from tests.load.servers import bare_fastapi, opscore, stub_agentkit

ROUNDS = 5
SECONDS = 3.0


# --- state reports -----------------------------------------------------------------------------


def state_reports() -> list[Figure]:
    """The whole route against a bare one, by turns in one run."""

    with opscore() as (port, _, _), bare_fastapi() as bare:
        for number in range(CONNECTIONS):
            register(port, f"agent-{number}")
        ours, theirs = [], []
        for turn in range(ROUNDS + 1):
            mine = load([port], reports(), CONNECTIONS, Bound(SECONDS))
            other = load([bare], reports(), CONNECTIONS, Bound(SECONDS))
            if mine.failed or other.failed:
                raise RuntimeError(f"requests failed: {mine.failed} and {other.failed}")
            if turn:
                ours.append(mine.rate)
                theirs.append(other.rate)
    ratio = median(mine / other for mine, other in zip(ours, theirs, strict=True))
    note = f"{median(ours):,.0f} against {median(theirs):,.0f} a second"
    return [at_least("State reports against a bare FastAPI endpoint", ratio, 1.0, note=note)]


# --- dispatching -------------------------------------------------------------------------------


def trigger_latency(count: int = 600) -> list[Figure]:
    """From the sending of a trigger to the arrival of its task at AgentKit, one at a time."""
    with stub_agentkit() as stub:
        settings = {
            "AGENTKIT_API_URL": f"http://127.0.0.1:{stub}",
            "OPSCORE_DISPATCH_MODE": "agentkit",
        }
        with opscore(**settings) as (port, _, _):
            register(port, "a", concurrency=1000)
            body = {"workflowDefinition": {"id": "w", "tasks": [{"taskId": "one"}]}}
            sent: dict[str, float] = {}
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
            for _ in range(count):
                before = time.monotonic()
                connection.request(
                    "POST", "/v1/opscore/agent/a/workflow", json.dumps(body), headers
                )
                sent[json.loads(connection.getresponse().read())["sessionId"]] = before
                time.sleep(0.002)
            arrivals = _arrivals(stub, len(sent))
    waits = sorted((arrivals[session] - before) * 1000 for session, before in sent.items())
    return [
        at_most("Trigger to AgentKit, p50", waits[len(waits) // 2], 5, "ms"),
        at_most("Trigger to AgentKit, p99", waits[int(len(waits) * 0.99)], 20, "ms"),
    ]


def _arrivals(stub: int, wanted: int) -> dict[str, float]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        arrivals: dict[str, float] = ask(stub, "GET", "/")
        if len(arrivals) >= wanted:
            return arrivals
        time.sleep(0.05)
    raise RuntimeError("not every task arrived")


def dispatch_rate(count: int = 3000, rounds: int = 3) -> list[Figure]:
    """Claim, send, decide and store, against a bare httpx loop that posts the same message."""

    async def measure() -> list[float]:
        return [await _dispatched(stub, count) / await _posted(stub, count) for _ in range(rounds)]

    with stub_agentkit() as stub:
        ratio = median(asyncio.run(measure()))
    return [at_least("Dispatch rate against a bare httpx loop", ratio, 0.8)]


async def _dispatched(stub: int, count: int) -> float:
    core = await _core(stub)
    await _fill(core.engine, "a", count)
    done = asyncio.Event()
    accepted = 0

    def listen(change: Any) -> None:
        nonlocal accepted
        accepted += sum(event.type == "task.accepted" for event in change.events)
        if accepted >= count:
            done.set()

    core.engine.subscribe(listen)
    started = time.perf_counter()
    await core.start()
    await asyncio.wait_for(done.wait(), 60)
    seconds = time.perf_counter() - started
    await core.stop()
    assert isinstance(core.courier, AgentKitClient)
    await core.courier.close()
    return count / seconds


async def _posted(stub: int, count: int) -> float:
    core = await _core(stub)
    await _fill(core.engine, "a", 1)
    claim = (await core.storage.claim("o", core.clock.now(), core.clock.now(), 1))[0]
    message = task_message(claim)
    left = iter(range(count))
    limits = httpx.Limits(max_connections=CONNECTIONS)

    async def worker(client: httpx.AsyncClient) -> None:
        for _ in left:
            answer = await client.post(f"http://127.0.0.1:{stub}/v1/agents/a/run", json=message)
            answer.raise_for_status()
            answer.json()

    async with httpx.AsyncClient(limits=limits, trust_env=False) as client:
        started = time.perf_counter()
        await asyncio.gather(*(worker(client) for _ in range(CONNECTIONS)))
        return count / (time.perf_counter() - started)


async def _core(stub: int) -> Core:
    settings = Settings(
        _env_file=None,
        api_key=SecretStr(KEY),
        dispatch_mode=DispatchMode.AGENTKIT,
        dispatch_concurrency=CONNECTIONS,
        agentkit_api_url=f"http://127.0.0.1:{stub}",
    )
    core = await open_core(settings)
    await core.engine.register(Registration("a", "a", concurrency=1_000_000))
    return core


async def _fill(engine: Engine, agent: str, count: int) -> None:
    definition = WorkflowDefinition("w", (TaskDefinition("one", parameters={"topic": "tides"}),))
    for _ in range(count):
        await engine.start_session(new_id(), definition, 1, agent, {})


# --- the queue ---------------------------------------------------------------------------------


def waiting_tasks(many: int = 1_000_000, few: int = 100) -> list[Figure]:
    """A claim beside few and beside very many tasks that wait for a busy agent, and their size."""
    return asyncio.run(_waiting_tasks(many, few))


async def _waiting_tasks(many: int, few: int) -> list[Figure]:
    storage, engine = await _queue()
    await _fill(engine, "busy", few + 1)
    await _claim(storage, 1)
    small = await _claim_cost(storage, engine)
    gc.collect()
    before = _resident()
    await _fill(engine, "busy", many)
    gc.collect()
    size = (_resident() - before) / many
    large = await _claim_cost(storage, engine)
    return [
        at_most(
            f"Claim beside {many:,} waiting tasks against {few}",
            large / small,
            1.5,
            "×",
            f"{large * 1e6:.0f} against {small * 1e6:.0f} µs",
        ),
        at_most("Memory a waiting task, its session and events included", size / 1024, 2, "KiB"),
    ]


async def _queue() -> tuple[MemoryStorage, Engine]:
    storage = MemoryStorage(Retention())
    engine = Engine(storage, SystemClock(), Policy())
    await engine.register(Registration("busy", "busy", concurrency=1))
    await engine.register(Registration("free", "free", concurrency=1_000_000))
    return storage, engine


async def _claim(storage: MemoryStorage, limit: int) -> list[Claim]:
    now = SystemClock().now()
    return list(await storage.claim("bench", now, now + timedelta(seconds=60), limit))


async def _claim_cost(storage: MemoryStorage, engine: Engine, batch: int = 2000) -> float:
    """The median of several batches, each task claimed by itself."""
    costs = []
    for _ in range(5):
        await _fill(engine, "free", batch)
        gc.collect()
        started = time.perf_counter()
        for _ in range(batch):
            if not await _claim(storage, 1):
                raise RuntimeError("a ready task was not claimed")
        costs.append((time.perf_counter() - started) / batch)
    return median(costs)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


# --- at rest -----------------------------------------------------------------------------------


def at_rest(seconds: float = 20.0) -> list[Figure]:
    starts = []
    for _ in range(5):
        with opscore() as (_, _, ready):
            starts.append(ready)
    with opscore() as (_, process, _):
        time.sleep(2)
        before = _cpu_seconds(process.pid)
        time.sleep(seconds)
        used = (_cpu_seconds(process.pid) - before) / seconds * 100
        status = Path(f"/proc/{process.pid}/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) / 1024
    return [
        at_most("Start to ready", median(starts), 1, "s"),
        at_most("CPU of an idle service", used, 0.5, "%"),
        at_most("Memory of an idle service", resident, 100, "MiB"),
    ]


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


MEASURES: dict[str, Callable[[], list[Figure]]] = {
    # First, while the machine is as quiet as it gets.
    "rest": at_rest,
    "state": state_reports,
    "latency": trigger_latency,
    "dispatch": dispatch_rate,
    "queue": waiting_tasks,
}
