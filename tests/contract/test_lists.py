"""Lists: filters, cursors, and how much there is."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from opscore.exceptions import BadRequestError
from opscore.models import (
    AgentFilter,
    AgentState,
    Availability,
    Change,
    Hold,
    HoldReason,
    Page,
    SessionFilter,
    SessionStatus,
    Standing,
    StateWord,
    Task,
    TaskFilter,
    TaskStatus,
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at, dispatched
from tests.contract.shelf import bump, ended, one_run, put, queue, session_id

Reader = Callable[[str | None, int], Awaitable[Page[Any]]]


def readers(storage: Storage) -> dict[str, Reader]:
    """Every list that has a cursor."""
    return {
        "agents": lambda cursor, limit: storage.agents(AgentFilter(), cursor, limit),
        "workflows": storage.workflows,
        "sessions": lambda cursor, limit: storage.sessions(SessionFilter(), cursor, limit),
        "tasks": lambda cursor, limit: storage.tasks(TaskFilter(), cursor, limit),
        "tasks of a session": lambda cursor, limit: storage.tasks(
            TaskFilter(session_id=session_id(1)), cursor, limit
        ),
        "history": lambda cursor, limit: storage.agent_history("a1", cursor, limit),
    }


async def read_all(reader: Reader, limit: int) -> list[list[Any]]:
    pages, cursor = [], None
    while True:
        page = await reader(cursor, limit)
        pages.append(list(page.items))
        cursor = page.next_cursor
        if cursor is None:
            return pages


async def found_agents(storage: Storage, **where: Any) -> list[str]:
    page = await storage.agents(AgentFilter(**where), None, 100)
    return [one.agent.id for one in page.items]


async def found_sessions(storage: Storage, **where: Any) -> list[str]:
    page = await storage.sessions(SessionFilter(**where), None, 100)
    return [one.id for one in page.items]


async def found_tasks(storage: Storage, **where: Any) -> list[str]:
    page = await storage.tasks(TaskFilter(**where), None, 100)
    return [one.id for one in page.items]


# --- cursors ----------------------------------------------------------------------------------

WITH_NUL = "MjAyNi0wMS0wMVQxMjowMDowMCswMDowMCAA"
NOT_CURSORS = {
    "sessions": ["", "*", "ä", "bm90IGEgY3Vyc29y", "MjAyNi0wMS0wMVQxMjowMDowMCAx", WITH_NUL],
    "tasks": ["", "*", "ä", "bm90IGEgY3Vyc29y", "MjAyNi0wMS0wMVQxMjowMDowMCAx", WITH_NUL],
    "tasks of a session": ["*", "ä", "bm90IGEgY3Vyc29y", WITH_NUL, "AA"],
    "agents": ["*", "ä", "gICA", "AA"],
    "workflows": ["*", "ä", "gICA", "AA"],
    "history": ["*", "ä", "bm90IGEgY3Vyc29y", "LTE", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5"],
}


@pytest.mark.parametrize(
    ("name", "cursor"),
    [
        pytest.param(name, cursor, id=f"{name} {number}")
        for name, cursors in NOT_CURSORS.items()
        for number, cursor in enumerate(cursors)
    ],
)
async def test_a_cursor_that_was_not_given_out_is_refused(
    storage: Storage, name: str, cursor: str
) -> None:
    await queue(storage, [1])
    with pytest.raises(BadRequestError, match="start again without a cursor"):
        await readers(storage)[name](cursor, 10)


def test_the_refused_cursors_are_what_they_seem() -> None:
    assert base64.b64decode("bm90IGEgY3Vyc29y") == b"not a cursor"
    assert base64.b64decode("MjAyNi0wMS0wMVQxMjowMDowMCAx") == b"2026-01-01T12:00:00 1"
    assert base64.b64decode("LTE=") == b"-1"
    assert base64.b64decode("AA==") == b"\0"
    assert base64.b64decode(WITH_NUL) == b"2026-01-01T12:00:00+00:00 \0"


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5])])
@pytest.mark.parametrize("name", ["agents", "sessions", "tasks"])
async def test_pages_have_every_record_once_in_order(
    storage: Storage, name: str, limit: int, sizes: list[int]
) -> None:
    await put(storage, *(builders.agent(f"a{number}") for number in (3, 1, 5, 2, 4)))
    tasks = await queue(storage, range(5))
    pages = await read_all(readers(storage)[name], limit)
    assert [len(page) for page in pages] == sizes
    got = [record for page in pages for record in page]
    if name == "agents":
        assert [one.agent.id for one in got] == ["a1", "a2", "a3", "a4", "a5"]
    else:
        newest_first = [task.id for task in reversed(tasks)]
        by_session = [task.session_id for task in reversed(tasks)]
        assert [one.id for one in got] == (newest_first if name == "tasks" else by_session)


async def test_records_of_one_moment_are_neither_lost_nor_doubled(storage: Storage) -> None:
    numbers = [5, 2, 4, 1, 3, 6]
    tasks = await queue(storage, numbers, created_at=at(0))
    sessions = await read_all(readers(storage)["sessions"], 2)
    assert [one.id for page in sessions for one in page] == [
        session_id(number) for number in sorted(numbers, reverse=True)
    ]
    pages = await read_all(readers(storage)["tasks"], 4)
    assert [one.id for page in pages for one in page] == sorted(
        (task.id for task in tasks), reverse=True
    )


async def test_a_sessions_tasks_have_cursors_too(storage: Storage) -> None:
    session, task = one_run(1)
    await put(storage, session, task, *one_run(2))
    for number, moment in [(2, 5), (3, 5), (4, 9)]:
        values: dict[str, Any] = {"step_id": f"s{number}", "session_id": session.id}
        await put(storage, builders.task(**values, created_at=at(moment)))
    pages = await read_all(readers(storage)["tasks of a session"], 1)
    got = [one for page in pages for one in page]
    assert len(pages) == 4
    assert [one.step_id for one in got[::3]] == ["s4", "one"]
    assert [one.id for one in got[1:3]] == sorted((one.id for one in got[1:3]), reverse=True)


async def test_a_cursor_stays_good_while_records_come_and_change(storage: Storage) -> None:
    tasks = await queue(storage, range(6))
    first = await storage.tasks(TaskFilter(), None, 2)
    await queue(storage, [7, 8])
    await put(storage, ended(tasks[4]), ended(tasks[3]))
    second = await storage.tasks(TaskFilter(), first.next_cursor, 2)
    assert [one.id for one in second.items] == [tasks[3].id, tasks[2].id]
    assert second.items[0].status is TaskStatus.COMPLETED


async def test_pages_of_one_status_have_every_record_once(storage: Storage) -> None:
    tasks = await queue(storage, range(7))
    for task in tasks[::2]:
        session = await storage.session(task.session_id)
        assert session is not None
        done = bump(session, status=SessionStatus.COMPLETED, ended_at=at(1))
        await storage.apply(Change(sessions=(done,), tasks=(ended(task),)))
    finished = TaskFilter(frozenset({TaskStatus.COMPLETED}))
    pages = await read_all(lambda cursor, limit: storage.tasks(finished, cursor, limit), 2)
    assert [[one.id for one in page] for page in pages] == [
        [tasks[6].id, tasks[4].id],
        [tasks[2].id, tasks[0].id],
    ]
    running = SessionFilter(frozenset({SessionStatus.RUNNING}))
    found = await read_all(lambda cursor, limit: storage.sessions(running, cursor, limit), 3)
    assert [[one.id for one in page] for page in found] == [
        [tasks[number].session_id for number in (5, 3, 1)]
    ]


async def test_pages_of_several_statuses_have_every_record_once_newest_first(
    storage: Storage,
) -> None:
    tasks = await queue(storage, range(9))
    for task in tasks[::3]:
        session = await storage.session(task.session_id)
        assert session is not None
        failed = bump(session, status=SessionStatus.FAILED, ended_at=at(1))
        await storage.apply(Change(sessions=(failed,), tasks=(ended(task),)))
    either = SessionFilter(frozenset({SessionStatus.FAILED, SessionStatus.RUNNING}))
    pages = await read_all(lambda cursor, limit: storage.sessions(either, cursor, limit), 4)
    expected = [task.session_id for task in reversed(tasks)]
    assert [[one.id for one in page] for page in pages] == [
        expected[:4],
        expected[4:8],
        expected[8:],
    ]
    both = TaskFilter(frozenset({TaskStatus.QUEUED, TaskStatus.COMPLETED}))
    found = await read_all(lambda cursor, limit: storage.tasks(both, cursor, limit), 5)
    assert [one.id for page in found for one in page] == [task.id for task in reversed(tasks)]


async def test_a_cursor_of_agents_stays_good_while_agents_come_and_go(storage: Storage) -> None:
    await put(storage, *(builders.agent(f"a{number}") for number in (1, 3, 5, 7)))
    first = await storage.agents(AgentFilter(), None, 2)
    await put(storage, builders.agent("a2"), builders.agent("a4"))
    gone = builders.agent("a3", rev=2, standing=Standing.DEREGISTERED, standing_since=at(0))
    await put(storage, gone)
    second = await storage.agents(AgentFilter(), first.next_cursor, 2)
    assert [one.agent.id for one in second.items] == ["a4", "a5"]


# --- agents -----------------------------------------------------------------------------------

STATE = AgentState("BUSY", StateWord.ACTIVE, {}, at(0), at(0))


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, ["busy", "draining", "free", "held", "lost"]),
        ({"availabilities": {Availability.AVAILABLE}}, ["free"]),
        ({"availabilities": {Availability.BUSY}}, ["busy"]),
        ({"availabilities": {Availability.UNAVAILABLE}}, ["held"]),
        ({"availabilities": {Availability.DRAINING}}, ["draining"]),
        ({"availabilities": {Availability.LOST}}, ["lost"]),
        ({"availabilities": {Availability.DEREGISTERED}}, ["gone"]),
        ({"availabilities": {Availability.LOST, Availability.DEREGISTERED}}, ["gone", "lost"]),
        ({"availabilities": {Availability.BUSY, Availability.LOST}, "search": "l"}, ["lost"]),
        ({"capability": "painting"}, ["held"]),
        ({"capability": "paint"}, []),
        ({"state": "active"}, ["busy", "lost"]),
        ({"state": "Busy"}, ["busy", "lost"]),
        ({"state": "idle"}, []),
        ({"search": "AGENT FR"}, ["free"]),
        ({"search": "los"}, ["lost"]),
        ({"search": "%"}, []),
        ({"search": "_"}, []),
        ({"state": "active", "availabilities": {Availability.LOST}}, ["lost"]),
        ({"search": "free", "capability": "painting"}, []),
    ],
)
async def test_agents_that_match_by_id(
    storage: Storage, where: dict[str, Any], found: list[str]
) -> None:
    await put(
        storage,
        builders.agent("lost", standing=Standing.LOST, state=STATE),
        builders.agent("gone", standing=Standing.DEREGISTERED, standing_since=at(0)),
        builders.agent("free"),
        builders.agent("busy", state=STATE),
        builders.agent("draining", standing=Standing.DRAINING),
        builders.agent(
            "held", capabilities=("x", "painting"), hold=Hold(HoldReason.REPORTED_ERROR, at(0))
        ),
    )
    session, task = one_run(1)
    await put(
        storage, session, dispatched(id=task.id, agent_id="busy", session_id=session.id, rev=1)
    )
    assert await found_agents(storage, **where) == found


async def test_silent_agents_longest_silent_first(storage: Storage) -> None:
    await put(
        storage,
        builders.agent("a", last_seen_at=at(30), registered_at=at(0)),
        builders.agent("b", last_seen_at=at(20), registered_at=at(0)),
        builders.agent("never seen", registered_at=at(25)),
        builders.agent("draining", standing=Standing.DRAINING, last_seen_at=at(1)),
        builders.agent("lost", standing=Standing.LOST, last_seen_at=at(1)),
        builders.agent("gone", standing=Standing.DEREGISTERED, last_seen_at=at(1)),
        builders.agent("fresh", last_seen_at=at(40), registered_at=at(0)),
    )
    silent = await storage.silent_agents(at(40), 10)
    assert [one.id for one in silent] == ["b", "never seen", "a"]
    assert [one.id for one in await storage.silent_agents(at(40), 2)] == ["b", "never seen"]
    assert await storage.silent_agents(at(20), 10) == []


# --- sessions and tasks -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, [3, 2, 1]),
        ({"statuses": {SessionStatus.FAILED}}, [2]),
        ({"statuses": {SessionStatus.TIMED_OUT}}, []),
        ({"statuses": {SessionStatus.FAILED, SessionStatus.RUNNING}}, [3, 2, 1]),
        ({"statuses": {SessionStatus.FAILED, SessionStatus.TIMED_OUT}}, [2]),
        ({"statuses": set(SessionStatus), "agent_id": "a2"}, [2, 1]),
        ({"workflow_id": "other"}, [3]),
        ({"workflow_id": "othe"}, []),
        ({"agent_id": "a2"}, [2, 1]),
        ({"agent_id": "a2", "statuses": {SessionStatus.RUNNING}}, [1]),
        ({"search": "OTH"}, [3]),
        ({"search": "Nightly"}, [2]),
        ({"search": "000000000001"}, [1]),
        ({"search": "%"}, []),
    ],
)
async def test_sessions_that_match_newest_first(
    storage: Storage, where: dict[str, Any], found: list[int]
) -> None:
    flow, named = builders.definition(), builders.definition(name="The nightly build")
    other = builders.definition(id="other")
    await put(
        storage,
        builders.session(id=session_id(1), agent_id="a2", definition=flow, created_at=at(1)),
        builders.session(
            id=session_id(2),
            agent_id="a2",
            definition=named,
            status=SessionStatus.FAILED,
            ended_at=at(3),
            created_at=at(2),
        ),
        builders.session(id=session_id(3), agent_id="a3", definition=other, created_at=at(3)),
    )
    assert await found_sessions(storage, **where) == [session_id(number) for number in found]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, [3, 2, 1]),
        ({"statuses": {TaskStatus.QUEUED}}, [3, 1]),
        ({"statuses": {TaskStatus.TIMED_OUT}}, []),
        ({"statuses": {TaskStatus.QUEUED, TaskStatus.RUNNING}}, [3, 2, 1]),
        ({"statuses": {TaskStatus.RUNNING, TaskStatus.TIMED_OUT}}, [2]),
        ({"statuses": set(TaskStatus), "workflow_id": "flow"}, [2, 1]),
        ({"session_id": session_id(2)}, [2]),
        ({"session_id": session_id(9)}, []),
        ({"agent_id": "a1"}, [2]),
        ({"workflow_id": "other"}, [3]),
        ({"workflow_id": "flow", "statuses": {TaskStatus.QUEUED}}, [1]),
        ({"session_id": session_id(2), "statuses": {TaskStatus.QUEUED}}, []),
        ({"session_id": session_id(2), "agent_id": "a1", "workflow_id": "flow"}, [2]),
    ],
)
async def test_tasks_that_match_newest_first(
    storage: Storage, where: dict[str, Any], found: list[int]
) -> None:
    tasks: dict[int, Task] = {}
    for number, changes in enumerate(
        [{}, {"status": TaskStatus.RUNNING, "agent_id": "a1"}, {"workflow_id": "other"}], 1
    ):
        session, tasks[number] = one_run(number, **changes)
        await put(storage, session, tasks[number])
    assert await found_tasks(storage, **where) == [tasks[number].id for number in found]
