"""Values that were read or written a moment ago, by their text: most are asked for again soon."""

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Recent(Generic[K, T]):
    """Gives what `load` makes of a text, without making it anew for the latest ones.

    A text stands for one value only, so nothing here can be out of date.
    """

    def __init__(self, load: Callable[[K], T], size: Callable[[K], int], bound: int = 4096) -> None:
        self._load = load
        self._size = size
        self._bound = bound
        self._known: dict[K, T] = {}
        # Lists are read in threads.
        self._lock = threading.Lock()

    def get(self, text: K) -> T:
        value = self._known.get(text)
        if value is None:
            value = self._load(text)
            self.note(text, value)
        return value

    def note(self, text: K, value: T) -> None:
        """This is what `load` would give."""
        if self._size(text) > _LARGE:
            return
        with self._lock:
            self._known[text] = value
            if len(self._known) > self._bound:
                del self._known[next(iter(self._known))]

    def forget(self) -> None:
        with self._lock:
            self._known.clear()


# Large ones are rare, and a few thousand of them would fill the memory.
_LARGE = 8 * 1024
