"""One record that cannot be written, and many others that are written at the same time."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from opscore.exceptions import StorageError
from opscore.models import Agent, Change
from opscore.storage import Storage
from opscore.storage.sql import SqlStorage
from opscore.storage.sql.program import Execute, Fetch, Program
from tests import builders
from tests.builders import at
from tests.contract.shelf import LEASE, bump, claim, put, queue, stored

NUMBER = 40
LOCKED = "a17"


async def bump_all(storage: Storage, agents: Sequence[Agent]) -> dict[str, BaseException]:
    """A change of each agent, all at once; what was in the way of those that failed."""
    changed = [bump(agent, last_seen_at=at(1)) for agent in agents]
    outcomes = await asyncio.gather(
        *(storage.apply(Change(agents=(one,))) for one in changed), return_exceptions=True
    )
    pairs = zip(agents, outcomes, strict=True)
    return {one.id: error for one, error in pairs if error is not None}


@asynccontextmanager
async def locked(storage: Storage, table: str, record_id: str) -> AsyncIterator[None]:
    """Somebody holds the row for as long as this lasts."""

    def program() -> Program[None]:
        yield Fetch(f"SELECT 1 FROM {table} WHERE id = ? FOR UPDATE", (record_id,))

    assert isinstance(storage, SqlStorage)
    async with storage._driver.transaction(writing=True) as run:
        await run(program())
        yield


async def refuse(storage: Storage, agent_id: str) -> None:
    def program() -> Program[None]:
        yield Execute(
            "CREATE TRIGGER refuse BEFORE UPDATE ON agents "
            f"WHEN new.id = '{agent_id}' BEGIN SELECT RAISE(ABORT, 'no'); END"
        )

    assert isinstance(storage, SqlStorage)
    await storage._driver.write(program)


@pytest.fixture
def agents() -> list[Agent]:
    return [builders.agent(f"a{number}") for number in range(NUMBER)]


@pytest.mark.storages("postgres")
async def test_F67_changes_that_share_a_batch_with_a_locked_row_are_stored(
    storage: Storage, agents: list[Agent]
) -> None:
    await put(storage, *agents)
    async with locked(storage, "agents", LOCKED):
        errors = await bump_all(storage, agents)
        assert list(errors) == [LOCKED]
        assert isinstance(errors[LOCKED], StorageError)
    assert await bump_all(storage, [bump(one) for one in agents if one.id != LOCKED]) == {}
    (late,) = [one for one in agents if one.id == LOCKED]
    assert await bump_all(storage, [late]) == {}


@pytest.mark.storages("sqlite")
async def test_changes_that_share_a_batch_with_one_that_is_refused_are_stored(
    storage: Storage, agents: list[Agent]
) -> None:
    await put(storage, *agents)
    await refuse(storage, LOCKED)
    errors = await bump_all(storage, agents)
    assert list(errors) == [LOCKED]
    assert isinstance(errors[LOCKED], StorageError)
    assert await bump_all(storage, [bump(one) for one in agents if one.id != LOCKED]) == {}


@pytest.mark.storages("postgres")
async def test_F67_a_locked_row_ends_no_lease(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=4))
    *others, task, taken = await queue(storage, range(4))
    await claim(storage)
    await put(storage, bump(await stored(storage, taken), owner="d2"))
    ids = [one.id for one in (*others, task, taken)]
    later = at(2 * LEASE)
    async with locked(storage, "tasks", task.id), asyncio.timeout(2):
        assert await storage.renew("d1", ids, later) == frozenset(ids) - {taken.id}
    assert [(await stored(storage, one)).lease_until for one in others] == [later, later]
    assert (await stored(storage, task)).lease_until == at(LEASE)
    await storage.renew("d1", ids, later)
    assert (await stored(storage, task)).lease_until == later
