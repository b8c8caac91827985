"""A heap whose entries may lose their meaning; those are dropped when they are met."""

import heapq
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

E = TypeVar("E", bound=tuple[Any, ...])

_COMPACT_ABOVE = 64


class LazyHeap(Generic[E]):
    def __init__(self, holds: Callable[[E], bool]) -> None:
        self._holds = holds
        self._entries: list[E] = []
        self._compact_at = _COMPACT_ABOVE

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[E]:
        """The entries that hold, in no order."""
        return filter(self._holds, self._entries)

    def push(self, entry: E) -> None:
        heapq.heappush(self._entries, entry)
        if len(self._entries) > self._compact_at:
            self._compact()

    def peek(self) -> E | None:
        """The least entry that still holds."""
        while self._entries and not self._holds(self._entries[0]):
            heapq.heappop(self._entries)
        return self._entries[0] if self._entries else None

    def pop(self) -> E:
        return heapq.heappop(self._entries)

    def _compact(self) -> None:
        self._entries = list({entry for entry in self._entries if self._holds(entry)})
        heapq.heapify(self._entries)
        # Doubling keeps the work per push constant however much of the heap still holds.
        self._compact_at = max(_COMPACT_ABOVE, 2 * len(self._entries))
