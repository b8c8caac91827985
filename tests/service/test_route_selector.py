"""The conclusions about AgentKit are stored, shared by replicas, and outlive a restart."""

from dataclasses import replace

import pytest

from opscore.models import (
    Accepted,
    AgentKitKnowledge,
    Change,
    Delivery,
    EventType,
    ForwardObservation,
    Forwards,
    Policy,
)
from opscore.workflow.route_selector import RouteSelector, agentkit_name
from tests.builders import agent, at, dispatched
from tests.fakes import ManualClock
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import Switchboard

MISSED = ForwardObservation("a1", arrived=False)
ARRIVED = ForwardObservation("a2", arrived=True)


async def test_knowledge_of_agentkit_outlives_a_restart(build: Builder) -> None:
    storage = await build.storage(Moody)
    before = await build(storage=storage, running=False)
    await before.engine.routes.observe(MISSED)
    courier = Switchboard(always=Accepted())
    after = await build(courier, storage=storage, running=False, owner="d2")
    await after.engine.routes.load()
    assert after.engine.routes.known == before.engine.routes.known
    assert after.engine.routes.known.forwards is Forwards.DISPROVED
    await after.start()
    await after.register()
    await after.trigger()
    assert courier.routes == [Delivery.DIRECT]


async def test_replicas_that_learn_at_once_agree_on_what_was_learned_last(build: Builder) -> None:
    storage = await build.storage(Moody)
    one, two = [(await build(storage=storage, running=False)).engine for _ in range(2)]
    await one.routes.observe(MISSED)
    await two.routes.observe(ARRIVED)
    await one.routes.load()
    assert one.routes.known == two.routes.known
    assert (one.routes.known.forwards, one.routes.known.rev) == (Forwards.PROVED, 2)


async def test_replica_keeps_its_own_next_probe_when_nothing_was_learned(build: Builder) -> None:
    house = await build(running=False)
    routes = house.engine.routes
    await routes.observe(MISSED)
    house.clock.advance(601)
    assert routes.choose(dispatched(), agent(), True) is Delivery.AGENTKIT
    await routes.load()
    assert routes.choose(dispatched(), agent(), True) is Delivery.DIRECT


async def test_storage_that_is_away_does_not_keep_from_learning(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    storage.away = True
    await house.engine.routes.observe(MISSED)
    assert house.engine.routes.known.forwards is Forwards.DISPROVED
    assert "What was learned of AgentKit is not stored" in caplog.text
    storage.away = False
    await house.engine.routes.observe(ARRIVED)
    stored = await house.storage.agentkit_knowledge("")
    assert stored is not None
    assert (stored.forwards, stored.rev) == (Forwards.PROVED, 1)


async def test_knowledge_of_another_agentkit_does_not_count(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    learned = AgentKitKnowledge("http://other:1", Forwards.DISPROVED, at(0), at(600), rev=1)
    await house.engine.apply(Change(agentkit=learned))
    other = RouteSelector(
        house.storage, ManualClock(), Policy(), "http://other:1/v1/", house.engine.apply
    )
    await other.load()
    await house.engine.routes.load()
    assert other.known == learned
    assert house.engine.routes.known == replace(AgentKitKnowledge(), agentkit="")


async def test_each_change_of_what_is_known_is_one_event_and_one_sentence(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    house = await build(running=False)
    for _ in range(3):
        await house.engine.routes.observe(MISSED)
    await house.engine.routes.observe(ARRIVED)
    learned = await house.events(EventType.DELIVERY_LEARNED)
    assert [event.data["forwards"] for event in learned] == ["disproved", "proved"]
    said = [record.getMessage() for record in caplog.records if "forwards" in record.getMessage()]
    assert len(said) == 2


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/v1/", "http://127.0.0.1:8080"),
        ("https://user:secret@kit.example/base/v1", "https://kit.example/base"),
    ],
)
def test_agentkit_is_known_by_its_address_without_credentials(url: str, name: str) -> None:
    assert agentkit_name(url) == name
