"""A circuit breaker as a value: open after failures in a row, then one probe, then a ramp. Pure."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

THRESHOLD = 5
FIRST_PAUSE = timedelta(seconds=2)
LONGEST_PAUSE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Breaker:
    """`ramp` is how many messages may be under way while trust comes back; None is no limit."""

    failures: int = 0
    opened: int = 0
    open_until: datetime | None = None
    ramp: int | None = None

    def is_open(self, now: datetime) -> bool:
        return self.open_until is not None and now < self.open_until

    def room(self, now: datetime, under_way: int, limit: int) -> int:
        """How many more messages may be sent."""
        if self.is_open(now):
            return 0
        most = limit if self.ramp is None else min(self.ramp, limit)
        return max(0, most - under_way)

    def succeeded(self, limit: int) -> "Breaker":
        if self.ramp is None:
            return self if self.failures == 0 else Breaker()
        ramp = self.ramp * 2
        return Breaker() if ramp >= limit else replace(self, failures=0, ramp=ramp)

    def failed(self, now: datetime, at_once: bool = False) -> "Breaker":
        """`at_once` opens without waiting for more: trying on would not help."""
        failures = self.failures + 1
        if self.is_open(now):
            return self
        if self.ramp is None and failures < THRESHOLD and not at_once:
            return replace(self, failures=failures)
        pause = min(FIRST_PAUSE * (1 << min(self.opened, 10)), LONGEST_PAUSE)
        return Breaker(failures, self.opened + 1, now + pause, ramp=1)
