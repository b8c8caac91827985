"""Claiming: which ready tasks go to which free agents, and marking them so."""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from opscore.crash_points import crash_point
from opscore.models import (
    NO_AGENT,
    TOOL_LANE,
    Agent,
    Claim,
    ClaimScope,
    Task,
    TaskStatus,
    WorkflowSession,
)
from opscore.storage.claimed import claimed_task, dispatched_event
from opscore.storage.damage import readable
from opscore.storage.ordering import AGEING, lanes_of, urgency
from opscore.storage.sql.arrivals import Arrivals
from opscore.storage.sql.codec import MICROSECOND, dump, load_agent, load_session, load_task, moment
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.rows import TASK_COLUMNS, level_of, priority_of, queue_of, task_row, upsert
from opscore.storage.sql.tallies import tasks_tally, weight
from opscore.storage.sql.writing import write_events

_LEVELS_AT_ONCE = 200

_FEW = 50
_MANY = 2000
# What is at the end of the alphabet of the lanes that agents serve: they begin with `agent:` or
# `capability:`.
_LAST = "d"

_FREE = "SELECT id FROM agents %(by_free)s WHERE %(is_free)s ORDER BY last_used, id LIMIT"
_NEXT_LEVEL = "SELECT min(level) FROM tasks {by_queue} WHERE status = 'queued' AND level >"

# Looked at are the lanes of free agents, or those in which tasks wait, whichever are fewer: `few`
# and `first` begin to count both, and `free` are the agents whose lanes are looked at, unless
# they are too many. `queued` is a skip scan that jumps from level to level, however many tasks
# stand on each. `served` are the levels with a free agent, and those of tool steps, of kind 1,
# which need none (`kind <> '1'`: PostgreSQL would expect few rows of `kind = '0'`, and plan for
# them). `ready` are the most urgent of them; `heads` are the tasks whose turn is next there.
# Where a lane's name begins with another one and a slash, its levels are met twice. What stands
# in `%(…)s` follows from the scope of the claim.
_READY = f"""
WITH RECURSIVE few(id) AS (
    {_FREE} {_FEW + 1}
), first(level, number) AS (
    SELECT ({_NEXT_LEVEL} ''), 1 WHERE (SELECT count(*) FROM few) > {_FEW}
    UNION ALL
    SELECT ({_NEXT_LEVEL} first.level), number + 1 FROM first
    WHERE level IS NOT NULL AND number <= {_FEW}
), by_level(yes) AS (
    SELECT 1 WHERE (SELECT count(*) FROM few) > {_FEW}
    AND (SELECT count(level) FROM first) <= {_FEW}
), free(id) AS (
    SELECT id FROM ({_FREE} {_MANY + 1}) AS free WHERE NOT EXISTS (SELECT 1 FROM by_level)
), span(low, high) AS (
    SELECT '', '{_LAST}'
    WHERE EXISTS (SELECT 1 FROM by_level) OR (SELECT count(*) FROM free) > {_MANY}
    UNION
    SELECT agent_lanes.lane || '/', agent_lanes.lane || '0'
    FROM free JOIN agent_lanes ON agent_lanes.agent_id = free.id
    WHERE (SELECT count(*) FROM free) <= {_MANY}
    UNION
    SELECT '{TOOL_LANE}/', '{TOOL_LANE}0'
), queued(level, high) AS (
    SELECT (
        {_NEXT_LEVEL} span.low AND level < span.high
    ), span.high FROM span
    UNION ALL
    SELECT (
        {_NEXT_LEVEL} queued.level AND level < queued.high
    ), queued.high FROM queued WHERE queued.level IS NOT NULL
), kinds(level, lane, kind) AS (
    SELECT DISTINCT level, substr(level, 1, length(level) - 3), substr(level, length(level) - 1, 1)
    FROM queued WHERE level IS NOT NULL
), served(level, lane, kind) AS (
    SELECT level, lane, kind FROM kinds WHERE %(is_tool_in_scope)s
    UNION ALL
    SELECT level, lane, kind FROM kinds WHERE kind <> '1' AND EXISTS (
        SELECT 1 FROM agent_lanes JOIN agents ON agents.id = agent_lanes.agent_id
        WHERE agent_lanes.lane = kinds.lane
        AND agents.in_flight < agents.slots %(is_reachable)s
    )
), ready(level, lane, kind) AS (
    SELECT level, lane, kind FROM served
    ORDER BY (
        SELECT waiting_since FROM tasks {{by_queue}}
        WHERE status = 'queued' AND tasks.level = served.level ORDER BY turn, arrival LIMIT 1
    ) - {AGEING // MICROSECOND} * CAST(substr(level, length(level)) AS BIGINT), level
    LIMIT ?
), heads AS (
    SELECT tasks.id, tasks.level, tasks.preferred, tasks.turn, tasks.arrival, tasks.waiting_since
    FROM ready, {{each}}((
        SELECT {{array}}(id) FROM (
            SELECT id FROM tasks {{by_queue}} WHERE status = 'queued' AND level = ready.level
            ORDER BY turn, arrival LIMIT ?
        ) AS head
    )) AS two JOIN tasks ON tasks.id = two.value
)
SELECT 'task' AS kind, heads.* FROM heads
UNION ALL
SELECT 'agent', agents.id, kinds.lane || '/' || kinds.kind, NULL,
    agents.slots - agents.in_flight, agents.last_used, 0
FROM (SELECT DISTINCT lane, kind FROM ready) AS kinds, {{each}}((
    SELECT {{array}}(id) FROM (
        SELECT agents.id FROM agent_lanes JOIN agents ON agents.id = agent_lanes.agent_id
        WHERE agent_lanes.lane = kinds.lane AND agents.in_flight < agents.slots %(is_reachable)s
        ORDER BY agents.last_used, agents.id LIMIT ?
    ) AS free
)) AS two JOIN agents ON agents.id = two.value
UNION ALL
SELECT 'preferred', agents.id, kinds.lane || '/' || kinds.kind, NULL,
    agents.slots - agents.in_flight, agents.last_used, 0
FROM (SELECT DISTINCT preferred FROM heads WHERE preferred IS NOT NULL) AS wanted
JOIN agents ON agents.id = wanted.preferred
JOIN agent_lanes ON agent_lanes.agent_id = agents.id
JOIN (SELECT DISTINCT lane, kind FROM ready) AS kinds ON kinds.lane = agent_lanes.lane
WHERE agents.in_flight < agents.slots %(is_reachable)s
"""

_ANY_AGENT = {"by_free": "{by_free}", "is_free": "in_flight < slots", "is_reachable": ""}
_REACHABLE_AGENT = {
    "by_free": "{by_reachable}",
    "is_free": "in_flight < slots AND has_endpoint = 1",
    "is_reachable": "AND agents.has_endpoint = 1",
}
_ANY_KIND = {"is_tool_in_scope": "kind = '1'"}
_NO_TOOLS = {"is_tool_in_scope": "1 = 0"}
_READY_IN = {
    ClaimScope.ALL: _READY % (_ANY_AGENT | _ANY_KIND),
    ClaimScope.WITHOUT_TOOLS: _READY % (_ANY_AGENT | _NO_TOOLS),
    ClaimScope.DIRECT: _READY % (_REACHABLE_AGENT | _NO_TOOLS),
    ClaimScope.DIRECT_AND_TOOLS: _READY % (_REACHABLE_AGENT | _ANY_KIND),
}

# Tasks that others are claiming are passed over.
_HOLD = """
SELECT 'task' AS kind, tasks.id, tasks.doc, sessions.doc, definitions.doc, tasks.turn, tasks.arrival
FROM (
    SELECT * FROM tasks WHERE id {among} ORDER BY id {skip_locked}
) AS tasks JOIN sessions ON sessions.id = tasks.session_id
JOIN definitions ON definitions.hash = sessions.definition
UNION ALL
SELECT * FROM (
    SELECT 'agent' AS kind, id, doc, '' AS session, '' AS definition, slots - in_flight AS free, 0
    FROM agents WHERE id {among} ORDER BY id %s
) AS agents
"""
_HOLD_FREE, _HOLD_ALL = _HOLD % "{skip_locked}", _HOLD % "{lock}"

_PUT_ASIDE = {
    "tasks": "UPDATE tasks SET level = '' WHERE id = ?",
    "agents": "UPDATE agents SET slots = 0 WHERE id = ?",
}

# Each update of a row within one transaction looks through its earlier versions, so every agent
# is updated once, however many tasks it takes.
_TAKE_SLOTS = "UPDATE agents SET in_flight = in_flight + ?, last_used = ? WHERE id = ?"

R = TypeVar("R")
Pair = tuple[str, str]
"""The ids of a task and of the agent that gets it; NO_AGENT's for a tool step."""


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A queued task as far as its order goes."""

    urgency: datetime
    turn: int
    arrival: int
    id: str
    queue: str = field(compare=False)
    preferred: str | None = field(compare=False)


@dataclass
class Pool:
    """Free agents: how many slots each has, and which was used longest ago for each queue."""

    slots: dict[str, int] = field(default_factory=dict)
    queues: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    served: set[tuple[str, str]] = field(default_factory=set)

    def add(self, queue: str, agent_id: str, slots: int, last_used: int) -> None:
        self.slots[agent_id] = slots
        self.used.setdefault(agent_id, last_used)
        self.served.add((queue, agent_id))
        heapq.heappush(self.queues.setdefault(queue, []), (last_used, agent_id))

    def take(self, queue: str, preferred: str | None, use: int) -> str | None:
        agent_id = self._choose(queue, preferred)
        if agent_id is not None:
            self.slots[agent_id] -= 1
            self.used[agent_id] = use
        return agent_id

    def _choose(self, queue: str, preferred: str | None) -> str | None:
        if preferred and self.slots.get(preferred) and (queue, preferred) in self.served:
            return preferred
        agents = self.queues.get(queue, [])
        while agents:
            used, agent_id = agents[0]
            if not self.slots[agent_id]:
                heapq.heappop(agents)
            elif self.used[agent_id] != used:
                heapq.heapreplace(agents, (self.used[agent_id], agent_id))
            else:
                return agent_id
        return None


def plan(levels: Sequence[Sequence[Waiting]], pool: Pool, limit: int) -> list[Pair]:
    """Pairs of task and agent. Each level is in the order of its turns; the most urgent head
    of all goes first. Pure."""
    pairs: list[Pair] = []
    heads = [(level[0], number, 0) for number, level in enumerate(levels) if level]
    heapq.heapify(heads)
    use = max(pool.used.values(), default=0)
    while heads and len(pairs) < limit:
        task, number, place = heapq.heappop(heads)
        use += 1
        is_tool = task.queue.startswith(f"{TOOL_LANE}/")
        agent_id = NO_AGENT.id if is_tool else pool.take(task.queue, task.preferred, use)
        if agent_id is None:
            continue
        pairs.append((task.id, agent_id))
        if place + 1 < len(levels[number]):
            heapq.heappush(heads, (levels[number][place + 1], number, place + 1))
    return pairs


def look(dialect: Dialect, limit: int, scope: ClaimScope) -> Program[list[Pair]]:
    """What could be claimed now; nothing of it is held yet."""
    rows = yield Fetch(dialect.sql(_READY_IN[scope]), (_LEVELS_AT_ONCE, limit, limit))
    levels: dict[str, list[Waiting]] = {}
    pool = Pool()
    for kind, *row in rows:
        if kind == "task":
            levels.setdefault(row[1], []).append(_waiting(row))
    # In the order of their lists: an agent may stand in both, and in several lanes.
    for agent_id, queue, _, slots, last_used, _ in dict.fromkeys(
        tuple(row[1:]) for row in rows if row[0] != "task"
    ):
        pool.add(queue, agent_id, slots, last_used)
    ordered = [sorted(level, key=_by_turn) for _, level in sorted(levels.items())]
    return plan(ordered, pool, limit)


def _by_turn(task: Waiting) -> tuple[int, int]:
    return task.turn, task.arrival


def _waiting(row: Row) -> Waiting:
    task_id, level, preferred, turn, arrival, waiting_since = row
    since = moment(waiting_since)
    return Waiting(
        urgency(priority_of(level), since), turn, arrival, task_id, queue_of(level), preferred
    )


def take(
    dialect: Dialect,
    arrivals: Arrivals,
    pairs: list[Pair],
    owner: str,
    now: datetime,
    lease_until: datetime,
    scope: ClaimScope,
    wait: bool,
) -> Program[list[Claim]]:
    """Claim those pairs that nobody else has taken meanwhile.

    Where others hold an agent at the moment, its pairs are left out, or they are waited for.
    """
    crash_point("claim.planned")
    held = yield from _hold(dialect, pairs, scope, wait)
    if not held.pairs:
        return []
    crash_point("claim.locked")
    return (yield from _mark(arrivals, held, owner, now, lease_until))


@dataclass(frozen=True, slots=True)
class Waited:
    """A queued task that nobody else can take now, its session, its turn and its arrival."""

    task: Task
    session: WorkflowSession
    turn: int
    arrival: int


@dataclass(frozen=True, slots=True)
class Held:
    pairs: list[Pair]
    tasks: dict[str, Waited]
    agents: dict[str, Agent]


def _hold(dialect: Dialect, pairs: list[Pair], scope: ClaimScope, wait: bool) -> Program[Held]:
    """Those pairs whose task is still queued, and whose agent still has the slots."""
    ids = dump(sorted(task_id for task_id, _ in pairs))
    agent_ids = dump(sorted({agent_id for _, agent_id in pairs}))
    rows = yield Fetch(dialect.sql(_HOLD_ALL if wait else _HOLD_FREE), (ids, agent_ids))
    tasks = yield from _read("tasks", [row[1:] for row in rows if row[0] == "task"], _waited)
    agents = yield from _read(
        "agents", [row[1:] for row in rows if row[0] == "agent"], lambda row: load_agent(row[1])
    )
    slots = {row[1]: row[5] for row in rows if row[1] in agents}
    kept = []
    for task_id, agent_id in pairs:
        waited = tasks.get(task_id)
        if waited is None or waited.task.status is not TaskStatus.QUEUED:
            continue
        if waited.task.needs_agentkit:
            kept.append((task_id, NO_AGENT.id))
            continue
        if slots.get(agent_id, 0) < 1 or not scope.permits(waited.task, agents[agent_id]):
            continue
        if waited.task.lane in lanes_of(agents[agent_id]):
            slots[agent_id] -= 1
            kept.append((task_id, agent_id))
    return Held(kept, tasks, agents)


def _waited(row: Row) -> Waited:
    _, task, session, definition, turn, arrival = row
    return Waited(load_task(task), load_session(session, definition), turn, arrival)


def _read(table: str, rows: Sequence[Row], read: Callable[[Row], R]) -> Program[dict[str, R]]:
    """What can be read, by its id.

    The rest is put out of sight, or it would be chosen again and again. It comes back when it
    can be read: whatever looks for columns that differ from their record sets them right.
    """
    found = {row[0]: record for row, record in readable(table, rows, read)}
    unread = [(row[0],) for row in rows if row[0] not in found]
    if unread:
        yield Execute(_PUT_ASIDE[table], unread)
    return found


def _mark(
    arrivals: Arrivals,
    held: Held,
    owner: str,
    now: datetime,
    lease_until: datetime,
) -> Program[list[Claim]]:
    found = {task_id: held.tasks[task_id] for task_id, _ in held.pairs}
    claims, marked = [], []
    for task_id, agent_id in held.pairs:
        waited = found[task_id]
        claimed = claimed_task(waited.task, agent_id or None, owner, now, lease_until)
        marked.append(task_row(claimed, waited.turn, waited.arrival))
        claims.append(Claim(claimed, waited.session, held.agents.get(agent_id, NO_AGENT)))
    yield Execute(upsert("tasks", TASK_COLUMNS), marked)
    crash_point("claim.marked")
    yield Execute(_TAKE_SLOTS, _slots_taken(arrivals, held.pairs))
    crash_point("claim.slots-taken")
    yield from _note_turns(found.values())
    tally = tasks_tally(
        (weight(waited.task) for waited in found.values()),
        (weight(one.task) for one in claims),
    )
    yield from write_events([dispatched_event(one.task) for one in claims], tally)
    return claims


def _slots_taken(arrivals: Arrivals, pairs: Iterable[Pair]) -> list[tuple[int, int, str]]:
    """One row for each agent: the slots that it takes, the number of its last use, and its id."""
    taken: Counter[str] = Counter()
    used: dict[str, int] = {}
    for _, agent_id in pairs:
        if agent_id == NO_AGENT.id:
            continue
        taken[agent_id] += 1
        used[agent_id] = arrivals.next()
    return [(taken[agent_id], used[agent_id], agent_id) for agent_id in sorted(taken)]


def _note_turns(claimed: Iterable[Waited]) -> Program[None]:
    """How far each level has been served."""
    served: dict[str, int] = {}
    for waited in claimed:
        level = level_of(waited.task)
        served[level] = max(served.get(level, 0), waited.turn)
    yield Execute(
        "INSERT INTO turns (level, turn) VALUES (?, ?) ON CONFLICT (level) DO UPDATE "
        "SET turn = excluded.turn WHERE excluded.turn > turns.turn",
        sorted(served.items()),
    )
