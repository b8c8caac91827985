"""Mending: the columns that statements search by are brought back in step with their records.

A look reads only. What it finds out of step is read again, held, and only then written, so that
nothing is mended that is merely on its way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from opscore.models import Event, EventType
from opscore.storage.damage import readable
from opscore.storage.sql.auditing import ALONG, SESSIONS, TASKS, Place
from opscore.storage.sql.codec import dump, load, load_session, load_task
from opscore.storage.sql.counting import Agents, Look, Tallies
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.rows import (
    SESSION_COLUMNS,
    TASK_COLUMNS,
    session_row,
    task_row,
    upsert,
)
from opscore.storage.sql.tallies import Tally
from opscore.storage.sql.writing import write_events


@dataclass(frozen=True, slots=True)
class Found:
    """What seems out of step in one stretch of one stage, and where to go on."""

    stage: int
    suspects: Sequence[str]
    next_cursor: str | None


class Stage(Protocol):
    def look(self, cursor: str | None, limit: int) -> Program[Look]:
        """What seems out of step among the next `limit`."""

    def mend(self, suspects: Sequence[str], now: datetime) -> Program[list[Event]]:
        """Write what is still out of step, and tell what that was."""


class Columns:
    """Unfinished records of a table, each with a row that its document should have made."""

    def __init__(
        self,
        dialect: Dialect,
        table: str,
        names: tuple[str, ...],
        statuses: tuple[str, ...],
        rebuilt: Callable[[Row], Sequence[Any]],
        named: Callable[[Row], dict[str, Any]],
    ) -> None:
        self._dialect = dialect
        self._table, self._names, self._statuses = table, names, statuses
        self._rebuilt, self._named = rebuilt, named
        definition = "(SELECT doc FROM definitions WHERE hash = sessions.definition)"
        extra = f", {definition}" if table == "sessions" else ""
        self._select = f"SELECT {', '.join(names)}{extra} FROM {table}"

    def look(self, cursor: str | None, limit: int) -> Program[Look]:
        place = Place.of(cursor)
        rows = yield Fetch(f"{self._select} WHERE {ALONG}", place.args(self._statuses, limit))
        made = self._names.index("created_at")
        places = [(row[made], row[0]) for row in rows]
        suspects = [row[0] for row, _, _ in self._wrong(rows)]
        return suspects, place.next(self._statuses, places, limit)

    def mend(self, suspects: Sequence[str], now: datetime) -> Program[list[Event]]:
        sql = self._dialect.sql(f"{self._select} WHERE id {{among}} ORDER BY id {{lock}}")
        rows = yield Fetch(sql, (dump(suspects),))
        wrong = self._wrong(rows)
        if wrong:
            mended = [tuple(rebuilt) for _, rebuilt, _ in wrong]
            yield Execute(upsert(self._table, self._names), mended)
        return [
            _columns_event(now, self._table, names, self._named(row)) for row, _, names in wrong
        ]

    def _wrong(self, rows: Sequence[Row]) -> list[tuple[Row, Row, list[str]]]:
        """Rows that differ from those that their documents make, with these, and in what."""
        rebuilt = readable(self._table, rows, self._rebuilt)
        return [(row, new, names) for row, new in rebuilt if (names := self._differing(row, new))]

    def _differing(self, row: Row, rebuilt: Row) -> list[str]:
        pairs = zip(self._names, row, rebuilt, strict=False)
        # The same document may be written in more than one way.
        return [name for name, is_, should_be in pairs if is_ != should_be and name != "doc"]


def _columns_event(now: datetime, table: str, names: list[str], ids: dict[str, Any]) -> Event:
    message = f"What {table} are searched by differed from the record and was written anew."
    data = {"found": "columns_differ", "message": message, "columns": names}
    return Event(EventType.STORAGE_REPAIRED, now, data=data, **ids)


def _task(row: Row) -> Sequence[Any]:
    turn, arrival = row[TASK_COLUMNS.index("turn")], row[TASK_COLUMNS.index("arrival")]
    return task_row(load_task(row[TASK_COLUMNS.index("doc")]), turn, arrival)


def _session(row: Row) -> Sequence[Any]:
    definition = row[SESSION_COLUMNS.index("definition")], row[-1]
    return session_row(load_session(row[SESSION_COLUMNS.index("doc")], row[-1]), definition)


@cache
def _stages(dialect: Dialect) -> tuple[Stage, ...]:
    """Slots and tallies come last: they follow from the tasks."""
    session_id = TASK_COLUMNS.index("session_id")
    return (
        Columns(
            dialect,
            "tasks",
            TASK_COLUMNS,
            TASKS,
            _task,
            lambda row: {"task_id": row[0], "session_id": row[session_id]},
        ),
        Columns(
            dialect,
            "sessions",
            SESSION_COLUMNS,
            SESSIONS,
            _session,
            lambda row: {"session_id": row[0]},
        ),
        Agents(dialect),
        Tallies(),
    )


def look(dialect: Dialect, cursor: str | None, limit: int) -> Program[Found]:
    """One stretch of one stage; the stages follow each other."""
    stage, inner = load(cursor) if cursor else (0, None)
    stages = _stages(dialect)
    suspects, further = yield from stages[stage].look(inner, limit)
    if further is not None:
        return Found(stage, suspects, dump([stage, further]))
    is_last = stage + 1 == len(stages)
    return Found(stage, suspects, None if is_last else dump([stage + 1, None]))


def mend(dialect: Dialect, found: Found, now: datetime) -> Program[list[Event]]:
    events = yield from _stages(dialect)[found.stage].mend(sorted(found.suspects), now)
    yield from write_events(events, Tally())
    return events
