"""Several at once on one storage: nothing is shared out twice, nothing is lost."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import (
    IdempotencyKeyUsedError,
    VersionConflictError,
    WebhookReplayedError,
)
from opscore.models import (
    Change,
    Claim,
    Event,
    EventFilter,
    EventType,
    IdempotencyRecord,
    TaskStatus,
    WebhookReceipt,
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at
from tests.contract.conftest import Replicas
from tests.contract.shelf import bump, claim, ended, events, one_run, put, queue, stored

EIGHT = 8


async def take_all(storage: Storage, owner: str) -> list[Claim]:
    """Claim three at a time until nothing is left."""
    taken: list[Claim] = []
    while claims := await claim(storage, 3, owner=owner):
        taken += claims
    return taken


async def test_F11_eight_claimers_never_share_a_task(replicas: Replicas) -> None:
    stores = await replicas(EIGHT)
    agents = [builders.agent(f"agent-{number}", concurrency=30) for number in range(4)]
    await put(stores[0], *agents)
    tasks = []
    for number in range(120):
        session, task = one_run(number, wanted_agent=f"agent-{number % 4}")
        await put(stores[0], session, task)
        tasks.append(task)
    taken = await asyncio.gather(
        *(take_all(storage, f"d{number}") for number, storage in enumerate(stores))
    )
    got = Counter(one.task.id for claims in taken for one in claims)
    assert got == {task.id: 1 for task in tasks}
    assert {one.task.attempt for claims in taken for one in claims} == {1}
    for agent in agents:
        candidate = await stores[-1].agent(agent.id)
        assert candidate is not None
        assert candidate.in_flight == 30


async def test_F11_no_agent_gets_more_than_its_slots(replicas: Replicas) -> None:
    stores = await replicas(EIGHT)
    await put(stores[0], builders.agent(concurrency=5))
    await queue(stores[0], range(40))
    taken = await asyncio.gather(
        *(claim(storage, 5, owner=f"d{number}") for number, storage in enumerate(stores))
    )
    assert sum(map(len, taken)) <= 5
    rest = await claim(stores[0], 40, owner="last")
    assert sum(map(len, taken)) + len(rest) == 5


async def test_of_conflicting_changes_one_is_applied(replicas: Replicas) -> None:
    stores = await replicas(EIGHT)
    session, task = one_run(1)
    await put(stores[0], builders.agent(), session, task)

    async def change(number: int) -> bool:
        one = bump(task, priority=number)
        event = Event(EventType.TASK_LATE, at(1), task_id=task.id, data={"n": number})
        try:
            await stores[number].apply(Change(tasks=(one,), events=(event,)))
        except VersionConflictError:
            return False
        return True

    applied = await asyncio.gather(*map(change, range(EIGHT)))
    assert applied.count(True) == 1
    winner = applied.index(True)
    assert (await stored(stores[-1], task)).priority == winner
    found = await events(stores[0], types=frozenset({EventType.TASK_LATE}))
    assert [event.data["n"] for event in found] == [winner]


async def test_of_equal_new_records_one_is_stored(replicas: Replicas) -> None:
    stores = await replicas(EIGHT)

    async def register(number: int) -> bool:
        try:
            await put(stores[number], builders.agent("new", name=f"agent {number}"))
        except VersionConflictError:
            return False
        return True

    applied = await asyncio.gather(*map(register, range(EIGHT)))
    assert applied.count(True) == 1
    agent = await stores[0].agent("new")
    assert agent is not None
    assert agent.agent.name == f"agent {applied.index(True)}"
    assert (await stores[0].counts()).agents == 1


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        (
            {"receipt": WebhookReceipt("signature", at(600))},
            WebhookReplayedError,
        ),
        (
            {"idempotency": IdempotencyRecord("key", "print", "session", at(600))},
            IdempotencyKeyUsedError,
        ),
    ],
)
async def test_F58_a_receipt_and_a_key_are_taken_once_by_all_together(
    replicas: Replicas, given: dict[str, Any], refused: type[Exception]
) -> None:
    stores = await replicas(EIGHT)

    async def apply(number: int) -> str:
        event = Event(EventType.TASK_LATE, at(1), data={"n": number})
        try:
            await stores[number].apply(Change(events=(event,), **given))
        except refused:
            return "refused"
        return "applied"

    outcomes = Counter(await asyncio.gather(*map(apply, range(EIGHT))))
    assert outcomes == {"applied": 1, "refused": EIGHT - 1}
    assert len(await events(stores[0])) == 1


async def test_F12_a_completion_and_a_reaper_do_not_both_win(replicas: Replicas) -> None:
    stores = await replicas(2)
    session, task = one_run(1)
    await put(stores[0], builders.agent(), session, task)
    (taken,) = await claim(stores[0])
    reaped = bump(taken.task, status=TaskStatus.QUEUED, owner=None, lease_until=None)
    outcomes = await asyncio.gather(
        put(stores[0], ended(taken.task)), put(stores[1], reaped), return_exceptions=True
    )
    assert sum(isinstance(one, VersionConflictError) for one in outcomes) == 1
    agent = await stores[1].agent("a1")
    assert agent is not None
    assert agent.in_flight == 0


async def test_the_log_is_read_without_gaps_while_many_write(replicas: Replicas) -> None:
    stores = await replicas(EIGHT)
    each = 25

    async def write(number: int) -> None:
        for place in range(each):
            event = Event(EventType.TASK_LATE, at(place), data={"of": number})
            await stores[number].apply(Change(events=(event,)))

    async def read() -> list[int]:
        """As a follower does: from where it is, again and again."""
        seen: list[int] = []
        while len(seen) < each * EIGHT:
            after = seen[-1] if seen else 0
            page = await stores[0].events(EventFilter(), after, 7)
            seen += [event.seq for event in page.items]
            await asyncio.sleep(0)
        return seen

    writers = asyncio.gather(*map(write, range(EIGHT)))
    async with asyncio.timeout(30):
        seen = await read()
    await writers
    assert seen == sorted(set(seen))
    assert len(seen) == each * EIGHT


async def test_leases_are_prolonged_by_their_owner_only(replicas: Replicas) -> None:
    stores = await replicas(2)
    await put(stores[0], builders.agent())
    (task,) = await queue(stores[0], [1])
    await claim(stores[0], owner="mine")
    later = at(0) + timedelta(seconds=99)
    assert await stores[1].renew("other", (task.id,), later) == frozenset()
    assert await stores[1].renew("mine", (task.id,), later) == frozenset({task.id})
    assert (await stored(stores[0], task)).lease_until == later
