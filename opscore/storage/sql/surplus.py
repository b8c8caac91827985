"""Events of unfinished sessions that are too many: the oldest of a session that has very many."""

from opscore.models import Retention
from opscore.storage.sql.auditing import SESSIONS
from opscore.storage.sql.program import Fetch, Program

KEPT = 1000
"""So many of a session's newest events stay as long as it goes on."""

_SESSIONS_AT_ONCE = 50

_LONG = f"""
SELECT id, last FROM (
    SELECT id, (
        SELECT seq FROM events WHERE session_id = sessions.id
        ORDER BY seq DESC LIMIT 1 OFFSET {KEPT}
    ) AS last
    FROM sessions WHERE status IN ({", ".join(f"'{status}'" for status in SESSIONS)})
) AS unfinished WHERE last IS NOT NULL
"""
_LONG_BATCH = f"{_LONG} ORDER BY id LIMIT {_SESSIONS_AT_ONCE}"

_FORGET_OLDEST = """
DELETE FROM events WHERE seq IN (
    SELECT seq FROM events WHERE session_id = ? AND seq <= ? ORDER BY seq LIMIT ?
) RETURNING 1
"""
_COUNT = f"""
SELECT count(*) FROM ({_LONG}) AS long
JOIN events ON events.session_id = long.id AND events.seq <= long.last
"""


def forget_surplus(retention: Retention) -> Program[int]:
    """One batch, as long as there are more events than there should be; how many these were."""
    excess = min(retention.batch, (yield from _excess(retention)))
    if excess <= 0:
        return 0
    gone = 0
    for session_id, last in (yield Fetch(_LONG_BATCH)):
        rows = yield Fetch(_FORGET_OLDEST, (session_id, last, excess - gone))
        gone += len(rows)
        if gone == excess:
            break
    return gone


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
