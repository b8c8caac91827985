"""A bounded ledger of the work that a simulated agent has finished, for tests to compare."""

from collections import deque
from dataclasses import dataclass

LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class FinishedWork:
    """One attempt that the agent worked on to its end. `n` counts from 1 and never repeats."""

    n: int
    task_id: str | None
    attempt: int | None
    succeeded: bool


class WorkLedger:
    def __init__(self, limit: int = LIMIT) -> None:
        self._entries: deque[FinishedWork] = deque(maxlen=limit)
        self._count = 0

    def add(self, task_id: str | None, attempt: int | None, succeeded: bool) -> None:
        self._count += 1
        self._entries.append(FinishedWork(self._count, task_id, attempt, succeeded))

    def after(self, n: int = 0) -> list[FinishedWork]:
        """Return the entries younger than number `n`, the oldest first."""
        return [entry for entry in self._entries if entry.n > n]
