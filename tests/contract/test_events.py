"""The event log: sequence, filters, and the history of an agent."""

from typing import Any

import pytest

from opscore.exceptions import VersionConflictError
from opscore.models import Change, Event, EventFilter, EventType, Retention
from opscore.storage import Storage
from tests import builders
from tests.builders import at
from tests.contract.conftest import Opener
from tests.contract.shelf import events, put, session_id


async def append(storage: Storage, *given: Event) -> None:
    """With the sessions that they name, where these are not there yet."""
    named = {one.session_id for one in given if one.session_id}
    new = [one for one in sorted(named) if await storage.session(one) is None]
    sessions = tuple(builders.session(id=one) for one in new)
    await storage.apply(Change(sessions=sessions, events=given))


async def append_alone(storage: Storage, *given: Event) -> None:
    await storage.apply(Change(events=given))


def state_event(moment: float, agent_id: str = "a1") -> Event:
    return Event(EventType.AGENT_STATE, at(moment), agent_id=agent_id, data={"moment": moment})


async def test_events_come_back_with_rising_numbers(storage: Storage) -> None:
    data = {"list": [1, None], "text": "é", "deep": {"a": 0.5}}
    given = Event(EventType.TASK_QUEUED, at(0.5), "a1", session_id(1), "t1", data)
    await append(storage, given, Event(EventType.SESSION_STARTED, at(1)))
    await append(storage, Event(EventType.TASK_LATE, at(0)))
    got = await events(storage)
    numbers = [event.seq for event in got]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > 0
    assert got[0] == Event(
        EventType.TASK_QUEUED, at(0.5), "a1", session_id(1), "t1", data, numbers[0]
    )
    assert [event.type for event in got[1:]] == [EventType.SESSION_STARTED, EventType.TASK_LATE]


async def test_a_refused_change_leaves_no_event(storage: Storage) -> None:
    await put(storage, builders.agent())
    with pytest.raises(VersionConflictError):
        await storage.apply(Change(agents=(builders.agent(),), events=(state_event(0),)))
    assert await events(storage) == ()
    assert (await storage.agent_history("a1", None, 10)).items == ()


async def test_F17_an_event_of_a_session_that_is_not_stored_is_refused(storage: Storage) -> None:
    event = Event(EventType.TASK_LATE, at(0), "a1", session_id(1))
    with pytest.raises(VersionConflictError):
        await append_alone(storage, event)
    assert (await events(storage), (await storage.counts()).events) == ((), 0)
    await append(storage, event)
    await append_alone(storage, event)
    assert len(await events(storage, session_id=session_id(1))) == 2


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"types": {EventType.TASK_COMPLETED}}, [2]),
        ({"types": {EventType.TASK_QUEUED, EventType.TASK_COMPLETED}}, [1, 2]),
        ({"types": {EventType.SESSION_FAILED}}, []),
        ({"types": {EventType.AGENT_LOST, EventType.AGENT_STATE}}, [0, 3]),
        ({"types": set(EventType)}, [0, 1, 2, 3, 4]),
        ({"agent_id": "a1"}, [0, 1]),
        ({"session_id": session_id(1)}, [1, 2]),
        ({"session_id": session_id(9)}, []),
        ({"session_id": session_id(1), "types": {EventType.TASK_COMPLETED}}, [2]),
        ({"task_id": "t1"}, [1, 2]),
        ({"task_id": "t1", "agent_id": "a1"}, [1]),
        ({"since": at(2)}, [2, 3, 4]),
        ({"since": at(2), "session_id": session_id(1)}, [2]),
    ],
)
async def test_events_that_match_oldest_first(
    storage: Storage, where: dict[str, Any], found: list[int]
) -> None:
    await append(
        storage,
        Event(EventType.AGENT_STATE, at(0), "a1"),
        Event(EventType.TASK_QUEUED, at(1), "a1", session_id(1), "t1"),
        Event(EventType.TASK_COMPLETED, at(2), "a2", session_id(1), "t1"),
        Event(EventType.AGENT_LOST, at(3), "a2"),
        Event(EventType.SESSION_STARTED, at(4), None, session_id(2)),
    )
    first = (await events(storage))[0].seq
    assert [event.seq - first for event in await events(storage, **where)] == found


async def test_a_reader_goes_on_where_it_stopped_also_after_finding_nothing(
    storage: Storage,
) -> None:
    await append(storage, *(state_event(number, f"a{number % 3}") for number in range(9)))
    whole = await storage.events(EventFilter(), 0, 100)
    assert whole.next_cursor == str(whole.items[-1].seq)
    part = await storage.events(EventFilter(), 0, 4)
    assert part.items == whole.items[:4]
    assert part.next_cursor == str(whole.items[3].seq)
    rest = await storage.events(EventFilter(), int(part.next_cursor), 100)
    assert rest.items == whole.items[4:]
    nothing = await storage.events(EventFilter(frozenset({EventType.SESSION_STARTED})), 0, 4)
    assert nothing.items == ()
    assert nothing.next_cursor == whole.next_cursor
    end = await storage.events(EventFilter(), int(whole.next_cursor), 4)
    assert (end.items, end.next_cursor) == ((), whole.next_cursor)
    await append(storage, state_event(99))
    news = await storage.events(EventFilter(), int(whole.next_cursor), 4)
    assert [event.at for event in news.items] == [at(99)]


@pytest.mark.parametrize("where", [{"agent_id": "a1"}, {"session_id": session_id(1)}])
async def test_a_filtered_reader_misses_nothing(storage: Storage, where: dict[str, Any]) -> None:
    for number in range(30):
        mine = number % 4 == 0
        await append(
            storage,
            Event(
                EventType.TASK_RUNNING,
                at(number),
                agent_id="a1" if mine else "a2",
                session_id=session_id(1 if mine else 2),
            ),
        )
    got: list[Event] = []
    after = 0
    for _ in range(4):
        page = await storage.events(EventFilter(**where), after, 3)
        got += page.items
        assert page.next_cursor is not None
        after = int(page.next_cursor)
    assert [event.at for event in got] == [at(number) for number in range(0, 30, 4)]


async def test_F17_the_events_of_one_session_are_bounded_the_newest_stay(
    storage: Storage,
) -> None:
    for first in range(0, 5000, 100):
        beats = range(first, first + 100)
        await append(
            storage,
            *(Event(EventType.TASK_HEARTBEAT, at(i), None, session_id(1)) for i in beats),
        )
    await storage.prune(Retention(), at(5000))
    page = await storage.events(EventFilter(session_id=session_id(1)), 0, 9999)
    newest = [event.at for event in page.items]
    assert newest[-1000:] == [at(number) for number in range(4000, 5000)]
    assert len(newest) <= 2000


# --- the history of an agent ------------------------------------------------------------------


async def test_a_history_has_the_state_reports_newest_first(storage: Storage) -> None:
    await append(
        storage,
        state_event(1),
        Event(EventType.AGENT_LOST, at(2), "a1"),
        state_event(3, "a2"),
        state_event(4),
        state_event(5),
    )
    history = await storage.agent_history("a1", None, 10)
    assert [event.data["moment"] for event in history.items] == [5, 4, 1]
    assert history.next_cursor is None
    assert (await storage.agent_history("nobody", None, 10)).items == ()


async def test_a_history_is_read_by_cursor_while_reports_come(storage: Storage) -> None:
    await append(storage, *(state_event(number) for number in range(5)))
    first = await storage.agent_history("a1", None, 2)
    await append(storage, state_event(9))
    second = await storage.agent_history("a1", first.next_cursor, 2)
    third = await storage.agent_history("a1", second.next_cursor, 2)
    pages = (first, second, third)
    got = [[event.data["moment"] for event in page.items] for page in pages]
    assert got == [[4, 3], [2, 1], [0]]
    assert third.next_cursor is None


async def test_F17_a_history_is_bounded(open_with: Opener) -> None:
    retention = Retention(agent_history=5)
    storage = await open_with(retention)
    for number in range(50):
        await append(storage, state_event(number), state_event(number, f"other-{number}"))
    await storage.prune(retention, at(50))
    history = await storage.agent_history("a1", None, 100)
    assert [event.data["moment"] for event in history.items] == [49, 48, 47, 46, 45]
    other = await storage.agent_history("other-0", None, 100)
    assert [event.data["moment"] for event in other.items] == [0]
