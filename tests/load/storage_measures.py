"""What the durable storages cost, against the one in memory, in one run."""

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from functools import partial
from statistics import median
from typing import Any, TypeVar

from opscore.clock import SystemClock
from opscore.ids import new_id
from opscore.local_postgres import LocalPostgres
from opscore.models import (
    Policy,
    Registration,
    Retention,
    StateReport,
    TaskDefinition,
    WorkflowDefinition,
)
from opscore.storage import Storage, open_storage
from opscore.storage.sql.rows import EVENT_COLUMNS, TASK_COLUMNS
from opscore.workflow.engine import Engine
from tests.load.asking import ask as ask_service
from tests.load.asking import register
from tests.load.figures import Figure, at_least, at_most
from tests.load.load_client import Bound, load
from tests.load.reports import CONNECTIONS, reports
from tests.load.servers import free_port, opscore, stub_agentkit, stub_agents
from tests.load.stores import DURABLE, ask, empty_url, server
from tests.load.workflows import workflows_per_second

T = TypeVar("T")

ROUNDS = 3
SECONDS = 3.0
SESSIONS = 1500
REPORTS_KEPT = {"sqlite": 0.8, "postgres": 0.6}
WORKFLOWS_KEPT = {"sqlite": 0.7, "postgres": 0.5}
MANY = 1_000_000
FEW = 100


# --- against memory ---------------------------------------------------------------------------


def state_reports() -> list[Figure]:
    """The whole route on each storage, by turns."""
    with server() as postgres:
        rates: dict[str, list[float]] = {kind: [] for kind in ("memory", *DURABLE)}
        for _ in range(ROUNDS):
            for kind, found in rates.items():
                found.append(_report_rate(kind, postgres))
    return [
        _against_memory("State reports", kind, rates, REPORTS_KEPT[kind], "a second")
        for kind in DURABLE
    ]


def _report_rate(kind: str, postgres: LocalPostgres) -> float:
    with (
        empty_url(kind, postgres) as url,
        opscore(OPSCORE_STORAGE_URL=url) as (port, _, _),
    ):
        for number in range(CONNECTIONS):
            register(port, f"agent-{number}")
        load([port], reports(), CONNECTIONS, Bound(1.0))
        tally = load([port], reports(), CONNECTIONS, Bound(SECONDS))
    if tally.failed:
        raise RuntimeError(f"{tally.failed} reports failed on {kind}")
    return tally.rate


def workflows() -> list[Figure]:
    """Three-step workflows on each storage, by turns, and on two replicas."""
    with server() as postgres:
        rates: dict[str, list[float]] = {kind: [] for kind in ("memory", *DURABLE)}
        for _ in range(ROUNDS):
            for kind, found in rates.items():
                with empty_url(kind, postgres) as url:
                    found.append(workflows_per_second(url, SESSIONS))
    return [
        _against_memory("Three-step workflows", kind, rates, WORKFLOWS_KEPT[kind], "a second")
        for kind in DURABLE
    ]


def _against_memory(
    what: str, kind: str, rates: dict[str, list[float]], bound: float, unit: str
) -> Figure:
    pairs = zip(rates[kind], rates["memory"], strict=True)
    ratio = median(mine / memory for mine, memory in pairs)
    note = f"{median(rates[kind]):,.0f} against {median(rates['memory']):,.0f} {unit}"
    return at_least(f"{what} on {kind} against memory", ratio, bound, note=note)


def two_replicas(wait: float = 0.1, at_once: int = 10) -> list[Figure]:
    """Two replicas against one, each with so many messages under way to an AgentKit that takes
    its time; and both with an AgentKit that answers at once, where the machine is the limit."""

    def rate(replicas: int, wait: float, sessions: int, **settings: str) -> float:
        with empty_url("postgres", postgres) as url:
            return workflows_per_second(url, sessions, replicas, wait=wait, **settings)

    with server() as postgres:
        few = {"OPSCORE_DISPATCH_CONCURRENCY": str(at_once)}
        slow = {n: median(rate(n, wait, 300, **few) for _ in range(ROUNDS)) for n in (1, 2)}
        quick = {n: median(rate(n, 0, SESSIONS) for _ in range(ROUNDS)) for n in (1, 2)}
    return [
        at_least(
            f"Two replicas against one, {at_once} messages of {wait:g} s at once each",
            slow[2] / slow[1],
            1.0,
            note=f"{slow[2]:,.0f} against {slow[1]:,.0f} workflows a second",
        ),
        at_least(
            f"Two replicas against one, all on {os.cpu_count()} cores",
            quick[2] / quick[1],
            1.0,
            note=f"{quick[2]:,.0f} against {quick[1]:,.0f} workflows a second",
        ),
    ]


# --- beside very much ---------------------------------------------------------------------------


def crowded() -> list[Figure]:
    """Claims beside a million waiting tasks, and reports beside a million rows of history."""
    figures = []
    with server() as postgres:
        for kind in DURABLE:
            with empty_url(kind, postgres) as url:
                figures += _crowded(kind, url)
    return figures


def _crowded(kind: str, url: str) -> list[Figure]:
    few = asyncio.run(_with_engine(url, partial(_costs, begin=True)))
    _multiply(kind, url)
    many = asyncio.run(_with_engine(url, partial(_costs, begin=False)))
    return [
        at_most(
            f"{what} on {kind} beside {MANY:,} {beside} against few",
            many[place] / few[place],
            2,
            "×",
            f"{many[place] * 1e6:,.0f} against {few[place] * 1e6:,.0f} µs",
        )
        for place, (what, beside) in enumerate(
            (("A claim", "waiting tasks"), ("A state report", "rows of history"))
        )
    ]


async def _with_engine(url: str, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
    storage = await open_storage(url, Retention(events=10 * MANY))
    try:
        return await work(Engine(storage, SystemClock(), Policy()))
    finally:
        await storage.close()


async def _costs(engine: Engine, begin: bool) -> tuple[float, float]:
    if begin:
        await engine.register(Registration("busy", "busy", concurrency=1))
        await engine.register(Registration("free", "free", concurrency=1_000_000))
        await _fill(engine, "busy", FEW + 1)
        await _claim(engine.storage, 1)
    return await _claim_cost(engine), await _report_cost(engine)


async def _fill(engine: Engine, agent: str, tasks: int) -> None:
    definition = WorkflowDefinition("w", (TaskDefinition("one", parameters={"topic": "tides"}),))
    await asyncio.gather(
        *(engine.start_session(new_id(), definition, 1, agent, {}) for _ in range(tasks))
    )


async def _claim(storage: Storage, limit: int) -> int:
    now = SystemClock().now()
    return len(await storage.claim("bench", now, now + timedelta(seconds=600), limit))


async def _claim_cost(engine: Engine, batch: int = 200) -> float:
    """The median of several batches, each task claimed by itself."""
    costs = []
    for _ in range(5):
        await _fill(engine, "free", batch)
        started = time.perf_counter()
        for _ in range(batch):
            if await _claim(engine.storage, 1) != 1:
                raise RuntimeError("a ready task was not claimed")
        costs.append((time.perf_counter() - started) / batch)
    return median(costs)


async def _report_cost(engine: Engine, batch: int = 300) -> float:
    costs = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(batch):
            await engine.agent_reported(StateReport("busy", "active", {"note": "bench"}))
        costs.append((time.perf_counter() - started) / batch)
    return median(costs)


# Copies of what is there, under other names: making a million by triggers would take an hour.
_COPIES = f"""
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})
INSERT INTO {{table}} ({{columns}}) SELECT {{values}}
FROM n CROSS JOIN (SELECT * FROM {{table}} WHERE {{one}} LIMIT 1) AS one
"""
_TASK = {
    "id": "one.id || '-' || i",
    "turn": "one.turn + 1000 + i",
    "arrival": "one.arrival + i",
}
_EVENT = {"seq": "2000000 + i", "agent_id": "'busy'"}


def _copy(table: str, columns: Sequence[str], changed: dict[str, str], one: str) -> str:
    values = ", ".join(changed.get(name, f"one.{name}") for name in columns)
    return _COPIES.format(table=table, columns=", ".join(columns), values=values, one=one)


def _multiply(kind: str, url: str) -> None:
    statements = (
        _copy("tasks", TASK_COLUMNS, _TASK, "status = 'queued'"),
        _copy("events", EVENT_COLUMNS, _EVENT, "type = 'agent.state'"),
        f"UPDATE tallies SET value = value + {MANY} WHERE name IN ('tasks.queued', 'events')",
        f"UPDATE counters SET value = {3 * MANY + 2_000_000} WHERE name = 'events'",
        "ANALYZE",
    )
    if kind == "postgres":
        ask(url, ";\n".join(statements))
        return
    database = sqlite3.connect(url.removeprefix("sqlite:///"))
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


# --- coming back --------------------------------------------------------------------------------


def recovery() -> list[Figure]:
    """From the end of a replica, or of the database, until the work goes on."""
    with server() as postgres:
        with empty_url("sqlite", postgres) as url:
            alone = _taken_over(url, replicas=1)
        with empty_url("postgres", postgres) as url:
            elsewhere = _taken_over(url, replicas=2)
        with empty_url("postgres", postgres) as url:
            back = _after_the_database(url, postgres)
    return [
        at_most(
            "A dead replica's task is sent again, alone, from the start of the process",
            alone,
            5,
            "s",
        ),
        at_most("A dead replica's task is sent again by another one", elsewhere, 20, "s"),
        at_most("Full service after PostgreSQL is back", back, 5, "s"),
    ]


def _taken_over(url: str, replicas: int) -> float:
    """Kill the replica whose message is under way, to an AgentKit that answers only the next."""
    with stub_agentkit("--hold-first") as kit:
        settings = {
            "AGENTKIT_API_URL": f"http://127.0.0.1:{kit}",
            "OPSCORE_DISPATCH_MODE": "agentkit",
            "OPSCORE_STORAGE_URL": url,
        }
        with opscore(**settings) as (port, process, _):
            register(port, "a")
            body = {"workflowDefinition": {"id": "w", "tasks": [{"taskId": "one"}]}}
            ask_service(port, "POST", "/v1/opscore/agent/a/workflow", body)
            _until(lambda: ask_service(kit, "GET", "/")["posts"] == 1)
            if replicas == 1:
                process.send_signal(signal.SIGKILL)
                process.wait()
                begun = time.monotonic()
                with opscore(**settings):
                    return _second_post(kit) - begun
            with opscore(**settings):
                process.send_signal(signal.SIGKILL)
                process.wait()
                begun = time.monotonic()
                return _second_post(kit) - begun


def _second_post(kit: int) -> float:
    """When the task came again."""
    _until(lambda: ask_service(kit, "GET", "/")["posts"] >= 2)
    return time.monotonic()


def _after_the_database(url: str, postgres: LocalPostgres) -> float:
    kit = free_port()
    settings = {
        "AGENTKIT_API_URL": f"http://127.0.0.1:{kit}",
        "OPSCORE_DISPATCH_MODE": "agentkit",
        "OPSCORE_STORAGE_URL": url,
    }
    with opscore(**settings) as (port, _, _), stub_agents(kit, port):
        register(port, "a")
        postgres.kill()
        time.sleep(5)
        postgres.start()
        started = time.monotonic()
        body = {"workflowDefinition": {"id": "w", "tasks": [{"taskId": "one"}]}}
        _until(lambda: _accepts(port, body))
        _until(lambda: ask_service(kit, "GET", "/")["done"] >= 1)
        return time.monotonic() - started


def _accepts(port: int, body: object) -> bool:
    try:
        ask_service(port, "POST", "/v1/opscore/agent/a/workflow", body)
    except RuntimeError:
        return False
    return True


def _until(true: Callable[[], bool], patience: float = 60.0) -> None:
    deadline = time.monotonic() + patience
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError("it did not happen")
        time.sleep(0.02)


MEASURES: dict[str, Callable[[], list[Figure]]] = {
    "stores": state_reports,
    "workflows": workflows,
    "replicas": two_replicas,
    "crowded": crowded,
    "recovery": recovery,
}
