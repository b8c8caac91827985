"""Who is there, who does what only one should do, and whose time counts."""

import asyncio
from datetime import UTC, datetime, timedelta

from opscore.models import Replica
from opscore.storage import Storage
from tests.builders import at
from tests.contract.conftest import Replicas

LONG_AGO = at(-1000)


def replica(id: str, beat: float = 0) -> Replica:
    return Replica(id, f"host of {id}", 42, "1.0", at(-60), at(beat))


async def test_who_beats_is_listed_as_it_last_said(storage: Storage) -> None:
    assert list(await storage.replicas()) == []
    for one in (replica("b"), replica("a"), replica("b", 5)):
        await storage.beat(one, LONG_AGO)
    assert list(await storage.replicas()) == [replica("a"), replica("b", 5)]


async def test_who_is_silent_for_long_is_forgotten(storage: Storage) -> None:
    for one in (replica("a"), replica("b", 5)):
        await storage.beat(one, LONG_AGO)
    await storage.beat(replica("c", 100), at(5))
    assert [one.id for one in await storage.replicas()] == ["b", "c"]


async def test_who_leaves_is_forgotten_and_has_no_duties(storage: Storage) -> None:
    for id in ("a", "b"):
        await storage.beat(replica(id), LONG_AGO)
        assert await storage.take_duty(f"duty of {id}", id, at(0), at(30))
    await storage.leave("a")
    assert [one.id for one in await storage.replicas()] == ["b"]
    assert await storage.take_duty("duty of a", "c", at(0), at(30))
    assert not await storage.take_duty("duty of b", "c", at(0), at(30))
    await storage.leave("never heard of")


async def test_a_duty_is_one_replicas_until_its_term_ends(storage: Storage) -> None:
    assert await storage.take_duty("prune", "a", at(0), at(30))
    assert not await storage.take_duty("prune", "b", at(29), at(59))
    assert await storage.take_duty("prune", "a", at(29), at(59))
    assert not await storage.take_duty("prune", "b", at(58), at(88))
    assert await storage.take_duty("prune", "b", at(59), at(89))
    assert not await storage.take_duty("prune", "a", at(60), at(90))
    assert await storage.take_duty("check", "a", at(60), at(90))


async def test_F11_of_many_who_ask_at_once_one_gets_the_duty(replicas: Replicas) -> None:
    stores = await replicas(8)
    for term in range(5):
        now, until = at(term * 30), at(term * 30 + 30)
        asked = [one.take_duty("prune", f"r{i}", now, until) for i, one in enumerate(stores)]
        assert sum(await asyncio.gather(*asked)) == 1


async def test_a_shared_storage_tells_the_time(storage: Storage) -> None:
    told = await storage.time()
    if told is not None:
        assert told.tzinfo is UTC
        assert abs(told - datetime.now(UTC)) < timedelta(minutes=1)
        later = await storage.time()
        assert later is not None
        assert later >= told
