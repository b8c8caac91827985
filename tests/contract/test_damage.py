"""One record that cannot be read is put aside and told of once; everything else goes on."""

import asyncio

import pytest

from opscore.storage import Storage
from opscore.storage.damage import UNREADABLE, tell_once
from opscore.storage.sql import SqlStorage
from opscore.storage.sql.program import Execute, Fetch, Program
from tests import builders
from tests.builders import at
from tests.contract.shelf import LEASE, claim, ended, one_run, put, queue, stored, tasks_of

pytestmark = pytest.mark.storages("sqlite", "postgres")

DAMAGED = ("{}", "[1]", "cut in t")


@pytest.fixture(autouse=True)
def nothing_told() -> None:
    tell_once.cache_clear()


async def rewrite(storage: Storage, table: str, record_id: str, doc: str) -> str:
    """Write another document; the one that stood there."""

    def program() -> Program[str]:
        rows = yield Fetch(f"SELECT doc FROM {table} WHERE id = ?", (record_id,))
        yield Execute(f"UPDATE {table} SET doc = ? WHERE id = ?", [(doc, record_id)])
        return str(rows[0][0])

    assert isinstance(storage, SqlStorage)
    return await storage._driver.write(program)


async def mend(storage: Storage) -> list[str]:
    cursor, found = None, []
    while True:
        page = await storage.mend(cursor, 100, at(0))
        found += [event.data["found"] for event in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("doc", DAMAGED)
async def test_an_agent_that_cannot_be_read_gets_no_task_and_the_others_get_theirs(
    storage: Storage, caplog: pytest.LogCaptureFixture, doc: str
) -> None:
    await put(storage, builders.agent("a1", concurrency=3), builders.agent("a2", concurrency=9))
    own = await queue(storage, range(3), wanted_agent="a1", priority=9)
    shared = await queue(storage, range(3, 8), wanted_agent=None, wanted_capability="research")
    whole = await rewrite(storage, "agents", "a1", doc)
    assert tasks_of(await claim(storage, 3)) == [one.id for one in shared[:3]]
    assert tasks_of(await claim(storage)) == [one.id for one in shared[3:]]
    assert await claim(storage) == []
    assert caplog.text.count("Record a1 in agents cannot be read") == 1
    await rewrite(storage, "agents", "a1", whole)
    assert await mend(storage) == ["columns_differ"]
    assert tasks_of(await claim(storage)) == [one.id for one in own]


@pytest.mark.parametrize("doc", DAMAGED)
@pytest.mark.parametrize("table", ["tasks", "sessions"])
async def test_a_task_that_cannot_be_read_leaves_its_place_to_the_next(
    storage: Storage, caplog: pytest.LogCaptureFixture, table: str, doc: str
) -> None:
    await put(storage, builders.agent(concurrency=1))
    lost, other = await queue(storage, range(2))
    damaged = lost.id if table == "tasks" else lost.session_id
    whole = await rewrite(storage, table, damaged, doc)
    assert tasks_of(await claim(storage)) == [other.id]
    assert caplog.text.count("cannot be read") == 1
    await rewrite(storage, table, damaged, whole)
    assert await mend(storage) == ["columns_differ"]
    await put(storage, ended(await stored(storage, other)))
    assert tasks_of(await claim(storage)) == [lost.id]


async def test_leases_of_others_are_prolonged(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=3))
    tasks = [one.id for one in await queue(storage, range(3))]
    await claim(storage)
    await rewrite(storage, "tasks", tasks[1], "{}")
    held = await storage.renew("d1", tasks, at(2 * LEASE))
    assert held == {tasks[0], tasks[2]}


async def test_what_is_asked_together_is_answered_one_by_one(storage: Storage) -> None:
    await put(storage, *(builders.agent(f"a{number}") for number in range(5)))
    await rewrite(storage, "agents", "a2", "{}")
    answers = await asyncio.gather(
        *(storage.agent_facts(f"a{number}") for number in range(6)), return_exceptions=True
    )
    assert isinstance(answers[2], UNREADABLE)
    assert answers[5] is None
    known = [one.agent.id for one in answers if not isinstance(one, BaseException) and one]
    assert known == ["a0", "a1", "a3", "a4"]


async def test_the_tasks_of_an_agent_that_cannot_be_read_are_decided_without_it(
    storage: Storage,
) -> None:
    await put(storage, builders.agent(), *one_run(1))
    (taken,) = await claim(storage)
    await rewrite(storage, "agents", "a1", "{}")
    facts = await storage.task_facts(taken.task.id)
    assert facts is not None
    assert (facts.task, facts.agent) == (taken.task, None)


async def test_silent_agents_are_found_beside_it(storage: Storage) -> None:
    await put(storage, builders.agent("a1"), builders.agent("a2"))
    await rewrite(storage, "agents", "a1", "{}")
    assert [one.id for one in await storage.silent_agents(at(0), 9)] == ["a2"]
