"""Looking through sessions and tasks, a stretch at a time, along the index of statuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opscore.models import Page, SessionStatus, TaskFacts, TaskStatus
from opscore.storage.damage import readable
from opscore.storage.sql.codec import dump, load, load_session, load_task
from opscore.storage.sql.program import Fetch, Program, Row

_TIMED = tuple(
    status.value for status in (TaskStatus.DISPATCHED, TaskStatus.RUNNING, TaskStatus.DELAYED)
)
# Those that can go wrong in most ways first; a million of them may be queued.
TASKS = (*_TIMED, TaskStatus.QUEUED.value)
SESSIONS = tuple(status.value for status in SessionStatus if not status.ended)
_ALL_SESSIONS = (*SESSIONS, *(status.value for status in SessionStatus if status.ended))

# Written so that only the index of statuses gives this order, whatever an engine believes of how
# the records are spread.
ALONG = (
    "(status, created_at, id) > (?, ?, ?) AND status <= ? ORDER BY status, created_at, id LIMIT ?"
)

# For the same reason the statuses of a session's tasks are excluded, not named.
_SESSIONS = f"""
SELECT created_at, id, status, (
    SELECT 1 FROM tasks WHERE tasks.session_id = sessions.id
    AND tasks.status <> 'completed' AND tasks.status <> 'failed'
    AND tasks.status <> 'timed_out' AND tasks.status <> 'cancelled' LIMIT 1
)
FROM sessions WHERE {ALONG}
"""

_TASKS = f"""
SELECT tasks.created_at, tasks.id, tasks.doc, sessions.doc, definitions.doc
FROM (SELECT * FROM tasks WHERE {ALONG}) AS tasks JOIN sessions ON sessions.id = tasks.session_id
JOIN definitions ON definitions.hash = sessions.definition
ORDER BY tasks.created_at, tasks.id
"""


@dataclass(frozen=True, slots=True)
class Place:
    """Where to go on: in which status, after which record."""

    number: int = 0
    created_at: int = 0
    id: str = ""

    @classmethod
    def of(cls, cursor: str | None) -> "Place":
        return cls(*load(cursor)) if cursor else cls()

    def args(self, statuses: Sequence[str], limit: int) -> tuple[Any, ...]:
        status = statuses[self.number]
        return status, self.created_at, self.id, status, limit

    def next(self, statuses: Sequence[str], rows: Sequence[Row], limit: int) -> str | None:
        """After these rows, which begin with the time of their making and the id."""
        if len(rows) == limit:
            return dump([self.number, rows[-1][0], rows[-1][1]])
        if self.number + 1 < len(statuses):
            return dump([self.number + 1, 0, ""])
        return None


def odd_sessions(cursor: str | None, limit: int) -> Program[Page[str]]:
    place = Place.of(cursor)
    rows = yield Fetch(_SESSIONS, place.args(_ALL_SESSIONS, limit))
    odd = (row[1] for row in rows if (row[2] in SESSIONS) is not bool(row[3]))
    return Page(tuple(odd), place.next(_ALL_SESSIONS, rows, limit))


def timed_tasks(cursor: str | None, limit: int) -> Program[Page[TaskFacts]]:
    place = Place.of(cursor)
    rows = yield Fetch(_TASKS, place.args(_TIMED, limit))
    facts = tuple(facts for _, facts in readable("tasks", rows, _facts, id_at=1))
    return Page(facts, place.next(_TIMED, rows, limit))


def _facts(row: Row) -> TaskFacts:
    return TaskFacts(load_task(row[2]), load_session(row[3], row[4]))
