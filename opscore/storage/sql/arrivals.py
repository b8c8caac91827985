"""Rising numbers for the order in which things came."""

import time
from collections.abc import Callable

from opscore.storage.sql.codec import MICROSECONDS


class Arrivals:
    """Each number is higher than the one before, and about the time in microseconds.

    So they rise over restarts too, and those of several processes fit together, without asking
    a database for each.
    """

    def __init__(self, seconds: Callable[[], float] = time.time) -> None:
        self._seconds = seconds
        self._last = 0

    def next(self) -> int:
        self._last = max(self._last + 1, int(self._seconds() * MICROSECONDS))
        return self._last
