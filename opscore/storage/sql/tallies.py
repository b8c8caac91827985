"""Tallies: how many records there are, kept by whoever adds or removes some."""

from collections import Counter
from collections.abc import Iterable

from opscore.models import Counts, Task, TaskStatus
from opscore.storage.sql.program import Execute, Fetch, Program

Tally = Counter[str]

Weight = tuple[str, int]
"""The status of a task, and its queue bytes."""

WAITING_BYTES = "bytes.waiting"
_TASKS = "tasks."
_WAITING = frozenset(status.value for status in TaskStatus if status.waiting)


def weight(task: Task) -> Weight:
    return task.status.value, task.queue_bytes


def tasks_tally(before: Iterable[Weight], after: Iterable[Weight]) -> Tally:
    """Return the difference that tasks make which had those weights and have these now."""
    tally: Tally = Counter()
    for sign, weights in ((1, after), (-1, before)):
        for status, queue_bytes in weights:
            tally[f"{_TASKS}{status}"] += sign
            if status in _WAITING:
                tally[WAITING_BYTES] += sign * queue_bytes
    return tally


def keep(tally: Tally) -> Program[None]:
    """Add the differences. Whoever does so holds the counter of events, so they never cross."""
    rows = [(name, change) for name, change in sorted(tally.items()) if change]
    if rows:
        yield Execute(
            "INSERT INTO tallies (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = tallies.value + excluded.value",
            rows,
        )


def counts() -> Program[Counts]:
    rows = yield Fetch("SELECT name, value FROM tallies WHERE value <> 0")
    known: dict[str, int] = {row[0]: row[1] for row in rows}
    by_status = {
        name.removeprefix(_TASKS): value for name, value in known.items() if name.startswith(_TASKS)
    }
    return Counts(
        agents=known.get("agents", 0),
        sessions=known.get("sessions", 0),
        tasks=sum(by_status.values()),
        waiting=sum(n for status, n in by_status.items() if TaskStatus(status).waiting),
        waiting_bytes=known.get(WAITING_BYTES, 0),
        in_flight=sum(n for status, n in by_status.items() if TaskStatus(status).in_flight),
        events=known.get("events", 0),
        by_status=by_status,
    )
