"""Agents that AgentKit knows under a new id serve the queues of their old ids."""

import pytest

from opscore.models import Standing, TaskStatus
from opscore.storage import Storage
from tests import builders
from tests.builders import at
from tests.contract.shelf import agents_of, bump, claim, ended, put, queue, tasks_of

pytestmark = pytest.mark.fault("F126")

GONE = {"standing": Standing.DEREGISTERED, "standing_since": at(0)}
NAMED = {"agentkit_name": "ada", "announced_at": at(-100)}


async def namesakes(storage: Storage, agent_id: str, name: str | None) -> list[str]:
    facts = await storage.registration_facts(agent_id, at(0), name)
    return [one.id for one in facts.namesakes]


async def test_namesakes_are_others_in_service_that_agentkit_named_so(storage: Storage) -> None:
    await put(
        storage,
        builders.agent("b", **NAMED),
        builders.agent("a", **NAMED, standing=Standing.LOST),
        builders.agent("by hand", name="ada"),
        builders.agent("other", agentkit_name="bob", announced_at=at(-100)),
        builders.agent("gone", **NAMED, **GONE),
    )
    assert await namesakes(storage, "new", "ada") == ["a", "b"]
    assert await namesakes(storage, "a", "ada") == ["b"]
    assert await namesakes(storage, "new", "nobody") == []
    assert await namesakes(storage, "new", None) == []


async def test_a_name_follows_its_agent_when_it_changes(storage: Storage) -> None:
    agent = builders.agent("a", **NAMED)
    await put(storage, agent)
    renamed = bump(agent, agentkit_name="bob")
    await put(storage, renamed)
    assert await namesakes(storage, "new", "ada") == []
    assert await namesakes(storage, "new", "bob") == ["a"]
    await put(storage, bump(renamed, **GONE))
    assert await namesakes(storage, "new", "bob") == []


async def test_waiting_tasks_go_to_the_successor(storage: Storage) -> None:
    old = builders.agent("old")
    await put(storage, old)
    waiting = await queue(storage, [1, 2], wanted_agent="old")
    await put(
        storage, bump(old, **GONE, replaced_by="new"), builders.agent("new", predecessors=("old",))
    )
    assert await storage.stranded(10) == []
    (first,) = await claim(storage)
    assert (first.task.id, first.agent.id) == (waiting[0].id, "new")
    (later,) = await queue(storage, [3], wanted_agent="old")
    await put(storage, ended(first.task))
    assert agents_of(await claim(storage)) == ["new"]
    lane = await storage.lane(later, 10)
    assert [one.agent.id for one in lane.candidates] == ["new"]


async def test_an_agent_takes_its_predecessors_tasks_as_soon_as_it_is_known_for_them(
    storage: Storage,
) -> None:
    old, new = builders.agent("old", **GONE), builders.agent("new")
    await put(storage, old, new)
    (task,) = await queue(storage, [1], wanted_agent="old")
    assert tasks_of(await claim(storage)) == []
    await put(storage, bump(new, predecessors=("old",)))
    assert tasks_of(await claim(storage)) == [task.id]


async def test_tasks_are_stranded_once_the_successor_is_gone_too(storage: Storage) -> None:
    old, new = builders.agent("old", **GONE), builders.agent("new", predecessors=("old",))
    await put(storage, old, new)
    (queued,) = await queue(storage, [1], wanted_agent="old")
    (delayed,) = await queue(
        storage, [2], wanted_agent="old", status=TaskStatus.DELAYED, delayed_until=at(600)
    )
    assert await storage.stranded(10) == []
    await put(storage, bump(new, **GONE))
    assert set(await storage.stranded(10)) == {queued.id, delayed.id}
