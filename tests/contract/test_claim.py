"""Who gets which task, and in which order."""

import asyncio
import time
from collections import Counter
from itertools import chain
from typing import Any

import pytest

from opscore.models import (
    NO_AGENT,
    Change,
    ClaimScope,
    EventType,
    Hold,
    HoldReason,
    MessageType,
    Retention,
    Standing,
    TaskStatus,
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at
from tests.contract.conftest import Opener
from tests.contract.shelf import (
    agents_of,
    bump,
    claim,
    ended,
    events,
    one_run,
    put,
    queue,
    stored,
    tasks_of,
)

BY_CAPABILITY: dict[str, Any] = {"wanted_agent": None, "wanted_capability": "research"}


# --- what a claim is --------------------------------------------------------------------------


async def test_a_claim_is_stored_and_told(storage: Storage) -> None:
    agent = builders.agent()
    session, task = one_run(1, attempt=2)
    await put(storage, agent, session, task)
    claims = await storage.claim("d1", at(5), at(20), 10)
    assert len(claims) == 1
    claimed = claims[0].task
    assert claimed == bump(
        task,
        status=TaskStatus.DISPATCHED,
        attempt=3,
        agent_id="a1",
        owner="d1",
        lease_until=at(20),
        dispatched_at=at(5),
    )
    assert (claims[0].session, claims[0].agent) == (session, agent)
    assert await stored(storage, task) == claimed
    (event,) = await events(storage)
    assert (event.type, event.at) == (EventType.TASK_DISPATCHED, at(5))
    assert (event.agent_id, event.session_id, event.task_id) == ("a1", session.id, task.id)
    assert event.data["attempt"] == 3
    assert event.data["stepId"] == "one"
    assert await claim(storage) == []


@pytest.mark.parametrize("limit", [0, 1, 2, 5])
async def test_no_more_than_the_limit(storage: Storage, limit: int) -> None:
    await put(storage, builders.agent(concurrency=3))
    await queue(storage, range(4))
    assert len(await claim(storage, limit)) == min(limit, 3)


# --- ready or not -----------------------------------------------------------------------------

NOT_READY: dict[str, tuple[dict[str, Any] | None, dict[str, Any]]] = {
    "no agent": (None, {}),
    "draining": ({"standing": Standing.DRAINING, "standing_since": at(0)}, {}),
    "lost": ({"standing": Standing.LOST, "standing_since": at(0)}, {}),
    "deregistered": ({"standing": Standing.DEREGISTERED, "standing_since": at(0)}, {}),
    "on hold": ({"hold": Hold(HoldReason.REPORTED_ERROR, at(0))}, {}),
    "hold past its end": ({"hold": Hold(HoldReason.REPORTED_ACTIVE, at(-9), at(-1))}, {}),
    "another agent": ({}, {"wanted_agent": "a2"}),
    "another capability": ({}, {"wanted_agent": None, "wanted_capability": "painting"}),
    "delayed": ({}, {"status": TaskStatus.DELAYED, "delayed_until": at(-1)}),
    "running": ({}, {"status": TaskStatus.RUNNING, "agent_id": "a2"}),
    "ended": ({}, {"status": TaskStatus.COMPLETED, "ended_at": at(0)}),
}


@pytest.mark.parametrize(("agent", "task"), NOT_READY.values(), ids=NOT_READY)
async def test_not_ready(
    storage: Storage, agent: dict[str, Any] | None, task: dict[str, Any]
) -> None:
    if agent is not None:
        await put(storage, builders.agent(**agent))
    await queue(storage, [1], **task)
    assert await claim(storage) == []


async def test_an_agent_registered_later_gets_what_waits(storage: Storage) -> None:
    tasks = await queue(storage, [1, 2])
    assert await claim(storage) == []
    await put(storage, builders.agent())
    assert tasks_of(await claim(storage)) == [tasks[0].id]


async def test_an_agent_is_ready_again_when_its_hold_or_its_task_ends(storage: Storage) -> None:
    agent = builders.agent(hold=Hold(HoldReason.REPORTED_ACTIVE, at(0)))
    await put(storage, agent)
    tasks = await queue(storage, [1, 2])
    assert await claim(storage) == []
    await put(storage, bump(agent, hold=None))
    (first,) = await claim(storage)
    assert first.task.id == tasks[0].id
    assert await claim(storage) == []
    running = bump(first.task, status=TaskStatus.RUNNING)
    await put(storage, running)
    assert await claim(storage) == []
    await put(storage, ended(running))
    assert tasks_of(await claim(storage)) == [tasks[1].id]


async def test_an_agent_that_leaves_gets_nothing_more(storage: Storage) -> None:
    agent = builders.agent(concurrency=5)
    await put(storage, agent)
    await queue(storage, [1, 2])
    assert len(await claim(storage, 1)) == 1
    gone = bump(agent, standing=Standing.DRAINING, standing_since=at(1))
    await put(storage, gone)
    assert await claim(storage) == []
    await put(storage, bump(gone, standing=Standing.REGISTERED))
    assert len(await claim(storage)) == 1


async def test_a_cancelled_task_is_not_handed_out(storage: Storage) -> None:
    tasks = await queue(storage, [1, 2])
    await put(storage, bump(tasks[0], status=TaskStatus.CANCELLED, ended_at=at(1)))
    await put(storage, builders.agent(concurrency=5))
    assert tasks_of(await claim(storage)) == [tasks[1].id]


# --- routing ----------------------------------------------------------------------------------


async def test_a_task_for_an_agent_goes_to_no_other(storage: Storage) -> None:
    await put(storage, builders.agent("a1"), builders.agent("a2"))
    await queue(storage, [1, 2], wanted_agent="a2")
    assert agents_of(await claim(storage)) == ["a2"]


async def test_a_capability_is_served_by_any_agent_that_has_it(storage: Storage) -> None:
    await put(storage, builders.agent("a1", capabilities=("x",)))
    await put(storage, builders.agent("a2", capabilities=("x", "research")))
    await put(storage, builders.agent("a3", capabilities=("research",)))
    await queue(storage, range(3), **BY_CAPABILITY)
    assert sorted(agents_of(await claim(storage))) == ["a2", "a3"]


async def test_a_capability_may_begin_with_another_one_and_a_slash(storage: Storage) -> None:
    both = ("text", "text/html")
    await put(storage, builders.agent("a1", capabilities=both))
    await put(storage, builders.agent("a2", capabilities=both))
    (html,) = await queue(storage, [1], wanted_agent=None, wanted_capability="text/html")
    assert tasks_of(await claim(storage)) == [html.id]
    (plain,) = await queue(storage, [2], wanted_agent=None, wanted_capability="text")
    assert tasks_of(await claim(storage)) == [plain.id]


# Fewer and more than are looked at one by one.
@pytest.mark.parametrize("idle", [1, 60, 2100])
@pytest.mark.parametrize("busy", [1, 60])
async def test_what_is_ready_is_found_among_idle_agents_and_busy_lanes(
    storage: Storage, idle: int, busy: int
) -> None:
    at_work = [builders.agent(f"busy-{number:02}") for number in range(busy)]
    await put(storage, *at_work)
    for number, agent in enumerate(at_work):
        await queue(storage, [2 * number, 2 * number + 1], wanted_agent=agent.id)
    assert agents_of(await claim(storage)) == [agent.id for agent in at_work]
    await put(storage, *(builders.agent(f"idle-{number:04}") for number in range(idle)))
    assert await claim(storage) == []
    (ready,) = await queue(storage, [1000], wanted_agent=f"idle-{idle - 1:04}")
    assert tasks_of(await claim(storage)) == [ready.id]


async def test_an_agent_that_learns_or_forgets_a_capability(storage: Storage) -> None:
    agent = builders.agent(capabilities=(), concurrency=5)
    await put(storage, agent)
    await queue(storage, [1, 2], **BY_CAPABILITY)
    assert await claim(storage) == []
    taught = bump(agent, capabilities=("research",))
    await put(storage, taught)
    assert len(await claim(storage, 1)) == 1
    await put(storage, bump(taught, capabilities=("other",)))
    assert await claim(storage) == []


async def test_a_task_that_falls_back_waits_for_the_other_capability(storage: Storage) -> None:
    (task,) = await queue(storage, [1], wanted_agent=None, wanted_capability="painting")
    await put(storage, bump(task, wanted_capability="research", fell_back=True))
    await put(storage, builders.agent("a1", capabilities=("painting",)))
    assert await claim(storage) == []
    await put(storage, builders.agent("a2", capabilities=("research",)))
    assert agents_of(await claim(storage)) == ["a2"]


PREFERRED: dict[str, tuple[dict[str, Any], str]] = {
    "free": ({}, "a3"),
    "on hold": ({"hold": Hold(HoldReason.REPORTED_ERROR, at(0))}, "a1"),
    "lost": ({"standing": Standing.LOST}, "a1"),
    "without the capability": ({"capabilities": ("x",)}, "a1"),
}


@pytest.mark.parametrize(("changes", "chosen"), PREFERRED.values(), ids=PREFERRED)
async def test_the_preferred_agent_goes_first_if_it_can(
    storage: Storage, changes: dict[str, Any], chosen: str
) -> None:
    await put(storage, builders.agent("a1"), builders.agent("a2"), builders.agent("a3", **changes))
    await queue(storage, [1], preferred_agent="a3", **BY_CAPABILITY)
    assert agents_of(await claim(storage)) == [chosen]


async def test_a_preferred_agent_that_is_full_or_unknown_holds_nothing_up(
    storage: Storage,
) -> None:
    await put(storage, builders.agent("a1"), builders.agent("a2"))
    await queue(storage, [1, 2], preferred_agent="a2", **BY_CAPABILITY)
    assert agents_of(await claim(storage)) == ["a2", "a1"]
    await put(storage, builders.agent("a3"))
    await queue(storage, [3], preferred_agent="nobody", **BY_CAPABILITY)
    assert agents_of(await claim(storage)) == ["a3"]


async def test_the_least_recently_used_agent_goes_first_ties_by_id(storage: Storage) -> None:
    await put(storage, builders.agent("b"), builders.agent("c"), builders.agent("a"))
    await queue(storage, range(7), **BY_CAPABILITY)
    used: list[str] = []
    for moment in range(7):
        (one,) = await claim(storage, 1, after=moment)
        used += [one.agent.id]
        await put(storage, ended(one.task))
    assert used == ["a", "b", "c", "a", "b", "c", "a"]


async def test_being_preferred_counts_as_use(storage: Storage) -> None:
    await put(storage, builders.agent("a"), builders.agent("b"))
    await queue(storage, [1], preferred_agent="b", **BY_CAPABILITY)
    await queue(storage, [2, 3], **BY_CAPABILITY)
    used: list[str] = []
    for moment in range(3):
        (one,) = await claim(storage, 1, after=moment)
        used += [one.agent.id]
        await put(storage, ended(one.task))
    assert used == ["b", "a", "b"]


async def test_agents_share_the_work_of_one_claim(storage: Storage) -> None:
    await put(storage, *(builders.agent(name, concurrency=2) for name in ("a", "b", "c")))
    await queue(storage, range(9), **BY_CAPABILITY)
    assert agents_of(await claim(storage, 3)) == ["a", "b", "c"]
    assert agents_of(await claim(storage, after=1)) == ["a", "b", "c"]
    assert await claim(storage) == []


@pytest.mark.parametrize(
    ("concurrency", "on_trial", "expected"),
    [(1, False, 1), (3, False, 3), (3, True, 1), (1, True, 1)],
)
async def test_an_agent_has_its_concurrency_and_one_slot_while_on_trial(
    storage: Storage, concurrency: int, on_trial: bool, expected: int
) -> None:
    await put(storage, builders.agent(concurrency=concurrency, on_trial=on_trial))
    await queue(storage, range(5))
    assert len(await claim(storage)) == expected
    assert await claim(storage) == []
    candidate = await storage.agent("a1")
    assert candidate is not None
    assert candidate.in_flight == expected


async def test_fewer_slots_than_tasks_in_flight_means_no_more_until_enough_end(
    storage: Storage,
) -> None:
    agent = builders.agent(concurrency=3)
    await put(storage, agent)
    await queue(storage, range(5))
    claims = await claim(storage)
    await put(storage, bump(agent, concurrency=1))
    await put(storage, ended(claims[0].task))
    await put(storage, ended(claims[1].task))
    assert await claim(storage) == []
    await put(storage, ended(claims[2].task))
    assert len(await claim(storage)) == 1


# --- scopes -----------------------------------------------------------------------------------

TOOL: dict[str, Any] = {"message_type": MessageType.TOOL_INVOCATION}


@pytest.mark.fault("F102")
@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        (ClaimScope.ALL, "wh wr th tr"),
        (ClaimScope.WITHOUT_TOOLS, "wh wr"),
        (ClaimScope.DIRECT, "wr"),
        (ClaimScope.DIRECT_AND_TOOLS, "wr th tr"),
    ],
)
async def test_claim_takes_only_the_pairs_of_its_scope(
    storage: Storage, scope: ClaimScope, expected: str
) -> None:
    """Tasks (w) and tools (t), of an agent that is reachable (r) and of one that is hidden (h)."""
    await put(storage, builders.agent("r", concurrency=9))
    await put(storage, builders.agent("h", concurrency=9, contact_endpoint=None))
    names: dict[str, str] = {}
    for number, name in enumerate(["wh", "wr", "th", "tr"]):
        kind: dict[str, Any] = TOOL if name[0] == "t" else {}
        (task,) = await queue(storage, [number], wanted_agent=name[1], **kind)
        names[task.id] = name
    claims = await claim(storage, scope=scope)
    assert [names[one] for one in tasks_of(claims)] == expected.split()
    assert await claim(storage, scope=scope) == []
    assert len(await claim(storage)) == 4 - len(claims)


@pytest.mark.fault("F102")
async def test_claim_of_direct_scope_chooses_among_reachable_agents(storage: Storage) -> None:
    hidden = builders.agent("a1", concurrency=9, contact_endpoint=None)
    await put(storage, hidden, builders.agent("a2"), builders.agent("a3"))
    wish = {**BY_CAPABILITY, "preferred_agent": "a1"}
    await queue(storage, range(4), **wish)
    assert agents_of(await claim(storage, scope=ClaimScope.DIRECT)) == ["a2", "a3"]
    assert await claim(storage, scope=ClaimScope.DIRECT) == []
    assert agents_of(await claim(storage)) == ["a1", "a1"]


async def test_endpoint_that_is_given_or_taken_away_counts_for_the_next_claim(
    storage: Storage,
) -> None:
    who = builders.agent(concurrency=9)
    await put(storage, who)
    hidden = bump(who, contact_endpoint=None)
    await put(storage, hidden)
    (task,) = await queue(storage, [1])
    assert await claim(storage, scope=ClaimScope.DIRECT) == []
    await put(storage, bump(hidden, contact_endpoint="http://127.0.0.1:9/x"))
    assert tasks_of(await claim(storage, scope=ClaimScope.DIRECT)) == [task.id]


# --- many at once -----------------------------------------------------------------------------


async def test_F11_eight_claimers_at_once_never_share_a_task(storage: Storage) -> None:
    await put(storage, *(builders.agent(f"a{number}", concurrency=10) for number in range(10)))
    tasks = await queue(storage, range(150), **BY_CAPABILITY)

    async def take(owner: str) -> list[tuple[str, str]]:
        taken: list[tuple[str, str]] = []
        while claims := await claim(storage, 3, owner=owner):
            taken += [(one.task.id, one.agent.id) for one in claims]
            assert {one.task.owner for one in claims} == {owner}
            await asyncio.sleep(0)
        return taken

    parts = await asyncio.gather(*(take(f"d{number}") for number in range(8)))
    taken = [pair for part in parts for pair in part]
    assert len(taken) == 100
    assert len({task_id for task_id, _ in taken}) == 100
    assert {task_id for task_id, _ in taken} < {task.id for task in tasks}
    assert set(Counter(agent_id for _, agent_id in taken).values()) == {10}


async def test_many_agents_come_and_go_without_losing_their_place(storage: Storage) -> None:
    """More changes than any index would keep without tidying up."""
    agents = [builders.agent(f"a{number:03}") for number in range(20)]
    await put(storage, *agents)
    hold = Hold(HoldReason.REPORTED_ACTIVE, at(0))
    for _ in range(20):
        agents = [bump(one, hold=hold) for one in agents]
        await storage.apply(Change(agents=tuple(agents)))
        agents = [bump(one, hold=None) for one in agents]
        await storage.apply(Change(agents=tuple(agents)))
    tasks = await queue(storage, range(200), **BY_CAPABILITY)
    for task in tasks[:190]:
        await put(storage, bump(task, status=TaskStatus.CANCELLED, ended_at=at(0)))
    claims = await claim(storage)
    assert agents_of(claims) == [one.id for one in agents[:10]]
    assert tasks_of(claims) == [task.id for task in tasks[190:]]


_ROUNDS = 5


async def test_claim_of_2000_tasks_takes_at_most_22_times_as_long_as_one_of_100(
    open_with: Opener,
) -> None:
    """Twenty claims of 100 take about as long as one of 2,000, so noise meets both alike."""
    ratios = []
    for _ in range(_ROUNDS):
        parts = await _time_of_claims(await open_with(Retention()), 20, 100)
        whole = await _time_of_claims(await open_with(Retention()), 1, 2000)
        ratios.append(20 * whole / parts)
        if ratios[-1] <= 22:
            break
    assert min(ratios) <= 22


async def _time_of_claims(storage: Storage, claims: int, size: int) -> float:
    """Two agents share all tasks; the seconds that it takes to claim them in so many claims."""
    count = claims * size
    await put(storage, *(builders.agent(one, concurrency=count // 2) for one in ("a1", "a2")))
    lane = {"wanted_agent": None, "wanted_capability": "research"}
    runs = [one_run(number, **lane) for number in range(count)]
    await asyncio.gather(*(put(storage, *run) for run in runs))
    began = time.perf_counter()
    claimed = [agents_of(await claim(storage, size)) for _ in range(claims)]
    taken = time.perf_counter() - began
    assert Counter(chain.from_iterable(claimed)) == {"a1": count // 2, "a2": count // 2}
    return taken


# --- tool steps -------------------------------------------------------------------------------


@pytest.mark.fault("F125")
@pytest.mark.parametrize("wanted", [{}, BY_CAPABILITY, {"wanted_agent": "nobody"}])
async def test_tool_step_needs_no_agent_and_takes_no_slot(
    storage: Storage, wanted: dict[str, Any]
) -> None:
    session, task = one_run(1, **TOOL, **wanted)
    await put(storage, builders.agent(concurrency=1), session, task)
    other_session, other = one_run(2)
    await put(storage, other_session, other)
    claims = await storage.claim("d1", at(5), at(20), 10)
    by_task = {one.task.id: one for one in claims}
    assert by_task[task.id].agent == NO_AGENT
    claimed = by_task[task.id].task
    assert (claimed.agent_id, claimed.attempt, claimed.owner) == (None, 1, "d1")
    assert by_task[other.id].agent.id == "a1"
    candidate = await storage.agent("a1")
    assert candidate is not None
    assert candidate.in_flight == 1
    assert await storage.claim("d1", at(6), at(20), 10) == []


async def test_tool_step_is_claimed_where_no_agent_is_registered(storage: Storage) -> None:
    session, task = one_run(1, **TOOL)
    await put(storage, session, task)
    (one,) = await storage.claim("d1", at(5), at(20), 10)
    assert one.task.id == task.id
    assert (await storage.renew("d1", [task.id], at(40))) == {task.id}


async def test_tool_steps_and_other_tasks_share_one_order(storage: Storage) -> None:
    await put(storage, builders.agent(concurrency=9))
    expected = []
    for number, priority in ((1, 2), (2, 7), (3, 5), (4, 9)):
        session, task = one_run(number, priority=priority, **(TOOL if number % 2 else {}))
        await put(storage, session, task)
        expected.append((-priority, task.id))
    claimed = [(await storage.claim("d1", at(5), at(20), 1))[0].task.id for _ in range(4)]
    assert claimed == [task_id for _, task_id in sorted(expected)]


async def test_tool_step_for_a_deregistered_agent_is_not_stranded(storage: Storage) -> None:
    gone = builders.agent(standing=Standing.DEREGISTERED, deregistered_at=at(-5))
    session, task = one_run(1, **TOOL)
    await put(storage, gone, session, task)
    assert await storage.stranded(10) == []
    assert len(await storage.claim("d1", at(5), at(20), 10)) == 1
