"""PostgreSQL that fails: killed, cut off, read-only, locked, crowded; nothing acked is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from opscore.exceptions import ConfigurationError, StorageError, VersionConflictError
from opscore.local_postgres import LocalPostgres
from opscore.models import Change, Event, EventFilter, EventType, Retention
from opscore.storage import Storage, driver_of, open_storage
from opscore.storage.sql import SqlStorage
from opscore.storage.sql.program import Execute, Fetch, Program, Row
from tests import builders
from tests.acceptance.processes import eventually, service
from tests.acceptance.wire import COMMIT, Wire
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
            await eventually(lambda: crowd_out(held, own.url), lambda ousted: ousted == 0)
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


async def crowd_out(held: list[Any], url: str) -> int:
    """Take the service's connections as well; how many it had, for it may be quicker."""
    ousted: int = await held[0].fetchval(
        "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
        "WHERE application_name = 'opscore'"
    )
    held += await crowd(url)
    return ousted


# --- the store alone --------------------------------------------------------------------------


async def test_F68_while_all_connections_are_busy_others_are_refused_soon(
    storage: Storage, database: str
) -> None:
    def wait_for_agents() -> Program[None]:
        yield Execute("SET LOCAL lock_timeout = 0")
        yield Fetch("SELECT 1 FROM agents FOR UPDATE")

    assert isinstance(storage, SqlStorage)
    async with rival(database) as other, rival(database) as watcher:
        await other.execute("BEGIN; LOCK TABLE agents")
        busy = asyncio.gather(*(storage._driver.write(wait_for_agents) for _ in range(3)))
        await eventually(
            lambda: watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"),
            lambda waiting: waiting == 3,
        )
        async with asyncio.timeout(3):
            with pytest.raises(StorageError, match="connections to the database are busy"):
                await storage.session("none")
        await other.execute("ROLLBACK")
        await busy
    assert await storage.session("none") is None


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
    async with rival(database) as other, rival(database) as watcher:
        # It waits longer than the store before it looks for a deadlock, so the store is broken.
        await other.execute("SET deadlock_timeout = '30s'")
        await other.execute("BEGIN")
        await other.execute("SELECT 1 FROM agents WHERE id = 'b' FOR UPDATE")
        change = asyncio.create_task(put(storage, *(bump(one, name="new") for one in agents)))
        await eventually(
            lambda: watcher.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"), bool
        )
        await other.execute("UPDATE agents SET last_used = 1 WHERE id = 'a'")
        await other.execute("COMMIT")
        await change
    found = await storage.agent("b")
    assert found is not None
    assert found.agent.name == "new"


async def test_F67_an_agent_that_somebody_holds_keeps_no_other_waiting(
    storage: Storage, database: str
) -> None:
    await put(storage, builders.agent("held"), builders.agent("free"))
    for number, agent_id in enumerate(("held", "free")):
        await put(storage, *one_run(number, wanted_agent=agent_id))
    async with rival(database) as other:
        await other.execute("BEGIN")
        await other.execute("SELECT 1 FROM agents WHERE id = 'held' FOR UPDATE")
        assert [one.agent.id for one in await claim(storage)] == ["free"]
        await other.execute("COMMIT")
    assert [one.agent.id for one in await claim(storage)] == ["held"]


@pytest.fixture
async def wire(database: str, tmp_path: Path) -> AsyncIterator[Wire]:
    place = parse_qs(urlsplit(database).query)["host"][0]
    async with Wire(Path(place), tmp_path) as wire:
        yield wire


@pytest.fixture
def wired_url(database: str, wire: Wire) -> str:
    name = urlsplit(database).path
    return f"postgresql://opscore@{name}?host={wire.folder}&port=5432"


@pytest.fixture
async def wired(wired_url: str) -> AsyncIterator[Storage]:
    storage = await open_storage(wired_url, Retention(), connections=3)
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


# --- silence ------------------------------------------------------------------------------------


async def test_F64_a_silent_host_costs_one_wait_not_one_for_each_connection(
    wired: Storage, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use_every_connection(wired, wire)
    monkeypatch.setattr("opscore.storage.postgres._TRANSACTION_SECONDS", 2)
    wire.fall_silent()
    with pytest.raises(StorageError):
        await wired.apply(a_change("a"))
    async with asyncio.timeout(2):
        await wired.apply(a_change("a"))
        assert await wired.renew("me", ("none",), at(1)) == frozenset()


async def test_F64_leases_do_not_wait_for_a_silent_host_as_long_as_others(
    wired: Storage, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use_every_connection(wired, wire)
    monkeypatch.setattr("opscore.storage.postgres._URGENT_SECONDS", 1)
    wire.fall_silent()
    async with asyncio.timeout(3):
        with pytest.raises(StorageError):
            await wired.renew("me", ("none",), at(1))
        assert await wired.renew("me", ("none",), at(1)) == frozenset()
        await wired.apply(a_change("a"))


async def use_every_connection(storage: Storage, wire: Wire) -> None:
    """Have three connections opened for all, and the one for leases."""
    await asyncio.gather(*(storage.session_facts("none") for _ in range(3)))
    await storage.renew("me", ("none",), at(0))
    await eventually(lambda: asyncio.sleep(0, len(wire.links)), lambda count: count == 4)


async def test_F65_a_commit_that_meets_silence_is_asked_after_elsewhere(
    wired: Storage, storage: Storage, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    await use_every_connection(wired, wire)
    monkeypatch.setattr("opscore.storage.postgres._TRANSACTION_SECONDS", 1)
    wire.silencer = COMMIT
    change = asyncio.create_task(wired.apply(a_change("a")))
    await eventually(lambda: asyncio.sleep(0, wire.silent), bool)
    wire.silencer = None
    wire.fall_silent()
    async with asyncio.timeout(2.9):
        with pytest.raises(StorageError):
            await change
        await wired.apply(a_change("a"))
    assert await storage.agent("a") is not None


# --- what takes long ----------------------------------------------------------------------------


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ordinary work, and a database that is not there, are given up at once."""
    monkeypatch.setattr("opscore.storage.postgres._TRANSACTION_SECONDS", 0.1)
    monkeypatch.setattr("opscore.storage.postgres._WAIT_AT_START", 0.1)


@pytest.mark.usefixtures("hasty")
async def test_who_starts_waits_for_a_long_migration_by_another(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rival(database) as other:
        await other.execute("BEGIN; SELECT pg_advisory_xact_lock(7265671)")
        opening = asyncio.create_task(open_storage(database, Retention()))
        done, _ = await asyncio.wait({opening}, timeout=1.5)
        assert not done
        await other.execute("COMMIT")
        storage = await opening
    monkeypatch.undo()
    assert await storage.agent("none") is None
    await storage.close()


@pytest.mark.usefixtures("hasty")
async def test_F64_a_database_that_is_silent_at_the_start_is_given_up(
    wired_url: str, wire: Wire
) -> None:
    wire.silencer = b""
    async with asyncio.timeout(10):
        with pytest.raises(ConfigurationError, match="did not take the request"):
            await open_storage(wired_url, Retention())


async def test_an_import_has_no_limits(database: str) -> None:
    settings = await limits_of_an_import(database)
    assert settings == {
        "idle_in_transaction_session_timeout": "0",
        "lock_timeout": "0",
        "statement_timeout": "0",
    }


async def limits_of_an_import(database: str) -> dict[str, str]:
    def limits() -> Program[dict[str, str]]:
        rows: Sequence[Row] = yield Fetch(
            "SELECT name, setting FROM pg_settings WHERE name IN ('lock_timeout', "
            "'statement_timeout', 'idle_in_transaction_session_timeout')"
        )
        return {row[0]: row[1] for row in rows}

    async with driver_of(database).transaction(writing=True, any_schema=True) as run:
        return await run(limits())


@pytest.mark.parametrize("silencer", [b"SET ", b"BEGIN"])
async def test_a_transaction_that_never_began_leaves_no_connection(
    database: str, wired_url: str, wire: Wire, silencer: bytes
) -> None:
    wire.silencer = silencer
    transaction = driver_of(wired_url).transaction(writing=True)
    beginning = asyncio.ensure_future(transaction.__aenter__())
    await eventually(lambda: asyncio.sleep(0, wire.silent), bool)
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    async with rival(database) as watcher:
        await eventually(
            lambda: watcher.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'opscore' "
                "AND datname = current_database()"
            ),
            lambda count: count == 0,
        )


async def test_F10_a_stale_owner_writes_nothing(storage: Storage) -> None:
    await put(storage, builders.agent())
    session, task = one_run(1)
    await put(storage, session, task)
    (old,) = await claim(storage, owner="slept")
    await put(storage, replace(bump(old.task), owner="woke"))
    with pytest.raises(VersionConflictError):
        await put(storage, bump(old.task, progress="late"))
    assert (await stored(storage, task)).owner == "woke"


# --- what does not suit ---------------------------------------------------------------------------


@pytest.mark.fault("F113")
@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_database_that_is_not_utf8_is_refused_at_start_and_left_empty(
    server: LocalPostgres, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    keeper = await asyncpg.connect(server.url)
    await keeper.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    )
    await keeper.close()
    with pytest.raises(ConfigurationError, match=f"{encoding}.*createdb --encoding=UTF8"):
        await open_storage(server.url_of(name), Retention())
    reader = await asyncpg.connect(server.url_of(name))
    tables = await reader.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
    await reader.close()
    assert tables == 0
