"""The conclusions about AgentKit are stored, and replicas do not overwrite each other's."""

from dataclasses import replace

import pytest

from opscore.exceptions import VersionConflictError
from opscore.models import AgentKitKnowledge, Change, Event, EventType, Forwards
from opscore.storage import Storage
from tests.builders import at
from tests.contract.shelf import events

ADDRESS = "http://127.0.0.1:8080"
LEARNED = AgentKitKnowledge(
    ADDRESS, Forwards.PROVED, at(1), next_probe=at(9), unreached=("a1",), rev=1
)


async def test_knowledge_is_kept_for_each_agentkit(storage: Storage) -> None:
    assert await storage.agentkit_knowledge(ADDRESS) is None
    other = replace(LEARNED, agentkit="http://127.0.0.1:8081", forwards=Forwards.DISPROVED)
    await storage.apply(Change(agentkit=LEARNED))
    await storage.apply(Change(agentkit=other))
    assert await storage.agentkit_knowledge(ADDRESS) == LEARNED
    assert await storage.agentkit_knowledge(other.agentkit) == other


async def test_newer_knowledge_replaces_the_older_one(storage: Storage) -> None:
    await storage.apply(Change(agentkit=LEARNED))
    newer = replace(LEARNED, forwards=Forwards.DISPROVED, unreached=(), rev=2)
    await storage.apply(Change(agentkit=newer))
    assert await storage.agentkit_knowledge(ADDRESS) == newer


@pytest.mark.parametrize("rev", [1, 3])
async def test_knowledge_that_another_replica_does_not_have_is_a_conflict(
    storage: Storage, rev: int
) -> None:
    await storage.apply(Change(agentkit=LEARNED))
    event = Event(EventType.DELIVERY_LEARNED, at(1))
    with pytest.raises(VersionConflictError):
        await storage.apply(Change(agentkit=replace(LEARNED, rev=rev), events=(event,)))
    assert await storage.agentkit_knowledge(ADDRESS) == LEARNED
    assert await events(storage) == ()
