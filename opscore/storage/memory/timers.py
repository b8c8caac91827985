"""Timers: which record is due, and when the next one will be."""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum

from opscore.storage.memory.lazy_heap import LazyHeap


class Kind(StrEnum):
    TASK = "task"
    SESSION = "session"
    AGENT = "agent"


Entry = tuple[datetime, Kind, str]


class Timers:
    """An entry holds while its record still has that due time."""

    def __init__(self, due_of: Callable[[Kind, str], datetime | None]) -> None:
        self._heap: LazyHeap[Entry] = LazyHeap(lambda entry: due_of(*entry[1:]) == entry[0])

    def set(self, kind: Kind, record_id: str, due_at: datetime) -> None:
        self._heap.push((due_at, kind, record_id))

    def next(self) -> datetime | None:
        head = self._heap.peek()
        return head[0] if head else None

    def due(self, now: datetime, limit: int) -> list[tuple[Kind, str]]:
        """The due records, earliest first. They stay due until they are changed."""
        found: dict[Entry, None] = {}
        while len(found) < limit and (head := self._heap.peek()) is not None and head[0] <= now:
            found[self._heap.pop()] = None
        for entry in found:
            self._heap.push(entry)
        return [(kind, record_id) for _, kind, record_id in found]
