"""PostgreSQL that fails: killed, cut off, read-only, locked, crowded; nothing acked is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from opscore.exceptions import StorageError, VersionConflictError
from opscore.local_postgres import LocalPostgres
from opscore.models import Change, Event, EventFilter, EventType, Retention
from opscore.storage import Storage, open_storage
from tests import builders
from tests.acceptance.processes import eventually, service
from tests.acceptance.wire import Wire
from tests.builders import at
from tests.contract.shelf import LEASE, bump, claim, one_run, put, queue, stored
from tests.databases import require_postgres

pytestmark = pytest.mark.acceptance

API = "/v1/opscore"
STEPS = {"workflowDefinition": {"id": "w", "tasks": [{"taskId": "one"}]}}


@pytest.fixture(scope="module")
def server() -> Iterator[LocalPostgres]:
    require_postgres()
    with LocalPostgres(fsync=False) as running:
        yield running


@pytest.fixture
async def database(server: LocalPostgres, request: pytest.FixtureRequest) -> str:
    name = f"of_{abs(hash(request.node.name)):x}"
    keeper = await asyncpg.connect(server.url)
    await keeper.execute(f"CREATE DATABASE {name}")
    await keeper.close()
    return server.url_of(name)


@pytest.fixture
async def storage(database: str) -> AsyncIterator[Storage]:
    storage = await open_storage(database, Retention(), connections=3)
    yield storage
    await storage.close()


@asynccontextmanager
async def rival(database: str) -> AsyncIterator[Any]:
    """A connection of somebody else."""
    connection = await asyncpg.connect(database)
    try:
        yield connection
    finally:
        await connection.close()


# --- the whole service ------------------------------------------------------------------------


@asynccontextmanager
async def serving(folder: Path, database: str, **more: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = {
        "OPSCORE_STORAGE_URL": database,
        "OPSCORE_DISPATCH_MODE": "agentkit",
        "AGENTKIT_API_URL": "http://127.0.0.1:9",
        **more,
    }
    with service(folder, settings) as running:
        async with running.client() as http:
            agent = {"agentId": "a1", "agentName": "one", "capabilities": ["x"]}
            assert (await http.post(f"{API}/agents", json=agent)).status_code == 201
            yield http


async def report(http: httpx.AsyncClient, state: str = "idle") -> httpx.Response:
    return await http.post(f"{API}/agent/a1/state", json={"agentId": "a1", "state": state})


async def check_unavailable(http: httpx.AsyncClient, within: float) -> None:
    """Reads and writes are refused soon and politely, and the process says that it lives."""
    started = time.monotonic()
    answers = await asyncio.gather(
        report(http),
        http.post(f"{API}/agent/a1/workflow", json=STEPS),
        http.get(f"{API}/agent/a1"),
        http.get("/health/ready"),
    )
    assert time.monotonic() - started < within
    assert {answer.status_code for answer in answers} == {503}
    assert all("retry-after" in answer.headers for answer in answers[:3])
    assert {answer.json()["code"] for answer in answers[:3]} == {"storage_unavailable"}
    assert (await http.get("/health/live")).status_code == 200


async def test_F64_a_killed_database_costs_503_and_then_all_goes_on(tmp_path: Path) -> None:
    require_postgres()
    with LocalPostgres() as own:
        async with serving(tmp_path, own.url) as http:
            started = await http.post(f"{API}/agent/a1/workflow", json=STEPS)
            assert started.status_code == 202
            own.kill()
            await check_unavailable(http, within=5)
            own.start()
            back = time.monotonic()
            await eventually(lambda: report(http), lambda answer: answer.status_code == 202, 5)
            ready = await eventually(
                lambda: http.get("/health/ready"), lambda answer: answer.status_code == 200, 5
            )
            assert time.monotonic() - back < 5
            assert ready.json()["sessions"] == 1
            session = await http.get(f"{API}/session/{started.json()['sessionId']}")
            assert session.status_code == 200


async def test_F66_a_server_that_turns_read_only_is_left(tmp_path: Path) -> None:
    require_postgres()
    with LocalPostgres(fsync=False) as own:
        async with serving(tmp_path, own.url) as http, rival(own.url) as keeper:
            await keeper.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            await keeper.execute("SELECT pg_reload_conf()")
            answer = await eventually(
                lambda: report(http), lambda answer: answer.status_code == 503
            )
            assert answer.json()["code"] == "storage_unavailable"
            await keeper.execute("SET transaction_read_only = off")
            await keeper.execute("SET default_transaction_read_only = off")
            await keeper.execute("ALTER SYSTEM RESET default_transaction_read_only")
            await keeper.execute("SELECT pg_reload_conf()")
            await eventually(lambda: report(http), lambda answer: answer.status_code == 202, 10)


async def test_F67_who_waits_for_a_lock_is_told_so(tmp_path: Path, database: str) -> None:
    async with serving(tmp_path, database) as http, rival(database) as other:
        await other.execute("BEGIN; LOCK TABLE agents")
        started = time.monotonic()
        refused = await report(http)
        assert refused.status_code == 503
        assert "retry-after" in refused.headers
        assert time.monotonic() - started < 6
        await other.execute("ROLLBACK")
        assert (await report(http)).status_code == 202


async def test_F68_without_a_connection_there_is_503_soon(tmp_path: Path) -> None:
    require_postgres()
    options = {"max_connections": "12", "superuser_reserved_connections": "0"}
    with LocalPostgres(fsync=False, options=options) as own:
        async with serving(tmp_path, own.url, OPSCORE_STORAGE_CONNECTIONS=4) as http:
            held = await crowd(own.url)
            async with rival_of(held) as keeper:
                await keeper.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'opscore'"
                )
                held += await crowd(own.url)
                await check_unavailable(http, within=5)
            for connection in held:
                await connection.close()
            await eventually(lambda: report(http), lambda answer: answer.status_code == 202, 5)


async def crowd(url: str) -> list[Any]:
    """All the connections that the server still has."""
    held = []
    with suppress(asyncpg.TooManyConnectionsError):
        while True:
            held.append(await asyncpg.connect(url))
    return held


@asynccontextmanager
async def rival_of(held: list[Any]) -> AsyncIterator[Any]:
    yield held[0]


# --- the store alone --------------------------------------------------------------------------


async def test_F67_leases_are_renewed_though_all_connections_wait(
    storage: Storage, database: str
) -> None:
    await put(storage, builders.agent())
    (task,) = await queue(storage, [1])
    await claim(storage, owner="me")
    async with rival(database) as other:
        await other.execute("BEGIN; LOCK TABLE agents")
        waiting = [asyncio.create_task(storage.agent("a1")) for _ in range(6)]
        later = at(LEASE) + timedelta(seconds=60)
        assert await storage.renew("me", (task.id,), later) == frozenset({task.id})
        await other.execute("ROLLBACK")
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert any(isinstance(one, StorageError) or one for one in found)


async def test_F69_a_deadlock_is_retried_unseen(storage: Storage, database: str) -> None:
    agents = [builders.agent("a"), builders.agent("b")]
    await put(storage, *agents)
    async with rival(database) as other:
        # It waits longer than the store before it looks for a deadlock, so the store is broken.
        await other.execute("SET deadlock_timeout = '30s'")
        await other.execute("BEGIN")
        await other.execute("SELECT 1 FROM agents WHERE id = 'b' FOR UPDATE")
        change = asyncio.create_task(put(storage, *(bump(one, name="new") for one in agents)))
        await waiting_for_a_lock(database)
        await other.execute("UPDATE agents SET last_used = 1 WHERE id = 'a'")
        await other.execute("COMMIT")
        await change
    found = await storage.agent("b")
    assert found is not None
    assert found.agent.name == "new"


async def waiting_for_a_lock(database: str) -> None:
    async with rival(database) as watcher:
        await eventually(
            lambda: watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), bool
        )


@pytest.fixture
async def wire(database: str, tmp_path: Path) -> AsyncIterator[Wire]:
    place = parse_qs(urlsplit(database).query)["host"][0]
    async with Wire(Path(place), tmp_path) as wire:
        yield wire


@pytest.fixture
async def wired(database: str, wire: Wire) -> AsyncIterator[Storage]:
    name = urlsplit(database).path
    url = f"postgresql://opscore@{name}?host={wire.folder}&port=5432"
    storage = await open_storage(url, Retention(), connections=3)
    yield storage
    await storage.close()


def a_change(name: str) -> Change:
    return Change(agents=(builders.agent(name),), events=(Event(EventType.TASK_LATE, at(1)),))


async def test_F65_a_commit_whose_answer_is_lost_took_place_once(
    wired: Storage, storage: Storage, wire: Wire
) -> None:
    wire.after = True
    change = asyncio.create_task(wired.apply(a_change("a")))
    await eventually(lambda: storage.agent("a"), bool)
    wire.mend()
    await change
    assert len((await storage.events(EventFilter(), 0, 10)).items) == 1
    with pytest.raises(VersionConflictError):
        await wired.apply(a_change("a"))


async def test_F65_a_commit_that_never_arrived_did_not_take_place(
    wired: Storage, storage: Storage, wire: Wire
) -> None:
    wire.before = True
    change = asyncio.create_task(wired.apply(a_change("a")))
    with pytest.raises(StorageError):
        await change
    assert await storage.agent("a") is None
    wire.mend()
    await wired.apply(a_change("a"))
    assert len((await storage.events(EventFilter(), 0, 10)).items) == 1


async def test_F10_a_stale_owner_writes_nothing(storage: Storage) -> None:
    await put(storage, builders.agent())
    session, task = one_run(1)
    await put(storage, session, task)
    (old,) = await claim(storage, owner="slept")
    await put(storage, replace(bump(old.task), owner="woke"))
    with pytest.raises(VersionConflictError):
        await put(storage, bump(old.task, progress="late"))
    assert (await stored(storage, task)).owner == "woke"
