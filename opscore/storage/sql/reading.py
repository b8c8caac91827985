"""Reading facts: everything one decision needs, in few statements."""

from collections.abc import Sequence
from datetime import datetime

from opscore.models import (
    Agent,
    AgentFacts,
    Candidate,
    LaneFacts,
    RegistrationFacts,
    SessionFacts,
    Task,
    TaskFacts,
    TaskStatus,
    WorkflowSession,
)
from opscore.storage.damage import read_or_none, readable
from opscore.storage.interface import DueItems
from opscore.storage.sql.codec import (
    dump,
    load_agent,
    load_report,
    load_session,
    load_task,
    micros,
    moment,
)
from opscore.storage.sql.program import Dialect, Fetch, Program, Row
from opscore.storage.sql.rows import level_of

IN_FLIGHT = "(tasks.status = 'dispatched' OR tasks.status = 'running')"
WAITING = "(tasks.status = 'queued' OR tasks.status = 'delayed')"

_TASK_FACTS = """
SELECT tasks.doc, sessions.doc, definitions.doc, agents.doc, NULL
FROM tasks JOIN sessions ON sessions.id = tasks.session_id
JOIN definitions ON definitions.hash = sessions.definition
LEFT JOIN agents ON agents.id = tasks.agent_id
"""
_NAMED = f"{_TASK_FACTS} WHERE tasks.id = ?"
# Only the row of an agent says how many tasks it has in flight.
_AGENTS = """
SELECT NULL AS task, NULL AS session, NULL AS definition, doc AS agent, in_flight
FROM agents WHERE id {among}
"""
_ONLY = f"""
{_TASK_FACTS} WHERE tasks.agent_id {{among}} AND {IN_FLIGHT} AND agents.in_flight = 1
"""
_NAMED_ONES = f"{_TASK_FACTS} WHERE tasks.id {{among}}"

_REGISTRATION_FACTS = """
SELECT 'agent' AS kind, doc FROM agents WHERE id = ?
UNION ALL
SELECT 'early', doc FROM early_reports WHERE agent_id = ? AND received_at >= ?
"""
_NAMESAKES = "SELECT id, doc FROM agents WHERE agentkit_name = ? AND id <> ? ORDER BY id"

_SESSION = """
SELECT sessions.doc, definitions.doc
FROM sessions JOIN definitions ON definitions.hash = sessions.definition
WHERE sessions.id = ?
"""
_SESSION_FACTS = f"""
SELECT first.*, 0 AS arrival FROM ({_SESSION}) AS first
UNION ALL
SELECT doc, NULL, arrival FROM tasks WHERE session_id = ?
"""

_DUE = """
SELECT kind, id FROM (
    SELECT * FROM (SELECT 'task' AS kind, id, due_at FROM tasks
        WHERE due_at <= ? ORDER BY due_at LIMIT ?) AS t
    UNION ALL
    SELECT * FROM (SELECT 'session' AS kind, id, due_at FROM sessions
        WHERE due_at <= ? ORDER BY due_at LIMIT ?) AS s
    UNION ALL
    SELECT * FROM (SELECT 'agent' AS kind, id, due_at FROM agents
        WHERE due_at <= ? ORDER BY due_at LIMIT ?) AS a
) AS due ORDER BY due_at, kind, id LIMIT ?
"""

_NEXT_DUE = """
SELECT (SELECT min(due_at) FROM tasks WHERE due_at IS NOT NULL),
       (SELECT min(due_at) FROM sessions WHERE due_at IS NOT NULL),
       (SELECT min(due_at) FROM agents WHERE due_at IS NOT NULL)
"""

# The last letter of a level is the priority.
_PLACES = """
SELECT count(*), coalesce(sum(CASE
    WHEN substr(level, length(level)) > ? THEN 1
    WHEN substr(level, length(level)) < ? THEN 0
    WHEN turn < own.own_turn THEN 1
    WHEN turn = own.own_turn AND arrival < own.own_arrival THEN 1
    ELSE 0 END), 0), max(own.own_turn)
FROM tasks LEFT JOIN (
    SELECT turn AS own_turn, arrival AS own_arrival FROM tasks WHERE id = ? AND status = 'queued'
) AS own ON 1 = 1
WHERE lane = ? AND status = 'queued'
"""

_STRANDED = f"""
SELECT tasks.id FROM agents JOIN tasks ON tasks.lane = 'agent:' || agents.id
WHERE agents.gone_at IS NOT NULL AND {WAITING} AND NOT EXISTS (
    SELECT 1 FROM agent_lanes JOIN agents AS others ON others.id = agent_lanes.agent_id
    WHERE agent_lanes.lane = tasks.lane AND others.gone_at IS NULL
) ORDER BY tasks.id LIMIT ?
"""


def _task_facts(row: Row) -> TaskFacts:
    task, agent_doc = load_task(row[0]), row[3]
    # An agent that cannot be read must not hold its tasks up.
    agent = agent_doc and read_or_none("agents", task.agent_id or "", lambda: load_agent(agent_doc))
    return TaskFacts(task, load_session(row[1], row[2]), agent)


Ask = tuple[str, str | None]
"""An agent's id, and the id of the task that is named, if one is."""


def agents_facts(dialect: Dialect, asks: Sequence[Ask]) -> Program[list[AgentFacts | None]]:
    parts = (
        (_AGENTS, {agent_id for agent_id, _ in asks}),
        (_ONLY, {agent_id for agent_id, task_id in asks if task_id is None}),
        (_NAMED_ONES, {task_id for _, task_id in asks if task_id is not None}),
    )
    sql = " UNION ALL ".join(part for part, ids in parts if ids)
    args = tuple(dump(sorted(ids)) for _, ids in parts if ids)
    rows = yield Fetch(dialect.sql(sql), args)
    agents = ((load_agent(row[3]), row[4]) for row in rows if row[4] is not None)
    known = {agent.id: (agent, in_flight) for agent, in_flight in agents}
    facts = [_task_facts(row) for row in rows if row[4] is None]
    by_task = {one.task.id: one for one in facts}
    only = {one.task.agent_id: one for one in facts if one.task.status.in_flight}

    def of(agent_id: str, task_id: str | None) -> AgentFacts | None:
        if agent_id not in known:
            return None
        agent, in_flight = known[agent_id]
        if task_id is not None:
            return AgentFacts(agent, in_flight, named=by_task.get(task_id))
        return AgentFacts(agent, in_flight, only=only.get(agent_id) if in_flight == 1 else None)

    return [of(*ask) for ask in asks]


def registration_facts(
    agent_id: str, since: datetime, name: str | None
) -> Program[RegistrationFacts]:
    rows = yield Fetch(_REGISTRATION_FACTS, (agent_id, agent_id, micros(since)))
    docs = {row[0]: row[1] for row in rows}
    others = (yield Fetch(_NAMESAKES, (name, agent_id))) if name else []
    return RegistrationFacts(
        load_agent(docs["agent"]) if "agent" in docs else None,
        load_report(docs["early"]) if "early" in docs else None,
        tuple(agent for _, agent in readable("agents", others, lambda row: load_agent(row[1]))),
    )


def task_facts(task_id: str) -> Program[TaskFacts | None]:
    rows = yield Fetch(_NAMED, (task_id,))
    return _task_facts(rows[0]) if rows else None


def session(session_id: str) -> Program[WorkflowSession | None]:
    rows = yield Fetch(_SESSION, (session_id,))
    return load_session(*rows[0]) if rows else None


def session_facts(session_id: str) -> Program[SessionFacts | None]:
    rows = yield Fetch(_SESSION_FACTS, (session_id, session_id))
    found = next((load_session(row[0], row[1]) for row in rows if row[1] is not None), None)
    if found is None:
        return None
    tasks = [(load_task(row[0]), row[2]) for row in rows if row[1] is None]
    tasks.sort(key=lambda one: (one[0].created_at, one[1], one[0].id))
    at_work = {task.agent_id for task, _ in tasks if task.status.in_flight and task.agent_id}
    agents: list[Agent] = []
    for agent_id in sorted(at_work):
        rows = yield Fetch("SELECT id, doc FROM agents WHERE id = ?", (agent_id,))
        read = readable("agents", rows, lambda row: load_agent(row[1]))
        agents.extend(agent for _, agent in read)
    return SessionFacts(found, tuple(task for task, _ in tasks), tuple(agents))


def due(now: datetime, limit: int) -> Program[DueItems]:
    until = micros(now)
    rows = yield Fetch(_DUE, (until, limit, until, limit, until, limit, limit))
    return DueItems(*(tuple(row[1] for row in rows if row[0] == kind) for kind in _KINDS))


_KINDS = ("task", "session", "agent")


def next_due() -> Program[datetime | None]:
    rows = yield Fetch(_NEXT_DUE)
    moments = [value for value in rows[0] if value is not None]
    return moment(min(moments)) if moments else None


def stranded(limit: int) -> Program[Sequence[str]]:
    rows = yield Fetch(_STRANDED, (limit,))
    return [row[0] for row in rows]


def candidate(agent_id: str) -> Program[Candidate | None]:
    rows = yield Fetch("SELECT doc, in_flight FROM agents WHERE id = ?", (agent_id,))
    return Candidate(load_agent(rows[0][0]), rows[0][1]) if rows else None


def agent_tasks(agent_id: str) -> Program[Sequence[Task]]:
    rows = yield Fetch(
        f"SELECT doc FROM tasks WHERE agent_id = ? AND {IN_FLIGHT} ORDER BY dispatched_at, id",
        (agent_id,),
    )
    return [load_task(row[0]) for row in rows]


def lane(task: Task, limit: int) -> Program[LaneFacts]:
    serving = (
        "FROM agent_lanes JOIN agents ON agents.id = agent_lanes.agent_id "
        "WHERE lane = ? AND standing <> 'deregistered'"
    )
    agents = yield Fetch(
        f"SELECT doc, in_flight {serving} ORDER BY agents.id LIMIT ?", (task.lane, limit)
    )
    counted = yield Fetch(f"SELECT count(*) {serving}", (task.lane,))
    level = level_of(task)
    places = yield Fetch(_PLACES, (level[-1], level[-1], task.id, task.lane))
    waiting, ahead, own_turn = places[0]
    return LaneFacts(
        tuple(Candidate(load_agent(row[0]), row[1]) for row in agents),
        counted[0][0],
        int(ahead) if task.status is TaskStatus.QUEUED and own_turn is not None else None,
        waiting,
    )
