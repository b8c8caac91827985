"""What replicas held that cannot live any more is free as soon as another one begins."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from opscore.models import Answered, Replica, SessionStatus
from opscore.processes import place_of_processes
from opscore.storage import Storage
from opscore.storage.sql.codec import dump
from opscore.storage.sql.replicas import replicas
from opscore.workflow.dispatcher import LEASE
from opscore.workflow.replicas import Presence
from tests.builders import NOW
from tests.fakes import settle
from tests.service.conftest import Builder
from tests.service.house import Switchboard

NOBODY = 4_194_304  # above every number of a process
HERE = "this boot, this container"


def replica(id: str, pid: int, place: str = HERE) -> Replica:
    return Replica(id, "a-host", pid, "1.0", NOW, NOW, place)


@pytest.fixture(scope="module")
def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


async def beat(storage: Storage, one: Replica) -> None:
    await storage.beat(one, NOW)


@pytest.fixture
def number(gone: int, is_own: bool) -> int:
    """The own one was that of an earlier life: every container begins with process 1."""
    return os.getpid() if is_own else gone


@pytest.mark.parametrize(("known", "is_own"), [(True, False), (True, True), (False, False)])
async def test_F3_a_process_that_is_alone_need_not_wait_for_leases(
    build: Builder, number: int, known: bool
) -> None:
    house = await build(Switchboard(always=Answered(1)), running=False)
    await house.register()
    session = await house.trigger()
    now = house.clock.now()
    await house.storage.claim("dead", now, now + LEASE, 1)
    if known or not house.storage.exclusive:
        await beat(house.storage, replica("dead", number))
    await Presence(house.storage, house.clock, replica("me", os.getpid())).join()
    assert [one.id for one in await house.storage.replicas()] == ["me"]
    await house.start()
    await settle()
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED
    (task,) = await house.tasks(session.id)
    assert (task.attempt, task.retries, task.lost_leases) == (2, 0, 1)


@pytest.mark.storages("postgres")  # the others have one process at a time
@pytest.mark.parametrize(
    ("pid", "place", "here"),
    [
        (os.getppid(), HERE, HERE),
        (1, HERE, HERE),
        (NOBODY, "elsewhere", HERE),
        (os.getpid(), "elsewhere", HERE),
        (NOBODY, "", HERE),
        (NOBODY, HERE, ""),
        (NOBODY, "", ""),
    ],
    # Not the numbers of processes, which are others in every process that collects this test.
    ids=["parent", "first", "elsewhere", "own number", "unknown", "here unknown", "both unknown"],
)
async def test_what_another_living_replica_holds_stays_with_it(
    build: Builder, pid: int, place: str, here: str
) -> None:
    house = await build(Switchboard(), running=False)
    await house.register()
    await house.trigger()
    now = house.clock.now()
    (claim,) = await house.storage.claim("other", now, now + LEASE, 1)
    await beat(house.storage, replica("other", pid, place))
    await Presence(house.storage, house.clock, replica("me", os.getpid(), here)).join()
    assert (await house.task()).lease_until == claim.task.lease_until
    assert {one.id for one in await house.storage.replicas()} == {"me", "other"}


def test_a_place_is_the_same_for_all_processes_of_a_machine() -> None:
    code = "from opscore.processes import place_of_processes as place; print(place())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == place_of_processes()


def test_without_proc_the_place_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("opscore.processes._BOOT", tmp_path / "nothing")
    assert place_of_processes() == ""


def test_a_replica_that_said_nothing_of_its_place_is_still_read() -> None:
    older = replica("older", 7, "")
    doc = {key: value for key, value in json.loads(dump(older)).items() if key != "place"}
    reading = replicas()
    next(reading)
    with pytest.raises(StopIteration) as end:
        reading.send([(json.dumps(doc),)])
    assert end.value.value == [older]
