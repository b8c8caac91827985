"""Values that were read or written a moment ago: most are asked for again soon."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_MOST = 4096
_ROOM = 8 * 1024 * 1024
# Larger ones are rare, and each would take the place of many others, so they have a room of their
# own: reading a session with megabytes of results anew at each of its steps holds up the loop.
_LARGE = 8 * 1024
_MOST_LARGE = 64
_ROOM_FOR_LARGE = 32 * 1024 * 1024


class Latest(Generic[K, T]):
    """The latest values: no more than a number of them, nor than there is room for."""

    def __init__(self, most: int = _MOST, room: int = _ROOM) -> None:
        self._most = most
        self._room = room
        self._taken = 0
        self._known: dict[K, tuple[T, int]] = {}
        # Lists are read in threads.
        self._lock = threading.Lock()

    def get(self, key: K) -> T | None:
        known = self._known.get(key)
        return known[0] if known else None

    def put(self, key: K, value: T, size: int) -> None:
        if size > self._room:
            return
        with self._lock:
            self._drop(key)
            self._known[key] = value, size
            self._taken += size
            while len(self._known) > self._most or self._taken > self._room:
                self._drop(next(iter(self._known)))

    def clear(self) -> None:
        with self._lock:
            self._known.clear()
            self._taken = 0

    def _drop(self, key: K) -> None:
        _, size = self._known.pop(key, (None, 0))
        self._taken -= size


class Recent(Generic[K, T]):
    """Gives what `load` makes of a text, without making it anew for the latest ones.

    A text stands for one value only, so nothing here can be out of date.
    """

    def __init__(
        self,
        load: Callable[[K], T],
        size: Callable[[K], int],
        largest: int = _LARGE,
        most: int = _MOST,
    ) -> None:
        self._load = load
        self._size = size
        self._latest: Latest[K, T] = Latest(most)
        self._large: Latest[K, T] = Latest(min(most, _MOST_LARGE), _ROOM_FOR_LARGE)
        self._largest = largest

    def get(self, text: K) -> T:
        value = self._latest_of(self._size(text)).get(text)
        if value is None:
            value = self._load(text)
            self.note(text, value)
        return value

    def note(self, text: K, value: T) -> None:
        """This is what `load` would give."""
        size = self._size(text)
        self._latest_of(size).put(text, value, size)

    def forget(self) -> None:
        self._latest.clear()
        self._large.clear()

    def _latest_of(self, size: int) -> Latest[K, T]:
        return self._latest if size <= self._largest else self._large
