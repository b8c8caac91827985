"""Reports a lasting shortage without a line for each time it is met."""

import logging
import time
from collections.abc import Callable

PERIOD = 60.0


class ShortageLog:
    """Logs a warning at most once a minute, with how often it was due since the last one."""

    def __init__(
        self, logger: logging.Logger, message: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._message = message
        self._clock = clock
        self._logged_at: float | None = None
        self._count = 0

    def note(self) -> None:
        self._count += 1
        now = self._clock()
        if self._logged_at is None or now - self._logged_at >= PERIOD:
            self._logger.warning("%s (%d times since the last report)", self._message, self._count)
            self._logged_at, self._count = now, 0
