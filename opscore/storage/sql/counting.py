"""Mending what is counted: slots of agents, the lanes they serve, and numbers of records."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opscore.models import Agent, Event, EventType, TaskStatus
from opscore.storage.damage import readable
from opscore.storage.ordering import lanes_of
from opscore.storage.sql.codec import dump, load_agent
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.reading import IN_FLIGHT, WAITING
from opscore.storage.sql.rows import AGENT_COLUMNS, agent_row, upsert
from opscore.storage.sql.tallies import WAITING_BYTES

# Counting takes time; where there is more, the tally is believed.
_COUNTED_AT_MOST = 50_000

Look = tuple[list[str], str | None]
"""Ids of what seems out of step, and where to go on."""

_HELD = (
    f"SELECT agent_id, count(*) FROM tasks WHERE agent_id {{among}} AND {IN_FLIGHT} "
    "GROUP BY agent_id"
)
_LANES = "SELECT agent_id, lane FROM agent_lanes WHERE agent_id {among}"
_AGENTS = f"SELECT {', '.join(AGENT_COLUMNS)}, in_flight FROM agents"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored of an agent, and what should be."""

    agent: Agent
    row: Row
    held: int
    lanes: frozenset[str]

    @property
    def columns(self) -> list[str]:
        pairs = zip(AGENT_COLUMNS, self.row, agent_row(self.agent), strict=False)
        return [name for name, is_, should_be in pairs if is_ != should_be and name != "doc"]

    @property
    def in_flight(self) -> int:
        return int(self.row[-1])

    @property
    def serves(self) -> frozenset[str]:
        return frozenset(lanes_of(self.agent))

    @property
    def is_wrong(self) -> bool:
        return bool(self.columns) or self.in_flight != self.held or self.lanes != self.serves

    def event(self, now: datetime, found: str, message: str, **data: Any) -> Event:
        data = {"found": found, "message": message, **data}
        return Event(EventType.STORAGE_REPAIRED, now, agent_id=self.agent.id, data=data)


class Agents:
    """Each agent's columns, its slots in use, and its places in the lanes."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def look(self, cursor: str | None, limit: int) -> Program[Look]:
        rows = yield Fetch(f"{_AGENTS} WHERE id > ? ORDER BY id LIMIT ?", (cursor or "", limit))
        kept = yield from _kept(self._dialect, rows)
        suspects = [one.agent.id for one in kept if one.is_wrong]
        return suspects, rows[-1][0] if len(rows) == limit else None

    def mend(self, suspects: Sequence[str], now: datetime) -> Program[list[Event]]:
        sql = self._dialect.sql(f"{_AGENTS} WHERE id {{among}} ORDER BY id {{lock}}")
        rows = yield Fetch(sql, (dump(suspects),))
        # Counted after the rows are held: nobody can take or free a slot before this ends.
        kept = yield from _kept(self._dialect, rows)
        wrong = [one for one in kept if one.is_wrong]
        yield from _write(wrong)
        return [event for one in wrong for event in _events(one, now)]


def _kept(dialect: Dialect, rows: Sequence[Row]) -> Program[list[Kept]]:
    among = (dump([row[0] for row in rows]),)
    counted = yield Fetch(dialect.sql(_HELD), among)
    served = yield Fetch(dialect.sql(_LANES), among)
    held = {row[0]: row[1] for row in counted}
    lanes: dict[str, set[str]] = {row[0]: set() for row in rows}
    for agent_id, lane in served:
        lanes[agent_id].add(lane)
    doc = AGENT_COLUMNS.index("doc")
    return [
        Kept(agent, row, held.get(row[0], 0), frozenset(lanes[row[0]]))
        for row, agent in readable("agents", rows, lambda row: load_agent(row[doc]))
    ]


def _write(wrong: Sequence[Kept]) -> Program[None]:
    if not wrong:
        return
    yield Execute(upsert("agents", AGENT_COLUMNS), [agent_row(one.agent) for one in wrong])
    yield Execute(
        "UPDATE agents SET in_flight = ? WHERE id = ?", [(one.held, one.agent.id) for one in wrong]
    )
    yield Execute("DELETE FROM agent_lanes WHERE agent_id = ?", [(one.agent.id,) for one in wrong])
    yield Execute(
        "INSERT INTO agent_lanes (lane, agent_id) VALUES (?, ?)",
        [(lane, one.agent.id) for one in wrong for lane in sorted(one.serves)],
    )


def _events(one: Kept, now: datetime) -> Iterator[Event]:
    if one.in_flight != one.held:
        message = "The agent's slots in use differed from its tasks in flight; they were set to it."
        yield one.event(
            now, "slots_leaked", message, **_difference(stored=one.in_flight, counted=one.held)
        )
    if one.lanes != one.serves:
        message = "The agent did not stand in the lanes that it serves; it does now."
        yield one.event(now, "lanes_differ", message, lanes=sorted(one.lanes ^ one.serves))
    if one.columns:
        message = "What agents are searched by differed from the record and was written anew."
        yield one.event(now, "columns_differ", message, columns=one.columns)


def _difference(stored: int, counted: int) -> Mapping[str, int]:
    return {"stored": stored, "counted": counted}


# --- tallies ------------------------------------------------------------------------------------

# Each gives a name, its value, and how many rows were counted for it.
_COUNTS = "\nUNION ALL\n".join(
    f"SELECT '{name}' AS name, count(*) AS counted, count(*) AS seen FROM "
    f"(SELECT 1 FROM {source} LIMIT {_COUNTED_AT_MOST}) AS some_{number}"
    for number, (name, source) in enumerate(
        [
            ("agents", "agents"),
            ("sessions", "sessions"),
            ("events", "events"),
            *((f"tasks.{one.value}", f"tasks WHERE status = '{one.value}'") for one in TaskStatus),
        ]
    )
)
_WAITING_BYTES = f"""
SELECT '{WAITING_BYTES}', coalesce(sum(queue_bytes), 0), count(*)
FROM (SELECT queue_bytes FROM tasks WHERE {WAITING} LIMIT {_COUNTED_AT_MOST}) AS waiting
"""


class Tallies:
    """How many records there are of each kind, as far as it can be counted."""

    def look(self, cursor: str | None, limit: int) -> Program[Look]:  # noqa: ARG002 - all at once
        return sorted((yield from _differing())), None

    def mend(self, suspects: Sequence[str], now: datetime) -> Program[list[Event]]:
        # Whoever changes tallies holds the counter of events, and so does who counts.
        yield Execute("UPDATE counters SET value = value WHERE name = 'events'")
        wrong = {name: both for name, both in (yield from _differing()).items() if name in suspects}
        yield Execute(
            "INSERT INTO tallies (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            [(name, counted) for name, (_, counted) in sorted(wrong.items())],
        )
        return [_tally_event(now, name, *both) for name, both in sorted(wrong.items())]


def _differing() -> Program[dict[str, tuple[int, int]]]:
    """What is stored and what was counted, where they differ."""
    counted = yield Fetch(f"{_COUNTS} UNION ALL {_WAITING_BYTES}")
    rows = yield Fetch("SELECT name, value FROM tallies")
    stored = {row[0]: row[1] for row in rows}
    return {
        name: (stored.get(name, 0), int(count))
        for name, count, seen in counted
        if stored.get(name, 0) != count and seen < _COUNTED_AT_MOST
    }


def _tally_event(now: datetime, name: str, stored: int, counted: int) -> Event:
    message = f"The number kept of {name} differed from what there is; it was set to that."
    data = {"found": "tally_differs", "message": message, "name": name}
    return Event(EventType.STORAGE_REPAIRED, now, data={**data, **_difference(stored, counted)})
