"""The check that the storage takes writes: at most once a second, and shared."""

import asyncio

import pytest

from opscore.api.storage_check import StorageCheck
from opscore.exceptions import StorageError
from opscore.models import Retention
from opscore.storage import open_storage
from tests.fakes import ManualClock, settle
from tests.moody import Moody


@pytest.fixture
async def storage() -> Moody:
    return Moody(await open_storage("memory:", Retention()))


async def test_checks_within_a_second_write_once(storage: Moody) -> None:
    clock = ManualClock()
    check = StorageCheck(storage.storage, clock)
    for _ in range(100):
        await check.run()
    assert storage.asked["ping"] == 1
    clock.advance(1)
    await check.run()
    assert storage.asked["ping"] == 2


async def test_failed_check_is_not_remembered(storage: Moody) -> None:
    check = StorageCheck(storage.storage, ManualClock())
    storage.away = True
    for _ in range(2):
        with pytest.raises(StorageError):
            await check.run()
    storage.away = False
    await check.run()
    assert storage.asked["ping"] == 3


async def test_checks_that_wait_share_one_write(storage: Moody) -> None:
    check = StorageCheck(storage.storage, ManualClock())
    storage.slow.add("ping")
    waiting = [asyncio.create_task(check.run()) for _ in range(50)]
    await settle()
    waiting[0].cancel()
    storage.away = True
    storage.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert {type(one) for one in results[1:]} == {StorageError}
    assert storage.asked["ping"] == 1
