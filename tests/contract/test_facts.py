"""What decisions are made from."""

from typing import Any

import pytest

from opscore.exceptions import VersionConflictError
from opscore.models import (
    AgentState,
    RegistrationFacts,
    Standing,
    StateReport,
    StateWord,
    TaskFacts,
    TaskStatus,
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at, report
from tests.contract.shelf import bump, claim, one_run, put, session_id


async def test_what_is_unknown_is_none(storage: Storage) -> None:
    assert await storage.agent_facts("nobody") is None
    assert await storage.agent("nobody") is None
    assert await storage.task_facts(session_id(1)) is None
    assert await storage.session_facts(session_id(1)) is None
    assert await storage.session(session_id(1)) is None
    assert await storage.workflow("nothing") is None
    assert list(await storage.agent_tasks("nobody")) == []
    assert await storage.registration_facts("nobody", at(0)) == RegistrationFacts()


async def test_agent_facts_have_the_only_task_in_flight(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=2))
    session, task = one_run(1)
    await put(storage, session, task)
    waiting = await storage.agent_facts("a1")
    assert waiting is not None
    assert (waiting.in_flight, waiting.only, waiting.named) == (0, None, None)
    (claimed,) = await claim(storage)
    facts = await storage.agent_facts("a1")
    assert facts is not None
    assert (facts.in_flight, facts.named) == (1, None)
    assert facts.only == TaskFacts(claimed.task, session, facts.agent)
    registration = await storage.registration_facts("a1", at(0))
    assert registration.agent == facts.agent


async def test_an_agents_tasks_in_flight_are_told_oldest_dispatch_first(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=3))
    runs = [one_run(number) for number in range(3)]
    for session, task in runs:
        await put(storage, session, task)
    first = (await claim(storage, 1))[0].task
    second = (await claim(storage, 1, after=1))[0].task
    await put(storage, bump(first, status=TaskStatus.RUNNING, active_at=at(2)))
    third = (await claim(storage, 1, after=3))[0].task
    facts = await storage.agent_facts("a1")
    assert facts is not None
    assert (facts.in_flight, facts.only, facts.named) == (3, None, None)
    assert [one.id for one in await storage.agent_tasks("a1")] == [first.id, second.id, third.id]


@pytest.mark.parametrize("standing", [Standing.REGISTERED, Standing.DEREGISTERED])
async def test_agent_facts_have_the_named_task_wherever_it_is(
    storage: Storage, standing: Standing
) -> None:
    await put(storage, builders.agent("a1", standing=standing, standing_since=at(0)))
    await put(storage, builders.agent("a2"))
    session, task = one_run(1, status=TaskStatus.COMPLETED, agent_id="a2", ended_at=at(0))
    await put(storage, session, task)
    facts = await storage.agent_facts("a1", task.id)
    assert facts is not None
    assert facts.agent.id == "a1"
    assert (facts.in_flight, facts.only) == (0, None)
    assert facts.named is not None
    assert facts.named.task == task
    assert facts.named.session == session
    assert facts.named.agent is not None
    assert facts.named.agent.id == "a2"


async def test_a_named_task_that_is_unknown_is_none(storage: Storage) -> None:
    await put(storage, builders.agent())
    facts = await storage.agent_facts("a1", "no such task")
    assert facts is not None
    assert facts.named is None


@pytest.mark.parametrize("agent_id", [None, "never-registered"])
async def test_task_facts_without_an_agent(storage: Storage, agent_id: str | None) -> None:
    session, task = one_run(1, agent_id=agent_id)
    await put(storage, session, task)
    facts = await storage.task_facts(task.id)
    assert facts is not None
    assert (facts.task, facts.session, facts.agent) == (task, session, None)


async def test_task_facts_have_the_agent_that_last_had_it(storage: Storage) -> None:
    agent = builders.agent("a2")
    session, task = one_run(1, agent_id="a2", wanted_agent="a1")
    await put(storage, agent, session, task)
    facts = await storage.task_facts(task.id)
    assert facts is not None
    assert facts.agent == agent


async def test_session_facts_have_all_tasks_oldest_first(storage: Storage) -> None:
    session, first = one_run(1, status=TaskStatus.COMPLETED, ended_at=at(1))
    values: dict[str, Any] = {"session_id": session.id, "created_at": at(2)}
    await put(storage, session, first, *one_run(9))
    await put(storage, builders.task(step_id="two", **values))
    await put(storage, builders.task(step_id="three", **{**values, "created_at": at(3)}))
    await put(storage, bump(first, result="late news"))
    facts = await storage.session_facts(session.id)
    assert facts is not None
    assert facts.session == session
    assert [task.step_id for task in facts.tasks] == ["one", "two", "three"]
    assert facts.tasks[0].result == "late news"


# --- reports that come before their agent ------------------------------------------------------


async def kept(storage: Storage, agent_id: str = "a1", since: float = 0) -> StateReport | None:
    return (await storage.registration_facts(agent_id, at(since))).early_report


def state_of(word: str, details: dict[str, Any]) -> AgentState:
    return AgentState(word, StateWord(word), details, at(0), at(0))


@pytest.mark.parametrize(("since", "found"), [(9, True), (10, True), (10.001, False)])
async def test_F47_an_early_report_is_kept_for_a_while(
    storage: Storage, since: float, found: bool
) -> None:
    early = report("idle", when=3.5, size=17, opscore_task_id=None, nested={"a": [1]})
    await storage.keep_early_report(early, at(10))
    assert await kept(storage, since=since) == (early if found else None)
    assert await kept(storage, "a2") is None


async def test_F47_the_newest_early_report_counts(storage: Storage) -> None:
    await storage.keep_early_report(report("initializing"), at(1))
    await storage.keep_early_report(report("idle"), at(2))
    assert await kept(storage) == report("idle")
    assert await kept(storage, since=2) == report("idle")


async def test_F47_storing_the_new_agent_drops_its_early_report_alone(storage: Storage) -> None:
    await storage.keep_early_report(report(), at(1))
    await storage.keep_early_report(report(agent_id="a2"), at(1))
    await put(storage, builders.agent(state=state_of("idle", {})))
    assert await kept(storage) is None
    assert await kept(storage, "a2") == report(agent_id="a2")


@pytest.mark.parametrize(
    ("word", "details", "registered", "stored"),
    [
        ("idle", {"n": 1}, 70, True),
        ("error", {"n": 1}, 70, False),
        ("idle", {"n": 2}, 70, False),
        (None, {}, 70, False),
        (None, {}, 70.001, True),
    ],
)
async def test_F47_a_new_agent_has_the_state_that_its_early_report_says(
    storage: Storage, word: str | None, details: dict[str, Any], registered: float, stored: bool
) -> None:
    await storage.keep_early_report(report("idle", n=1), at(10))
    state = state_of(word, details) if word else None
    agent = builders.agent(registered_at=at(registered), state=state)
    if stored:
        await put(storage, agent)
    else:
        with pytest.raises(VersionConflictError):
            await put(storage, agent)
    assert (await storage.agent("a1") is not None) is stored
    assert await kept(storage) == (None if stored else report("idle", n=1))


async def test_F17_early_reports_are_bounded_and_the_newest_stay(storage: Storage) -> None:
    for number in range(1500):
        await storage.keep_early_report(report(agent_id=f"a{number}"), at(number / 1000))
    await storage.keep_early_report(report(agent_id="a1000"), at(2))
    remaining = [number for number in range(1500) if await kept(storage, f"a{number}")]
    assert remaining[-500:] == list(range(1000, 1500))
    assert 0 not in remaining
    assert len(remaining) < 1500
