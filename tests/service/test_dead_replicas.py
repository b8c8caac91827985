"""What replicas held that cannot live any more is free as soon as another one begins."""

import os
import subprocess
import sys

import pytest

from opscore.models import Answered, Replica, SessionStatus
from opscore.storage import Storage
from opscore.workflow.dispatcher import LEASE
from opscore.workflow.replicas import Presence
from tests.builders import NOW
from tests.fakes import settle
from tests.service.conftest import Builder
from tests.service.house import Switchboard

HOST = "here"


def replica(id: str, pid: int, host: str = HOST) -> Replica:
    return Replica(id, host, pid, "1.0", NOW, NOW)


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


async def beat(storage: Storage, one: Replica) -> None:
    await storage.beat(one, NOW)


@pytest.mark.parametrize("known", [True, False])
async def test_F3_a_process_that_is_alone_need_not_wait_for_leases(
    build: Builder, gone: int, known: bool
) -> None:
    house = await build(Switchboard(always=Answered(1)), running=False)
    await house.register()
    session = await house.trigger()
    now = house.clock.now()
    await house.storage.claim("dead", now, now + LEASE, 1)
    if known or not house.storage.exclusive:
        await beat(house.storage, replica("dead", gone))
    await Presence(house.storage, house.clock, replica("me", os.getpid())).join()
    assert [one.id for one in await house.storage.replicas()] == ["me"]
    await house.start()
    await settle()
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED
    (task,) = await house.tasks(session.id)
    assert (task.attempt, task.retries, task.lost_leases) == (2, 0, 1)


@pytest.mark.storages("postgres")  # the others have one process at a time
@pytest.mark.parametrize(
    "living",
    [replica("other", os.getppid()), replica("other", 1), replica("other", 4_000_000, "elsewhere")],
)
async def test_what_another_living_replica_holds_stays_with_it(
    build: Builder, living: Replica
) -> None:
    house = await build(Switchboard(), running=False)
    await house.register()
    await house.trigger()
    now = house.clock.now()
    (claim,) = await house.storage.claim("other", now, now + LEASE, 1)
    await beat(house.storage, living)
    await Presence(house.storage, house.clock, replica("me", os.getpid())).join()
    assert (await house.task()).lease_until == claim.task.lease_until
    assert {one.id for one in await house.storage.replicas()} == {"me", "other"}
