"""Looking through what is unfinished, a stretch at a time, along the index of statuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opscore.models import Page, SessionStatus, TaskFacts, TaskStatus
from opscore.storage.damage import readable
from opscore.storage.sql.codec import dump, load, load_session, load_task
from opscore.storage.sql.program import Fetch, Program, Row

SESSIONS = tuple(status.value for status in SessionStatus if not status.ended)
# Those that can go wrong in most ways first; a million of them may be queued.
TASKS = tuple(
    status.value
    for status in (TaskStatus.DISPATCHED, TaskStatus.RUNNING, TaskStatus.DELAYED, TaskStatus.QUEUED)
)

# Written so that only the index of statuses gives this order, whatever an engine believes of how
# the records are spread.
ALONG = (
    "(status, created_at, id) > (?, ?, ?) AND status <= ? ORDER BY status, created_at, id LIMIT ?"
)

# For the same reason the statuses of a session's tasks are excluded, not named.
_IDLE = f"""
SELECT created_at, id, (
    SELECT 1 FROM tasks WHERE tasks.session_id = sessions.id
    AND tasks.status <> 'completed' AND tasks.status <> 'failed'
    AND tasks.status <> 'timed_out' AND tasks.status <> 'cancelled' LIMIT 1
)
FROM sessions WHERE {ALONG}
"""

_UNFINISHED = f"""
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


def idle_sessions(cursor: str | None, limit: int) -> Program[Page[str]]:
    place = Place.of(cursor)
    rows = yield Fetch(_IDLE, place.args(SESSIONS, limit))
    return Page(tuple(row[1] for row in rows if not row[2]), place.next(SESSIONS, rows, limit))


def unfinished_tasks(cursor: str | None, limit: int) -> Program[Page[TaskFacts]]:
    place = Place.of(cursor)
    rows = yield Fetch(_UNFINISHED, place.args(TASKS, limit))
    facts = tuple(facts for _, facts in readable("tasks", rows, _facts, id_at=1))
    return Page(facts, place.next(TASKS, rows, limit))


def _facts(row: Row) -> TaskFacts:
    return TaskFacts(load_task(row[2]), load_session(row[3], row[4]))
