"""The housekeeper: silent agents, the clock, and a blocked event loop."""

import time
from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import StorageError
from opscore.models import (
    Change,
    Policy,
    Standing,
    StateReport,
)
from tests import builders
from tests.contract.shelf import put
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder

SILENCE_OF_A_MINUTE = Policy(silence_threshold=timedelta(seconds=60))


# --- silent agents ----------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "standing"), [(None, "registered"), (60, "lost")])
async def test_agents_that_heartbeat_may_be_lost_by_their_silence(
    build: Builder, threshold: float | None, standing: str
) -> None:
    limit = None if threshold is None else timedelta(seconds=threshold)
    house = await build(policy=Policy(silence_threshold=limit))
    await house.register("quiet")
    await house.register("lively")
    await house.pass_time(50, step=10)
    await house.lifecycle.set_state(StateReport("lively", "idle"))
    await house.pass_time(15, step=5)
    await house.housekeeper.round()
    assert (await house.lifecycle.get_agent("quiet")).agent.standing.value == standing
    assert (await house.lifecycle.get_agent("lively")).agent.standing is Standing.REGISTERED
    await house.lifecycle.set_state(StateReport("quiet", "idle"))
    assert (await house.lifecycle.get_agent("quiet")).agent.standing is Standing.REGISTERED


class Damaged(Moody):
    """One agent cannot be read, or its row is locked."""

    raising: Exception = ValueError("cut in t")

    async def agent(self, agent_id: str) -> Any:
        if agent_id == "a1":
            raise self.raising
        return await self.ask("agent", agent_id)


@pytest.mark.parametrize(
    "raising", [ValueError("cut in t"), StorageError("The row is locked.", retry_after=1)]
)
async def test_what_cannot_be_read_or_written_does_not_end_a_round(
    build: Builder, raising: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await build.storage(Damaged)
    storage.raising = raising
    house = await build(policy=SILENCE_OF_A_MINUTE, storage=storage)
    await house.register("a2")
    await put(storage.behind, builders.agent("a1"))
    await house.pass_time(70, step=10)
    await house.housekeeper.round()
    standings = [(await storage.behind.agent(one)) for one in ("a1", "a2")]
    assert [one.agent.standing for one in standings if one] == [Standing.REGISTERED, Standing.LOST]
    if isinstance(raising, StorageError):
        assert "Housekeeping is put off" in caplog.text


# --- the clock --------------------------------------------------------------------------------


async def test_F20_a_clock_that_is_not_the_time_of_deadlines_is_told_of_once(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    house = await build(running=False)
    said: list[int] = []
    for skew in (9, 3600, 3605, 2):
        house.clock.skew = timedelta(seconds=skew)
        await house.housekeeper.round()
        said.append(len(caplog.records))
    assert said == [0, 1, 1, 2]
    assert "clock is 3600 seconds ahead of the time that deadlines go by" in caplog.text
    assert "clock is 2 seconds ahead of the time that deadlines go by" in caplog.text


# --- running ----------------------------------------------------------------------------------


async def test_it_makes_its_rounds_and_outlasts_a_storage_that_is_away(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await build.storage(Moody)
    house = await build(policy=SILENCE_OF_A_MINUTE, storage=storage)
    await house.register()
    await house.pass_time(70, step=10)
    storage.away = True
    running = house.spawn(house.housekeeper.run())
    await house.eventually(lambda: "Housekeeping is put off" in caplog.text)
    storage.away = False
    lost: list[Change] = []
    house.engine.subscribe(lost.append)
    await house.eventually(lambda: bool(lost))
    assert not running.done()
    assert (await house.lifecycle.get_agent("a1")).agent.standing is Standing.LOST


@pytest.mark.storages("memory")
async def test_F16_a_blocked_event_loop_is_measured_and_warned_of(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    house = await build()
    house.spawn(house.housekeeper.run())
    await settle(5)
    began = time.monotonic()
    time.sleep(1.1)  # noqa: ASYNC251 - blocking the loop is what is tested
    await house.eventually(lambda: house.housekeeper.worst_lag > 1)
    assert house.housekeeper.worst_lag <= time.monotonic() - began
    assert f"The event loop was blocked for {house.housekeeper.worst_lag:.1f}" in caplog.text
