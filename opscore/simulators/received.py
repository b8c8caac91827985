"""A bounded log of what a simulator was sent, for tests to read."""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """`n` counts from 1 and never repeats; `body` is text where it was no JSON."""

    n: int
    at: datetime
    path: str
    agent_id: str | None
    body: Any

    def to_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "at": self.at.isoformat(),
            "path": self.path,
            "agentId": self.agent_id,
            "body": self.body,
        }


class ReceivedLog:
    def __init__(self, limit: int = LIMIT) -> None:
        self._entries: deque[ReceivedRequest] = deque(maxlen=limit)
        self._count = 0

    def add(self, path: str, agent_id: str | None, body: Any) -> None:
        self._count += 1
        now = datetime.now(UTC)
        self._entries.append(ReceivedRequest(self._count, now, path, agent_id, body))

    def after(self, n: int = 0, limit: int = LIMIT) -> list[ReceivedRequest]:
        """Entries younger than number `n`, the oldest first."""
        return [entry for entry in self._entries if entry.n > n][:limit]

    @property
    def total(self) -> int:
        """How many there were, also those that the bound has dropped."""
        return self._count
