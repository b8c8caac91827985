"""The event log in memory: one bounded list, and what is looked up often beside it."""

import heapq
import sys
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby, islice
from operator import attrgetter

from opscore.models import Event, EventFilter, EventType, Page, Retention

_SESSION_EVENTS = 1000
_seq = attrgetter("seq")


class EventLog:
    def __init__(self, retention: Retention) -> None:
        self._bound = retention.events
        self._events: list[Event] = []
        self._last_seq = 0
        self._by_session: dict[str, list[Event]] = {}
        self._states: defaultdict[str, deque[Event]] = defaultdict(
            lambda: deque(maxlen=retention.agent_history)
        )

    def __len__(self) -> int:
        return len(self._events)

    def append(self, events: Iterable[Event]) -> None:
        for event in events:
            self._last_seq += 1
            self._append(_numbered(event, self._last_seq))
        if len(self._events) > self._bound * 1.1:
            del self._events[: len(self._events) - self._bound]

    @property
    def last_seq(self) -> int:
        return self._last_seq

    def all(self) -> list[Event]:
        """Every event that anybody could still read, in order."""
        kept = [self._events, *self._by_session.values(), *self._states.values()]
        return [next(same) for _, same in groupby(heapq.merge(*kept, key=_seq), key=_seq)]

    def restore(self, events: Iterable[Event]) -> None:
        """Take in events as they are, their numbers included."""
        for event in events:
            self._append(event)

    def restore_last_seq(self, seq: int) -> None:
        self._last_seq = seq

    def _append(self, event: Event) -> None:
        self._events.append(event)
        if event.session_id is not None:
            self._of_session(event.session_id).append(event)
        if event.type is EventType.AGENT_STATE and event.agent_id is not None:
            self._states[event.agent_id].append(event)

    def _of_session(self, session_id: str) -> list[Event]:
        events = self._by_session.setdefault(session_id, [])
        if len(events) >= 2 * _SESSION_EVENTS:
            del events[:_SESSION_EVENTS]
        return events

    def history(self, agent_id: str) -> Iterator[Event]:
        """State reports of an agent, newest first."""
        return reversed(self._states.get(agent_id, ()))

    def read(self, where: EventFilter, after: int, limit: int) -> Page[Event]:
        found: list[Event] = []
        seen = after
        for event in self._since(where, after):
            if len(found) == limit:
                break
            seen = event.seq
            if matches(where, event):
                found.append(event)
        return Page(tuple(found), str(seen))

    def _since(self, where: EventFilter, after: int) -> Iterator[Event]:
        if where.session_id is not None:
            events: Sequence[Event] = self._by_session.get(where.session_id, ())
            return (event for event in events if event.seq > after)
        # Those that were taken in from another storage need not follow each other closely.
        return islice(self._events, bisect_right(self._events, after, key=_seq), None)

    def forget_session(self, session_id: str) -> None:
        self._by_session.pop(session_id, None)

    def forget_agent(self, agent_id: str) -> None:
        self._states.pop(agent_id, None)

    def forget_before(self, moment: datetime, batch: int) -> int:
        """Drop the oldest events, at most a batch of them."""
        old = self.older_than(moment, batch)
        del self._events[:old]
        return old

    def older_than(self, moment: datetime, limit: int = sys.maxsize) -> int:
        """How many events at the old end are, counted up to the limit."""
        old = 0
        while old < min(limit, len(self._events)) and self._events[old].at < moment:
            old += 1
        return old

    def forget_states_before(self, moment: datetime) -> int:
        """Drop the oldest state reports of every agent, but never an agent's newest one."""
        return sum(_drop_old(states, moment) for states in self._states.values())

    def states_older_than(self, moment: datetime, without: Collection[str]) -> int:
        """How many state reports are, but for each agent's newest and those of some agents."""
        return sum(
            _drop_old(states.copy(), moment)
            for agent_id, states in self._states.items()
            if agent_id not in without
        )


def _numbered(event: Event, seq: int) -> Event:
    # Spelled out: `replace` costs twice as much, and every state report passes here.
    return Event(
        event.type, event.at, event.agent_id, event.session_id, event.task_id, event.data, seq
    )


def _drop_old(states: deque[Event], moment: datetime) -> int:
    dropped = 0
    while len(states) > 1 and states[0].at < moment:
        states.popleft()
        dropped += 1
    return dropped


def matches(where: EventFilter, event: Event) -> bool:
    return (
        _is(where.agent_id, event.agent_id)
        and _is(where.session_id, event.session_id)
        and _is(where.task_id, event.task_id)
        and (not where.types or event.type in where.types)
        and (where.since is None or event.at >= where.since)
    )


def _is(wanted: str | None, actual: str | None) -> bool:
    return wanted is None or wanted == actual
