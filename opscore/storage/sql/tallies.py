"""Tallies: how many records there are, kept by whoever adds or removes some."""

from collections import Counter
from collections.abc import Iterable

from opscore.models import Counts, TaskStatus
from opscore.storage.sql.program import Execute, Fetch, Program

Tally = Counter[str]

_TASKS = "tasks."


def tasks_tally(before: Iterable[str], after: Iterable[str]) -> Tally:
    """The difference that tasks make which had those statuses and have these now."""
    tally: Tally = Counter(f"{_TASKS}{status}" for status in after)
    tally.subtract(f"{_TASKS}{status}" for status in before)
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
        in_flight=sum(n for status, n in by_status.items() if TaskStatus(status).in_flight),
        events=known.get("events", 0),
        by_status=by_status,
    )
