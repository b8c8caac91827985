"""What is written together, and what decisions are made from."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import IdempotencyKeyUsedError, VersionConflictError, WebhookReplayedError
from opscore.models import (
    Agent,
    AgentState,
    Backoff,
    Change,
    Delivery,
    Event,
    EventType,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    Hold,
    HoldReason,
    IdempotencyRecord,
    MessageType,
    Retention,
    RetryPolicy,
    SessionStatus,
    Standing,
    StateWord,
    Task,
    TaskStatus,
    WebhookReceipt,
    WorkflowRevision,
    WorkflowSession,
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at, step
from tests.contract.conftest import Opener
from tests.contract.shelf import Record, bump, events, one_run, put, session_id, stored

NESTED: dict[str, Any] = {"text": "é ☃ 𝄞", "list": [1, 2.5, None, True], "deep": {"": {}}}


def a_full_agent() -> Agent:
    state = AgentState("BUSY", StateWord.ACTIVE, NESTED, at(0.123456), at(1.5), True)
    hold = Hold(HoldReason.REPORTED_ACTIVE, at(2), at(300.5))
    return builders.agent(
        capabilities=("b", "a"),
        version="1.0",
        metadata=NESTED,
        concurrency=7,
        standing=Standing.LOST,
        standing_since=at(3),
        standing_reason="silent",
        hold=hold,
        state=state,
        last_seen_at=at(4),
        delivery_failures=2,
        missed_deadlines=1,
    )


def a_full_session() -> WorkflowSession:
    retry = RetryPolicy(
        1, Backoff.LINEAR, timedelta(seconds=0.5), timedelta(hours=1), False, ("x",)
    )
    steps = (
        step(
            "one",
            name="One",
            agent_capability="research",
            parameters=NESTED,
            next_task_id="two",
            priority=9,
            delay=timedelta(seconds=1),
            timeout=timedelta(days=2),
            start_timeout=timedelta(0),
            queue_timeout=timedelta(minutes=3),
            retry=retry,
            fallback=FallbackTask("spare"),
        ),
        step("two", agent_id="a2", fallback=FallbackResult(NESTED)),
        step(
            "spare",
            message_type=MessageType.TOOL_INVOCATION,
            tool_name="calc",
            fallback=FallbackCapability("b"),
        ),
    )
    return builders.session(
        *steps,
        status=SessionStatus.FAILED,
        input=NESTED,
        results={"one": NESTED, "two": [1]},
        output=["x", None],
        error={"code": "agent_error"},
        metadata=NESTED,
        ended_at=at(9),
        deadline_at=at(10),
    )


def a_full_task() -> Task:
    return builders.task(
        name="One",
        stands_for="zero",
        status=TaskStatus.TIMED_OUT,
        priority=0,
        message_type=MessageType.TOOL_INVOCATION,
        tool_name="calc",
        parameters=NESTED,
        wanted_agent=None,
        wanted_capability="research",
        preferred_agent="a2",
        fell_back=True,
        attempt=4,
        retries=3,
        lost_leases=2,
        not_found=1,
        agent_id="a1",
        via=Delivery.DIRECT,
        prefer_direct=True,
        owner="d1",
        lease_until=at(1),
        delayed_until=at(2),
        queue_deadline=at(3),
        start_deadline=at(4),
        run_deadline=at(5),
        dispatched_at=at(6),
        accepted_at=at(7),
        active_at=at(8),
        heartbeat_at=at(9),
        ended_at=at(10.000001),
        progress={"percent": 50},
        result=NESTED,
        error={"code": "run_timeout"},
    )


async def test_records_come_back_as_they_went_in(storage: Storage) -> None:
    agent, session, task = a_full_agent(), a_full_session(), a_full_task()
    await put(storage, agent, session, task)
    candidate = await storage.agent(agent.id)
    assert candidate is not None
    assert (candidate.agent, candidate.in_flight) == (agent, 0)
    assert await storage.session(session.id) == session
    assert await stored(storage, task) == task


# --- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["agent", "session", "task"])
@pytest.mark.parametrize("rev", [0, 1, 2, 4], ids=lambda rev: f"rev-{rev}")
async def test_a_record_must_follow_the_stored_one(storage: Storage, kind: str, rev: int) -> None:
    session, task = one_run(1)
    records: dict[str, Record] = {
        "agent": builders.agent(),
        "session": session,
        "task": task,
    }
    await put(storage, *records.values())
    await put(storage, *(bump(record) for record in records.values()))
    with pytest.raises(VersionConflictError):
        await put(storage, replace(records[kind], rev=rev))


@pytest.mark.parametrize("kind", ["agent", "session", "task"])
@pytest.mark.parametrize("rev", [0, 2], ids=lambda rev: f"rev-{rev}")
async def test_a_new_record_must_be_the_first(storage: Storage, kind: str, rev: int) -> None:
    session, task = one_run(1)
    if kind == "task":
        await put(storage, session)
    records: dict[str, Record] = {"agent": builders.agent(), "session": session, "task": task}
    with pytest.raises(VersionConflictError):
        await put(storage, replace(records[kind], rev=rev))


async def test_F44_of_equal_writes_at_once_one_is_applied(storage: Storage) -> None:
    session, task = one_run(1)
    await put(storage, session, task)
    event = Event(EventType.TASK_RUNNING, at(0), task_id=task.id)
    change = Change(tasks=(bump(task),), events=(event,))
    outcomes = await asyncio.gather(
        *(storage.apply(change) for _ in range(20)), return_exceptions=True
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(one, VersionConflictError) for one in outcomes) == 19
    assert len(await events(storage)) == 1
    assert (await stored(storage, task)).rev == 2


# --- all or nothing ---------------------------------------------------------------------------


WORKFLOW = WorkflowRevision(builders.definition(), 1, at(0))
RECEIPT = WebhookReceipt("0f" * 32, at(600))
KEY = IdempotencyRecord("key-1", "fingerprint", session_id(1), at(600))

CULPRITS: list[tuple[str, dict[str, Any], type[Exception]]] = [
    ("agents", {"agents": (builders.agent("old", rev=1),)}, VersionConflictError),
    ("sessions", {"sessions": (builders.session(rev=5),)}, VersionConflictError),
    ("tasks", {"tasks": (builders.task(rev=5),)}, VersionConflictError),
    (
        "workflow",
        {"workflow": WorkflowRevision(builders.definition(id="old"), 3, at(1))},
        VersionConflictError,
    ),
    ("receipt", {"receipt": WebhookReceipt("01" * 32, at(600))}, WebhookReplayedError),
    (
        "idempotency",
        {"idempotency": IdempotencyRecord("old", "f", session_id(9), at(600))},
        IdempotencyKeyUsedError,
    ),
]


@pytest.mark.parametrize(
    ("culprit", "error"), [pytest.param(two, three, id=one) for one, two, three in CULPRITS]
)
async def test_all_is_written_or_nothing(
    storage: Storage, culprit: dict[str, Any], error: type[Exception]
) -> None:
    await storage.apply(
        Change(
            agents=(builders.agent("old"),),
            workflow=WorkflowRevision(builders.definition(id="old"), 1, at(0)),
            receipt=WebhookReceipt("01" * 32, at(600)),
            idempotency=IdempotencyRecord("old", "f", session_id(9), at(600)),
        )
    )
    session, task = one_run(1)
    good: dict[str, Any] = {
        "agents": (builders.agent(),),
        "sessions": (session,),
        "tasks": (task,),
        "workflow": WORKFLOW,
        "receipt": RECEIPT,
        "idempotency": KEY,
        "events": (Event(EventType.AGENT_REGISTERED, at(0), agent_id="a1"),),
    }
    bad = {
        key: (*good[key], *value) if isinstance(value, tuple) else value
        for key, value in culprit.items()
    }
    with pytest.raises(error):
        await storage.apply(Change(**{**good, **bad}))
    assert await storage.agent("a1") is None
    assert await storage.session(session.id) is None
    assert await storage.task_facts(task.id) is None
    assert await storage.workflow("flow") is None
    assert await storage.idempotency(KEY.key, at(0)) is None
    assert await events(storage) == ()
    counts = await storage.counts()
    assert (counts.agents, counts.sessions, counts.tasks, counts.waiting) == (1, 0, 0, 0)
    await storage.apply(Change(**good))
    assert await stored(storage, task) == task
    assert await storage.idempotency(KEY.key, at(0)) == KEY
    assert len(await events(storage)) == 1


# --- receipts and keys ------------------------------------------------------------------------


async def test_F58_a_receipt_is_taken_once(storage: Storage) -> None:
    await storage.apply(Change(receipt=RECEIPT))
    again = WebhookReceipt(RECEIPT.signature, at(900))
    with pytest.raises(WebhookReplayedError):
        await storage.apply(Change(receipt=again))
    await storage.apply(Change(receipt=WebhookReceipt("10" * 32, at(600))))


async def test_an_expired_receipt_is_forgotten(open_with: Opener) -> None:
    storage = await open_with(Retention())
    await storage.apply(Change(receipt=RECEIPT))
    await storage.prune(Retention(), at(599))
    with pytest.raises(WebhookReplayedError):
        await storage.apply(Change(receipt=RECEIPT))
    await storage.prune(Retention(), at(600))
    await storage.apply(Change(receipt=WebhookReceipt(RECEIPT.signature, at(1200))))


async def test_F99_a_key_is_used_once(storage: Storage) -> None:
    await storage.apply(Change(idempotency=KEY))
    assert await storage.idempotency("key-1", at(599)) == KEY
    assert await storage.idempotency("key-2", at(0)) is None
    other = IdempotencyRecord("key-1", "other", session_id(2), at(900))
    with pytest.raises(IdempotencyKeyUsedError):
        await storage.apply(Change(idempotency=other))
    assert await storage.idempotency("key-1", at(0)) == KEY


@pytest.mark.parametrize("pruned", [False, True])
async def test_an_expired_key_is_free_again(storage: Storage, pruned: bool) -> None:
    await storage.apply(Change(idempotency=KEY))
    if pruned:
        await storage.prune(Retention(), at(600))
    assert await storage.idempotency("key-1", at(600)) is None
    other = IdempotencyRecord("key-1", "other", session_id(2), at(1200))
    await storage.apply(Change(idempotency=other))
    assert await storage.idempotency("key-1", at(601)) == other


async def test_keys_that_have_not_expired_outlive_pruning(storage: Storage) -> None:
    await storage.apply(Change(idempotency=KEY))
    await storage.prune(Retention(), at(599))
    assert await storage.idempotency("key-1", at(599)) == KEY
