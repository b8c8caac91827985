"""The engine itself: who hears of a change, and taking turns."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from opscore.exceptions import StorageError
from opscore.models import AgentFacts, Change, Event, EventType, ForwardObservation, Forwards
from opscore.workflow.turns import Turns
from tests.builders import at, report
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder


async def test_listeners_hear_of_what_was_written_and_of_nothing_else(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    heard: list[Change] = []
    house.engine.subscribe(heard.append)
    change = Change(events=(Event(EventType.AGENT_LOST, at(0)),))
    await house.engine.apply(change)
    storage.away = True
    with pytest.raises(StorageError):
        await house.engine.apply(Change())
    assert heard == [change]


async def test_a_decision_that_changes_nothing_writes_nothing(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    await house.register()
    before = storage.asked["apply"]
    assert await house.engine.agent_due("a1") == Change()
    assert await house.engine.agent_due("nobody") is None
    assert await house.engine.task_stranded("nothing") is None
    assert storage.asked["apply"] == before


async def test_what_is_stored_counts_though_what_it_taught_could_not_be_told(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)

    def lose_storage(_: Change) -> None:
        storage.away = True

    house.engine.subscribe(lose_storage)
    seen = ForwardObservation("a1", arrived=True)
    change = Change(events=(Event(EventType.AGENT_LOST, at(0)),), observation=seen)
    await house.engine.apply(change)
    assert house.engine.routes.known.forwards is Forwards.PROVED
    assert "What was learned of AgentKit is not stored" in caplog.text
    assert [event.type for event in await house.events()] == [EventType.AGENT_LOST]


# --- reports that come before the registration ------------------------------------------------


class Overtaken(Moody):
    """Something happens elsewhere between the first look at an agent and its answer's arrival."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def agent_facts(self, *args: Any) -> AgentFacts | None:
        found: AgentFacts | None = await self.ask("agent_facts", *args)
        if self.meanwhile is not None:
            happen, self.meanwhile = self.meanwhile, None
            await happen()
        return found


async def test_F47_a_report_counts_that_another_replicas_registration_overtook(
    build: Builder,
) -> None:
    storage = await build.storage(Overtaken)
    house, other = [await build(storage=storage, running=False) for _ in range(2)]
    storage.meanwhile = other.register
    assert await house.engine.agent_reported(report("idle")) is not None
    assert (await house.lifecycle.get_state("a1")).state == "idle"


async def test_F47_a_report_counts_that_comes_while_the_registration_is_written(
    build: Builder,
) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    storage.slow = {"apply"}
    registering = asyncio.create_task(house.register())
    reporting = asyncio.create_task(house.engine.agent_reported(report("idle")))
    await settle()
    storage.gate.set()
    await registering
    assert await reporting is not None
    assert (await house.lifecycle.get_state("a1")).state == "idle"


async def test_F47_a_report_of_nobody_is_kept(build: Builder) -> None:
    house = await build(running=False)
    assert await house.engine.agent_reported(report("idle")) is None
    await house.register()
    assert (await house.lifecycle.get_state("a1")).state == "idle"


# --- taking turns -----------------------------------------------------------------------------


async def test_one_at_a_time_in_the_order_of_coming() -> None:
    turns = Turns()
    done: list[str] = []

    async def work(name: str, key: str) -> None:
        if not turns.take(key):
            await turns.wait(key)
        done.append(f"{name} in")
        await asyncio.sleep(0)
        done.append(f"{name} out")
        turns.leave(key)

    await asyncio.gather(work("a", "k"), work("b", "k"), work("c", "k"))
    assert done == ["a in", "a out", "b in", "b out", "c in", "c out"]
    done.clear()
    await asyncio.gather(work("a", "k1"), work("b", "k2"))
    assert done[:2] == ["a in", "b in"]


async def test_whoever_goes_away_while_waiting_holds_nobody_up() -> None:
    turns = Turns()
    if not turns.take("k"):
        await turns.wait("k")
    goes, stays = (asyncio.create_task(turns.wait("k")) for _ in range(2))
    await settle(3)
    goes.cancel()
    await settle(3)
    turns.leave("k")
    await asyncio.wait_for(stays, 10)
    turns.leave("k")
    assert turns.take("k")


async def test_whoever_goes_away_in_the_moment_of_the_turn_passes_it_on() -> None:
    turns = Turns()
    if not turns.take("k"):
        await turns.wait("k")
    goes, stays = (asyncio.create_task(turns.wait("k")) for _ in range(2))
    await settle(3)
    turns.leave("k")
    goes.cancel()
    await asyncio.wait_for(stays, 10)
    assert goes.cancelled()
