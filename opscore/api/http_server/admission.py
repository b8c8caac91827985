"""Keeps the number of connections below the limit of open files."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from typing import Protocol

from opscore.api.http_server.shortage_log import ShortageLog

HEALTH_RESERVE = 32

_SHARE_CLOSED_AT_ONCE = 16
_FULL = (
    "The connection limit is reached: connections that stand still are closed for new ones; find "
    "out who opens them, or raise the limit of open files (ulimit -n)"
)

logger = logging.getLogger(__name__)


class Admission(Enum):
    ADMITTED = auto()
    HEALTH_ONLY = auto()
    REFUSED = auto()


class Use(IntEnum):
    """The use of a connection that can be closed; the least is closed first."""

    SILENT = 0
    KEPT = 1
    REQUEST_ARRIVING = 2
    ANSWER_UNREAD = 3


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """The place of a connection in the order in which connections are closed."""

    use: Use
    since: float


class Closable(Protocol):
    @property
    def rank(self) -> Rank | None:
        """None while the service works on a request."""

    def abort(self) -> None: ...


@dataclass
class ConnectionCap:
    """At most `maximum` connections, and a few more for health checks.

    At the maximum a new connection replaces others, in the order of `Use` and the oldest first: a
    client that keeps a connection without letting the service work on it cannot lock others out.
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
        closed = _first_to_close(self._connections)
        if not closed and others >= self.maximum + HEALTH_RESERVE:
            return Admission.REFUSED
        for connection in closed:
            # Counted no more at once: it is lost only after the others of a burst are admitted.
            self._connections.discard(connection)
            connection.abort()
        self._connections.add(newcomer)
        return Admission.ADMITTED if closed else Admission.HEALTH_ONLY

    def forget(self, connection: Closable) -> None:
        """Stop counting a connection that is closed."""
        self._connections.discard(connection)


def _first_to_close(connections: Iterable[Closable]) -> list[Closable]:
    """Return the oldest sixteenth of the connections with the least use.

    Closing several at once keeps the cost of this scan from recurring with each new connection.
    """
    ranked = [(rank, one) for one in connections if (rank := one.rank) is not None]
    if not ranked:
        return []
    ranked.sort(key=lambda pair: pair[0])
    least = [one for rank, one in ranked if rank.use is ranked[0][0].use]
    return least[: max(1, len(least) // _SHARE_CLOSED_AT_ONCE)]
