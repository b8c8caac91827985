"""Two transactions at once, statement by statement: the later one waits, and sees what was done."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from opscore.exceptions import VersionConflictError
from opscore.models import Agent, Change, Claim, ClaimScope, Task, WorkflowSession
from opscore.storage import Storage
from opscore.storage.sql import SqlStorage, claiming, leases
from opscore.storage.sql.arrivals import Arrivals
from opscore.storage.sql.batch import Verdicts
from opscore.storage.sql.codec import DefinitionTexts
from opscore.storage.sql.driver import Driver, Run
from opscore.storage.sql.program import Execute, Fetch, Program
from opscore.storage.sql.residue import forget_definitions
from opscore.storage.sql.writing import apply_changes
from tests import builders
from tests.builders import at
from tests.contract.conftest import Replicas
from tests.contract.shelf import LEASE, bump, one_run, put, queue

pytestmark = pytest.mark.storages("postgres")

_WAITERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def driver(storage: Storage) -> Driver:
    assert isinstance(storage, SqlStorage)
    return storage._driver


async def until_waiting(storage: Storage, count: int, unless: "asyncio.Future[Any]") -> None:
    """So many wait for what others hold, or that one is done."""

    def program() -> Program[int]:
        rows = yield Fetch(_WAITERS)
        return int(rows[0][0])

    async with asyncio.timeout(10):
        while (  # noqa: ASYNC110 - what it waits for sets no event
            await driver(storage).read(program()) < count and not unless.done()
        ):
            await asyncio.sleep(0.001)


async def apply(run: Run, dialect: Any, change: Change) -> None:
    verdicts: Verdicts = await run(apply_changes(dialect, DefinitionTexts(), Arrivals(), [change]))
    assert verdicts == [None]


# --- changes ------------------------------------------------------------------------------------


def changed(kind: str, record: Any) -> Change:
    records: dict[str, Any] = {kind: (bump(record),)}
    return Change(**records)


@pytest.mark.parametrize("kind", ["tasks", "sessions", "agents"])
async def test_who_changes_a_record_waits_for_the_change_that_is_being_written(
    replicas: Replicas, kind: str
) -> None:
    first, second = await replicas(2)
    agent = builders.agent()
    session, task = one_run(1)
    await put(first, agent, session, task)
    record = {"tasks": task, "sessions": session, "agents": agent}[kind]
    async with driver(first).transaction(writing=True) as run:
        await apply(run, driver(first).dialect, changed(kind, record))
        late = asyncio.ensure_future(second.apply(changed(kind, record)))
        await until_waiting(second, 1, late)
    with pytest.raises(VersionConflictError):
        await late


async def test_F47_a_report_waits_for_the_registration_that_is_being_written(
    replicas: Replicas,
) -> None:
    registering, reporting, holding = await replicas(3)

    async def report() -> None:
        await reporting.keep_early_report(builders.report("idle"), at(1))
        assert await reporting.agent_facts("a1") is not None

    async with driver(holding).transaction(writing=True) as run:
        # Whoever writes waits for this at its end.
        await run(leases.ping())
        registered = asyncio.ensure_future(put(registering, builders.agent()))
        await until_waiting(holding, 1, registered)
        reported = asyncio.ensure_future(report())
        await until_waiting(holding, 2, reported)
    await registered
    await reported


# --- claims -------------------------------------------------------------------------------------


def taking(storage: Storage, task: Task, agent: Agent, wait: bool = True) -> Program[list[Claim]]:
    """What a claimer does that has planned to give this task to this agent."""
    pairs = [(task.id, agent.id)]
    dialect = driver(storage).dialect
    return claiming.take(dialect, Arrivals(), pairs, "me", at(0), at(LEASE), ClaimScope.ALL, wait)


async def claims_behind(
    replicas: Sequence[Storage], earlier: Program[Any], task: Task, agent: Agent, wait: bool
) -> list[Claim]:
    """The claims of one that planned before the earlier one was written."""
    first, second = replicas
    async with driver(first).transaction(writing=True) as run:
        await run(earlier)
        late = asyncio.ensure_future(
            driver(second).write(lambda: taking(second, task, agent, wait))
        )
        await until_waiting(second, 1, late)
    return await late


@pytest.mark.parametrize("wait", [True, False])
async def test_F11_the_last_slot_of_an_agent_is_taken_once(replicas: Replicas, wait: bool) -> None:
    stores = await replicas(2)
    agent = builders.agent(concurrency=1)
    await put(stores[0], agent)
    tasks = await queue(stores[0], range(2))
    earlier = taking(stores[0], tasks[0], agent)
    assert await claims_behind(stores, earlier, tasks[1], agent, wait) == []
    candidate = await stores[0].agent(agent.id)
    assert candidate is not None
    assert candidate.in_flight == 1


@pytest.mark.parametrize("wait", [True, False])
async def test_an_agent_that_has_just_unlearnt_a_capability_gets_no_task_for_it(
    replicas: Replicas, wait: bool
) -> None:
    stores = await replicas(2)
    agent = builders.agent(capabilities=("research",))
    await put(stores[0], agent)
    (task,) = await queue(stores[0], [1], wanted_agent=None, wanted_capability="research")
    earlier = apply_changes(
        driver(stores[0]).dialect,
        DefinitionTexts(),
        Arrivals(),
        [Change(agents=(bump(agent, capabilities=()),))],
    )
    assert await claims_behind(stores, earlier, task, agent, wait) == []


# --- definitions --------------------------------------------------------------------------------


async def keep_unused(storage: Storage, session: WorkflowSession) -> str:
    """Have its definition stored, with nobody who uses it yet; the definition's hash."""
    row = DefinitionTexts().of(session.definition)

    def program() -> Program[None]:
        yield Execute("INSERT INTO definitions (hash, doc) VALUES (?, ?)", [row])

    await driver(storage).write(program)
    return row[0]


async def test_a_definition_is_not_forgotten_under_a_session_that_begins(
    replicas: Replicas,
) -> None:
    first, second = await replicas(2)
    session, _ = one_run(1)
    unused = await keep_unused(first, session)
    async with driver(first).transaction(writing=True) as run:
        await apply(run, driver(first).dialect, Change(sessions=(session,)))
        late = asyncio.ensure_future(
            driver(second).write(lambda: forget_definitions(driver(second).dialect, [unused]))
        )
        await until_waiting(second, 1, late)
    await late
    assert await second.session(session.id) == session


async def test_a_session_does_not_begin_with_a_definition_that_is_being_forgotten(
    replicas: Replicas,
) -> None:
    first, second = await replicas(2)
    session, _ = one_run(1)
    unused = await keep_unused(first, session)
    async with driver(first).transaction(writing=True) as run:
        await run(forget_definitions(driver(first).dialect, [unused]))
        late = asyncio.ensure_future(put(second, session))
        await until_waiting(second, 1, late)
    await late
    assert await second.session(session.id) == session


# --- reading ------------------------------------------------------------------------------------


async def test_all_that_a_scan_sees_is_of_one_moment(replicas: Replicas) -> None:
    first, second = await replicas(2)
    count = Fetch("SELECT count(*) FROM agents")
    gate = Fetch(driver(first).dialect.one_at_a_time, (1,))

    def hold() -> Program[None]:
        yield gate

    def look_twice() -> Program[list[int]]:
        before = yield count
        yield gate
        after = yield count
        return [before[0][0], after[0][0]]

    async with driver(first).transaction(writing=True) as run:
        await run(hold())
        seen = asyncio.ensure_future(driver(second).scan(look_twice()))
        await until_waiting(first, 1, seen)
        await put(first, builders.agent())
    assert await seen == [0, 0]
    assert (await first.counts()).agents == 1
