"""Claiming: which ready tasks go to which free agents, and marking them so."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from opscore.crash_points import crash_point
from opscore.models import Agent, Claim, Task
from opscore.storage.claimed import claimed_task, dispatched_event
from opscore.storage.ordering import urgency
from opscore.storage.sql.arrivals import Arrivals
from opscore.storage.sql.codec import dump, load_agent, load_session, load_task, moment
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.rows import TASK_COLUMNS, lane_of, level_of, priority_of, task_row, upsert
from opscore.storage.sql.tallies import tasks_tally
from opscore.storage.sql.writing import write_events

_LEVELS_AT_ONCE = 200

# A skip scan: it jumps from level to level, however many tasks stand on each.
_OPEN_LEVELS = """
WITH RECURSIVE queued(level) AS (
    SELECT min(level) FROM tasks WHERE status = 'queued'
    UNION ALL
    SELECT (SELECT min(level) FROM tasks WHERE status = 'queued' AND level > queued.level)
    FROM queued WHERE queued.level IS NOT NULL
)
SELECT level FROM queued
WHERE level IS NOT NULL AND substr(level, length(level) - 1, 1) >= ? AND EXISTS (
    SELECT 1 FROM agent_lanes JOIN agents ON agents.id = agent_lanes.agent_id
    WHERE agent_lanes.lane = substr(queued.level, 1, length(queued.level) - 3)
    AND agents.in_flight < agents.slots
)
LIMIT ?
"""

_HEADS = """
SELECT tasks.id, tasks.level, tasks.turn, tasks.arrival, tasks.waiting_since, tasks.preferred
FROM {each}(?) AS one, {each}((
    SELECT {array}(id) FROM (
        SELECT id FROM tasks WHERE status = 'queued' AND level = one.value
        ORDER BY turn, arrival LIMIT ?
    ) AS head
)) AS two JOIN tasks ON tasks.id = two.value
"""

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

_STILL_QUEUED = """
SELECT tasks.id, tasks.doc, tasks.turn, tasks.arrival, sessions.doc, definitions.doc
FROM (
    SELECT * FROM tasks WHERE id {among} AND status = 'queued' ORDER BY id {skip_locked}
) AS tasks JOIN sessions ON sessions.id = tasks.session_id
JOIN definitions ON definitions.hash = sessions.definition
"""
# Whoever changes these agents at the moment is waited for: to pass them over would leave their
# tasks until the next look.
_STILL_FREE = "SELECT id, slots - in_flight, doc FROM agents WHERE id {among} ORDER BY id {lock}"


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
    arrivals: Arrivals,
    owner: str,
    now: datetime,
    lease_until: datetime,
    limit: int,
    only_direct: bool,
) -> Program[list[Claim] | None]:
    """None when all that was ready is being claimed by others at this moment."""
    rows = yield Fetch(_OPEN_LEVELS, ("1" if only_direct else "0", _LEVELS_AT_ONCE))
    if not rows:
        return []
    names = [row[0] for row in rows]
    levels = yield from _levels(dialect, names, limit)
    preferred = {task.preferred for level in levels for task in level if task.preferred}
    lanes = sorted({lane_of(name) for name in names})
    pool = yield from _pool(dialect, lanes, preferred, limit)
    pairs = plan(levels, pool, limit)
    if not pairs:
        return []
    crash_point("claim.planned")
    locked = yield from _locked(dialect, pairs)
    if not locked.pairs:
        return None
    crash_point("claim.locked")
    return (yield from _mark(arrivals, locked, owner, now, lease_until))


def _levels(dialect: Dialect, names: Sequence[str], limit: int) -> Program[list[list[Waiting]]]:
    """The heads of the levels, each in the order of its turns."""
    rows = yield Fetch(dialect.sql(_HEADS), (dump(names), limit))
    found: dict[str, list[Waiting]] = {}
    for row in rows:
        found.setdefault(row[1], []).append(_waiting(row))
    return [sorted(level, key=_by_turn) for _, level in sorted(found.items())]


def _by_turn(task: Waiting) -> tuple[int, int]:
    return task.turn, task.arrival


def _waiting(row: Row) -> Waiting:
    task_id, level, turn, arrival, waiting_since, preferred = row
    since = moment(waiting_since)
    return Waiting(
        urgency(priority_of(level), since), turn, arrival, task_id, lane_of(level), preferred
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


@dataclass(frozen=True, slots=True)
class Locked:
    """Pairs of task and agent that are held for this claim, with what is stored of them."""

    pairs: list[tuple[str, str]]
    tasks: dict[str, tuple[Task, Row]]
    agents: dict[str, Agent]


def _locked(dialect: Dialect, pairs: list[tuple[str, str]]) -> Program[Locked]:
    """Those pairs whose task nobody else has taken, and whose agent still has the slots."""
    tasks = dump(sorted(task_id for task_id, _ in pairs))
    rows = yield Fetch(dialect.sql(_STILL_QUEUED), (tasks,))
    queued = {row[0]: (load_task(row[1]), row) for row in rows}
    agents = dump(sorted({agent_id for task_id, agent_id in pairs if task_id in queued}))
    rows = yield Fetch(dialect.sql(_STILL_FREE), (agents,))
    slots = {row[0]: row[1] for row in rows}
    kept = []
    for task_id, agent_id in pairs:
        if task_id in queued and slots.get(agent_id, 0) > 0:
            slots[agent_id] -= 1
            kept.append((task_id, agent_id))
    return Locked(kept, queued, {row[0]: load_agent(row[2]) for row in rows})


def _mark(
    arrivals: Arrivals,
    locked: Locked,
    owner: str,
    now: datetime,
    lease_until: datetime,
) -> Program[list[Claim]]:
    pairs = locked.pairs
    found = {task_id: locked.tasks[task_id] for task_id, _ in pairs}
    claims, marked = [], []
    for task_id, agent_id in pairs:
        task, row = found[task_id]
        claimed = claimed_task(task, agent_id, owner, now, lease_until)
        marked.append(task_row(claimed, row[2], row[3]))
        claims.append(Claim(claimed, load_session(row[4], row[5]), locked.agents[agent_id]))
    yield Execute(upsert("tasks", TASK_COLUMNS), marked)
    crash_point("claim.marked")
    yield Execute(
        "UPDATE agents SET in_flight = in_flight + 1, last_used = ? WHERE id = ?",
        [(arrivals.next(), agent_id) for _, agent_id in pairs],
    )
    crash_point("claim.slots-taken")
    yield from _note_turns(claims, found)
    tally = tasks_tally(
        (task.status.value for task, _ in found.values()),
        (one.task.status.value for one in claims),
    )
    yield from write_events([dispatched_event(one.task, now) for one in claims], tally)
    return claims


def _note_turns(claims: Sequence[Claim], found: dict[str, tuple[Task, Row]]) -> Program[None]:
    """How far each level has been served."""
    served: dict[str, int] = {}
    for one in claims:
        task, row = found[one.task.id]
        level = level_of(task)
        served[level] = max(served.get(level, 0), row[2])
    yield Execute(
        "INSERT INTO turns (level, turn) VALUES (?, ?) ON CONFLICT (level) DO UPDATE "
        "SET turn = excluded.turn WHERE excluded.turn > turns.turn",
        sorted(served.items()),
    )
