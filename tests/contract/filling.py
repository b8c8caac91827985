"""Fills a storage with a bit of everything, and watches how its queues go on."""

import random
from typing import Any

from opscore.models import (
    AgentKitKnowledge,
    Change,
    ClaimScope,
    Event,
    EventType,
    Forwards,
    Hold,
    HoldReason,
    IdempotencyRecord,
    MessageType,
    SessionStatus,
    Standing,
    Task,
    TaskStatus,
    WebhookReceipt,
    WorkflowRevision,
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at
from tests.contract.shelf import bump, claim, ended, one_run, put

TOOL = MessageType.TOOL_INVOCATION
LANES: tuple[dict[str, Any], ...] = (
    {"wanted_agent": "a1"},
    {"wanted_agent": None, "wanted_capability": "research"},
    {"wanted_agent": None, "wanted_capability": "research", "preferred_agent": "a3"},
    {"wanted_agent": None, "wanted_capability": "writing", "message_type": TOOL},
)
SCOPES = (*ClaimScope, ClaimScope.ALL)
HOLD = Hold(HoldReason.REPORTED_ACTIVE, at(0), at(900))


async def fill(storage: Storage, seed: int, runs: int = 60) -> None:
    """A bit of everything: tasks in every status, served turns, histories, and what expires."""
    chance = random.Random(seed)
    await _put_agents(storage, chance)
    for number in range(runs):
        await _put_run(storage, chance, number)
        if number % 20 == 19:
            for one in await claim(storage, 6, after=number):
                await _go_on(storage, chance, one.task)
    await _put_the_rest(storage)


async def _put_agents(storage: Storage, chance: random.Random) -> None:
    for number in range(6):
        capabilities = ("research",) if number % 2 else ("research", "writing")
        agent = builders.agent(
            f"a{number}", capabilities=capabilities, concurrency=chance.randint(1, 3)
        )
        await put(storage, agent)
    gone = {"standing": Standing.DEREGISTERED, "standing_since": at(3), "deregistered_at": at(3)}
    await put(storage, builders.agent("gone", **gone), builders.agent("held", hold=HOLD))


async def _put_run(storage: Storage, chance: random.Random, number: int) -> None:
    session, task = one_run(
        number,
        workflow_id=chance.choice(["flow", "other", "third"]),
        priority=chance.randint(0, 3),
        **chance.choice(LANES),
    )
    await put(storage, session, task)
    match chance.randrange(6):
        case 0:
            await put(storage, bump(task, status=TaskStatus.CANCELLED, ended_at=at(1)))
        case 1:
            await put(storage, bump(task, status=TaskStatus.DELAYED, delayed_until=at(500)))
        case 2:
            await put(storage, bump(task, priority=(task.priority + 1) % 4))


async def _go_on(storage: Storage, chance: random.Random, task: Task) -> None:
    match chance.randrange(3):
        case 0:
            facts = await storage.session_facts(task.session_id)
            assert facts is not None
            over = bump(facts.session, status=SessionStatus.COMPLETED, ended_at=at(2))
            await put(storage, over, ended(task))
        case 1:
            await put(storage, bump(task, status=TaskStatus.QUEUED, agent_id=None, owner=None))


async def _put_the_rest(storage: Storage) -> None:
    for revision in (1, 2):
        definition = builders.definition(id="saved", description=f"as of {revision}")
        await storage.apply(Change(workflow=WorkflowRevision(definition, revision, at(revision))))
    for number in range(3):
        receipt = WebhookReceipt(f"{number:064}", at(300 + number))
        record = IdempotencyRecord(f"k{number}", "f", builders.SESSION, at(900 + number), "flow")
        report = Event(EventType.AGENT_STATE, at(number), "a1", data={"state": "idle", "n": 1.0})
        await storage.apply(Change(receipt=receipt, idempotency=record, events=(report,)))
        address = f"http://agentkit-{number}:8080"
        learned = AgentKitKnowledge(address, Forwards.DISPROVED, at(1), at(601), rev=1)
        await storage.apply(Change(agentkit=learned))
        await storage.keep_early_report(builders.report(agent_id=f"e{number}"), at(9 + number))


async def claims_in_turn(storage: Storage, seed: int) -> list[tuple[str, str]]:
    """Who gets what, when some end, some come back and new ones arrive in between."""
    chance = random.Random(seed)
    seen: list[tuple[str, str]] = []
    for round_ in range(12):
        claims = await claim(storage, 4, after=100 + round_, scope=SCOPES[round_ % len(SCOPES)])
        seen += [(one.task.id, one.agent.id) for one in claims]
        for one in claims:
            back = {"status": TaskStatus.QUEUED, "agent_id": None, "owner": None}
            again = bump(one.task, **back) if chance.random() < 0.2 else ended(one.task)
            await put(storage, again)
        session, task = one_run(1000 + round_, workflow_id="late", **LANES[round_ % len(LANES)])
        await put(storage, session, task)
    return seen
