"""Events of unfinished sessions that are too many: the oldest of a session that has very many."""

from opscore.models import Retention
from opscore.storage.sql.auditing import ALONG, SESSIONS, Place
from opscore.storage.sql.program import Fetch, Program

KEPT = 1000
"""So many of a session's newest events stay as long as it goes on."""

_SESSIONS_AT_ONCE = 500

_LAST = f"""(
    SELECT seq FROM events WHERE session_id = sessions.id ORDER BY seq DESC LIMIT 1 OFFSET {KEPT}
)"""
_SOME = f"SELECT created_at, id, {_LAST} FROM sessions WHERE {ALONG}"

_FORGET_OLDEST = """
DELETE FROM events WHERE seq IN (
    SELECT seq FROM events WHERE session_id = ? AND seq <= ? ORDER BY seq LIMIT ?
) RETURNING 1
"""
_COUNT = f"""
SELECT count(*) FROM (
    SELECT id, {_LAST} AS last FROM sessions
    WHERE status IN ({", ".join(f"'{status}'" for status in SESSIONS)})
) AS unfinished JOIN events ON events.session_id = unfinished.id AND events.seq <= unfinished.last
"""


class Surplus:
    """Looks at some of the unfinished sessions, and at the next ones the next time."""

    def __init__(self) -> None:
        self._cursor: str | None = None

    def forget(self, retention: Retention) -> Program[int]:
        """One batch, as long as there are more events than there should be; how many these were."""
        excess = min(retention.batch, (yield from _excess(retention)))
        if excess <= 0:
            return 0
        gone = 0
        for session_id, last in (yield from self._long_ones()):
            rows = yield Fetch(_FORGET_OLDEST, (session_id, last, excess - gone))
            gone += len(rows)
            if gone == excess:
                break
        return gone

    def _long_ones(self) -> Program[list[tuple[str, int]]]:
        """Sessions with too many events, each with the last of those; of each status some."""
        while True:
            place = Place.of(self._cursor)
            rows = yield Fetch(_SOME, place.args(SESSIONS, _SESSIONS_AT_ONCE))
            found = [(row[1], row[2]) for row in rows if row[2] is not None]
            if found:
                # There may be more of them than one batch takes.
                return found
            self._cursor = place.next(SESSIONS, rows, _SESSIONS_AT_ONCE)
            if self._cursor is None or len(rows) == _SESSIONS_AT_ONCE:
                return []


def count_surplus(retention: Retention, gone: int) -> Program[int]:
    """How many would be forgotten once so many others are gone."""
    excess = (yield from _excess(retention)) - gone
    if excess <= 0:
        return 0
    rows = yield Fetch(_COUNT)
    return min(excess, int(rows[0][0]))


def _excess(retention: Retention) -> Program[int]:
    rows = yield Fetch("SELECT value FROM tallies WHERE name = 'events'")
    return (int(rows[0][0]) if rows else 0) - retention.events
