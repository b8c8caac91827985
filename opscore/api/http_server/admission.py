"""Keeps the number of connections below the limit of open files."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

from opscore.api.http_server.shortage_log import ShortageLog

HEALTH_RESERVE = 32

_SHARE_CLOSED_AT_ONCE = 16
_FULL = (
    "The connection limit is reached: idle connections are closed for new ones, and further ones "
    "are refused; find out who opens them, or raise the limit of open files (ulimit -n)"
)

logger = logging.getLogger(__name__)


class Admission(Enum):
    ADMITTED = auto()
    HEALTH_ONLY = auto()
    REFUSED = auto()


@dataclass(frozen=True, slots=True, order=True)
class Idleness:
    """How a connection without a request at work is ranked; the least is closed first."""

    has_been_answered: bool
    since: float


class Closable(Protocol):
    @property
    def idleness(self) -> Idleness | None:
        """None while a request is at work."""

    def close(self) -> None: ...


@dataclass
class ConnectionCap:
    """At most `maximum` connections, and a few more for health checks.

    At the maximum a new connection replaces idle ones: first those that never sent a request,
    longest silent first.
    """

    maximum: int
    full: ShortageLog = field(default_factory=lambda: ShortageLog(logger, _FULL))
    _connections: set[Closable] = field(default_factory=set)

    def admit(self, newcomer: Closable) -> Admission:
        """Count a new connection, and make room for it where there is none."""
        others = len(self._connections)
        if others < self.maximum:
            self._connections.add(newcomer)
            return Admission.ADMITTED
        self.full.note()
        closed = _longest_idle(self._connections)
        if not closed and others >= self.maximum + HEALTH_RESERVE:
            return Admission.REFUSED
        self._connections.add(newcomer)
        for connection in closed:
            connection.close()
        return Admission.ADMITTED if closed else Admission.HEALTH_ONLY

    def forget(self, connection: Closable) -> None:
        """Stop counting a connection that is closed."""
        self._connections.discard(connection)


def _longest_idle(connections: Iterable[Closable]) -> list[Closable]:
    """Return a share of the idle connections of the lowest rank.

    Closing several at once keeps the cost of this scan from recurring with each new connection.
    """
    idle = [(rank, one) for one in connections if (rank := one.idleness) is not None]
    if not idle:
        return []
    idle.sort(key=lambda pair: pair[0])
    lowest = [one for rank, one in idle if rank.has_been_answered == idle[0][0].has_been_answered]
    return lowest[: max(1, len(lowest) // _SHARE_CLOSED_AT_ONCE)]
