"""Claiming: which ready tasks go to which free agents, and marking them so."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from opscore.models import Claim, Task
from opscore.storage.claimed import claimed_task, dispatched_event
from opscore.storage.ordering import urgency
from opscore.storage.sql.codec import dump, load_agent, load_session, load_task, moment
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.rows import TASK_COLUMNS, task_row, upsert
from opscore.storage.sql.writing import reserve, write_events

_LANES_AT_ONCE = 200
_PRIORITIES = range(10)

# A skip scan: it jumps from lane to lane, however many tasks stand in each.
_OPEN_LANES = """
WITH RECURSIVE queued(lane) AS (
    SELECT min(lane) FROM tasks WHERE status = 'queued'
    UNION ALL
    SELECT (SELECT min(lane) FROM tasks WHERE status = 'queued' AND lane > queued.lane)
    FROM queued WHERE queued.lane IS NOT NULL
)
SELECT lane FROM queued
WHERE lane IS NOT NULL AND EXISTS (
    SELECT 1 FROM agent_lanes JOIN agents ON agents.id = agent_lanes.agent_id
    WHERE agent_lanes.lane = queued.lane AND agents.in_flight < agents.slots
)
LIMIT ?
"""

_HEAD = (
    "SELECT * FROM "
    "(SELECT id, lane, priority, direct, turn, arrival, waiting_since, preferred FROM tasks "
    "WHERE status = 'queued' AND lane = ? AND direct = ? AND priority = ? "
    "ORDER BY turn, arrival LIMIT ?) AS head"
)

_FREE = """
SELECT agent_lanes.lane, agents.id, agents.slots - agents.in_flight, agents.last_used
FROM agent_lanes JOIN agents ON agents.id = agent_lanes.agent_id
WHERE agent_lanes.lane {among} AND agents.in_flight < agents.slots
ORDER BY agents.last_used, agents.id LIMIT ?
"""

_PREFERRED = """
SELECT agent_lanes.lane, agents.id, agents.slots - agents.in_flight, agents.last_used
FROM agent_lanes JOIN agents ON agents.id = agent_lanes.agent_id
WHERE agent_lanes.lane {among} AND agents.id {among} AND agents.in_flight < agents.slots
"""

_STILL_QUEUED = (
    "SELECT id FROM tasks WHERE id {among} AND status = 'queued' ORDER BY id {skip_locked}"
)
_STILL_FREE = "SELECT id, slots - in_flight FROM agents WHERE id {among} ORDER BY id {skip_locked}"

_TASKS = """
SELECT tasks.doc, tasks.turn, tasks.arrival, sessions.doc, definitions.doc
FROM tasks JOIN sessions ON sessions.id = tasks.session_id
JOIN definitions ON definitions.hash = sessions.definition
WHERE tasks.id {among}
"""


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A queued task as far as its order goes."""

    urgency: datetime
    turn: int
    arrival: int
    id: str
    lane: str = field(compare=False)
    preferred: str | None = field(compare=False)


@dataclass
class Pool:
    """Free agents: how many slots each has, and who was used longest ago in each lane."""

    slots: dict[str, int] = field(default_factory=dict)
    lanes: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)

    def add(self, lane: str, agent_id: str, slots: int, last_used: int) -> None:
        self.slots[agent_id] = slots
        self.used.setdefault(agent_id, last_used)
        heapq.heappush(self.lanes.setdefault(lane, []), (last_used, agent_id))

    def take(self, lane: str, preferred: str | None, use: int) -> str | None:
        agent_id = self._choose(lane, preferred)
        if agent_id is not None:
            self.slots[agent_id] -= 1
            self.used[agent_id] = use
        return agent_id

    def _choose(self, lane: str, preferred: str | None) -> str | None:
        agents = self.lanes.get(lane, [])
        if preferred and self.slots.get(preferred) and any(i == preferred for _, i in agents):
            return preferred
        while agents:
            used, agent_id = agents[0]
            if not self.slots[agent_id]:
                heapq.heappop(agents)
            elif self.used[agent_id] != used:
                heapq.heapreplace(agents, (self.used[agent_id], agent_id))
            else:
                return agent_id
        return None


def plan(levels: Sequence[Sequence[Waiting]], pool: Pool, limit: int) -> list[tuple[str, str]]:
    """Pairs of task and agent. Each level is in the order of its turns; the most urgent head
    of all goes first. Pure."""
    pairs: list[tuple[str, str]] = []
    heads = [(level[0], number, 0) for number, level in enumerate(levels) if level]
    heapq.heapify(heads)
    use = max(pool.used.values(), default=0)
    while heads and len(pairs) < limit:
        task, number, place = heapq.heappop(heads)
        agent_id = pool.take(task.lane, task.preferred, use + len(pairs) + 1)
        if agent_id is None:
            continue
        pairs.append((task.id, agent_id))
        if place + 1 < len(levels[number]):
            heapq.heappush(heads, (levels[number][place + 1], number, place + 1))
    return pairs


def claim(
    dialect: Dialect,
    owner: str,
    now: datetime,
    lease_until: datetime,
    limit: int,
    only_direct: bool,
) -> Program[list[Claim]]:
    lanes = [row[0] for row in (yield Fetch(_OPEN_LANES, (_LANES_AT_ONCE,)))]
    if not lanes:
        return []
    levels = yield from _levels(lanes, limit, only_direct)
    preferred = {task.preferred for level in levels for task in level if task.preferred}
    pool = yield from _pool(dialect, lanes, preferred, limit)
    pairs = yield from _locked(dialect, plan(levels, pool, limit))
    if not pairs:
        return []
    return (yield from _mark(dialect, pairs, owner, now, lease_until))


def _levels(lanes: Sequence[str], limit: int, only_direct: bool) -> Program[list[list[Waiting]]]:
    """The heads of every level of the lanes, in one statement for each lane."""
    levels: list[list[Waiting]] = []
    keys = [
        (direct, priority)
        for direct in ((1,) if only_direct else (0, 1))
        for priority in _PRIORITIES
    ]
    sql = " UNION ALL ".join(_HEAD for _ in keys)
    for lane in lanes:
        args = [value for key in keys for value in (lane, *key, limit)]
        rows = yield Fetch(sql, tuple(args))
        found: dict[tuple[int, int], list[Waiting]] = {}
        for row in rows:
            found.setdefault((row[3], row[2]), []).append(_waiting(row))
        levels.extend(sorted(level, key=_by_turn) for level in found.values())
    return levels


def _by_turn(task: Waiting) -> tuple[int, int]:
    return task.turn, task.arrival


def _waiting(row: Row) -> Waiting:
    task_id, lane, priority, _, turn, arrival, waiting_since, preferred = row
    return Waiting(
        urgency(priority, moment(waiting_since)), turn, arrival, task_id, lane, preferred
    )


def _pool(dialect: Dialect, lanes: Sequence[str], preferred: set[str], limit: int) -> Program[Pool]:
    """Enough free agents for the lanes, and those that tasks prefer."""
    pool = Pool()
    rows = list((yield Fetch(dialect.sql(_FREE), (dump(lanes), limit * len(lanes)))))
    if preferred:
        args = (dump(lanes), dump(sorted(preferred)))
        rows += [row for row in (yield Fetch(dialect.sql(_PREFERRED), args)) if row not in rows]
    for lane, agent_id, slots, last_used in rows:
        pool.add(lane, agent_id, slots, last_used)
    return pool


def _locked(dialect: Dialect, pairs: list[tuple[str, str]]) -> Program[list[tuple[str, str]]]:
    """Those pairs whose task nobody else has taken, and whose agent still has the slots."""
    tasks = dump(sorted(task_id for task_id, _ in pairs))
    rows = yield Fetch(dialect.sql(_STILL_QUEUED), (tasks,))
    queued = {row[0] for row in rows}
    agents = dump(sorted({agent_id for _, agent_id in pairs}))
    rows = yield Fetch(dialect.sql(_STILL_FREE), (agents,))
    slots = {row[0]: row[1] for row in rows}
    kept = []
    for task_id, agent_id in pairs:
        if task_id in queued and slots.get(agent_id, 0) > 0:
            slots[agent_id] -= 1
            kept.append((task_id, agent_id))
    return kept


def _mark(
    dialect: Dialect,
    pairs: list[tuple[str, str]],
    owner: str,
    now: datetime,
    lease_until: datetime,
) -> Program[list[Claim]]:
    uses = yield from reserve("arrivals", len(pairs))
    rows = yield Fetch(dialect.sql(_TASKS), (dump([task_id for task_id, _ in pairs]),))
    found = {(task := load_task(row[0])).id: (task, row) for row in rows}
    agents = dump(sorted({agent_id for _, agent_id in pairs}))
    rows = yield Fetch(dialect.sql("SELECT id, doc FROM agents WHERE id {among}"), (agents,))
    known = {row[0]: load_agent(row[1]) for row in rows}
    claims, marked = [], []
    for task_id, agent_id in pairs:
        task, row = found[task_id]
        claimed = claimed_task(task, agent_id, owner, now, lease_until)
        marked.append(task_row(claimed, row[1], row[2]))
        claims.append(Claim(claimed, load_session(row[3], row[4]), known[agent_id]))
    yield Execute(upsert("tasks", TASK_COLUMNS), marked)
    yield Execute(
        "UPDATE agents SET in_flight = in_flight + 1, last_used = ? WHERE id = ?",
        [(next(uses), agent_id) for _, agent_id in pairs],
    )
    yield from _note_turns(claims, found)
    yield from write_events([dispatched_event(one.task, now) for one in claims])
    return claims


def _note_turns(claims: Sequence[Claim], found: dict[str, tuple[Task, Row]]) -> Program[None]:
    """How far each level has been served."""
    served: dict[tuple[str, int, int], int] = {}
    for one in claims:
        task, row = found[one.task.id]
        level = task.lane, int(task.direct_next), task.priority
        served[level] = max(served.get(level, 0), row[1])
    yield Execute(
        "INSERT INTO served_turns (lane, direct, priority, turn) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (lane, direct, priority) DO UPDATE SET turn = excluded.turn "
        "WHERE excluded.turn > served_turns.turn",
        [(*level, turn) for level, turn in sorted(served.items())],
    )
