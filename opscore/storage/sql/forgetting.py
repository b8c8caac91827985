"""Forgetting what has ended and is too old or too much.

Others may forget at the same time: only what a statement says it has deleted is counted, or what
is held while it is deleted.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from opscore.crash_points import crash_point
from opscore.models import EventType, Retention
from opscore.storage.interface import EARLY_REPORT_AGE
from opscore.storage.sql.codec import dump, micros
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.residue import forget_definitions, forget_residue, forget_turns
from opscore.storage.sql.surplus import Surplus, count_surplus
from opscore.storage.sql.tallies import Tally, tasks_tally
from opscore.storage.sql.writing import write_events

_OLD_SESSIONS = """
SELECT id, definition FROM sessions WHERE ended_at IS NOT NULL AND (
    ended_at < ? OR (ended_at, id) <= (
        SELECT ended_at, id FROM sessions WHERE ended_at IS NOT NULL
        ORDER BY ended_at DESC, id DESC LIMIT 1 OFFSET ?
    )
)
"""
_OLD_SESSIONS_BATCH = f"{_OLD_SESSIONS} ORDER BY ended_at, id LIMIT ? {{skip_locked}}"

_OLD_AGENTS = """
SELECT id FROM agents WHERE gone_at IS NOT NULL AND in_flight = 0 AND (
    gone_at < ? OR (gone_at, id) <= (
        SELECT gone_at, id FROM agents WHERE gone_at IS NOT NULL
        ORDER BY gone_at DESC, id DESC LIMIT 1 OFFSET ?
    )
) AND NOT EXISTS (
    SELECT 1 FROM tasks WHERE lane = 'agent:' || agents.id
    AND (status = 'queued' OR status = 'delayed')
)
"""
_OLD_AGENTS_BATCH = f"{_OLD_AGENTS} ORDER BY gone_at, id LIMIT ? {{skip_locked}}"

# Events are numbered in about the order of their times. So the last one that is too old is found
# by halving, however many there are, and only what comes before it is looked at.
_MIDDLE = "(low + high) / 2"
_IS_OLD = f"(SELECT at FROM events WHERE seq >= {_MIDDLE} ORDER BY seq LIMIT 1) < ?"
_LAST_EVENTS = f"""
WITH RECURSIVE half(low, high) AS (
    SELECT (SELECT min(seq) FROM events), (SELECT max(seq) FROM events) + 1
    UNION ALL
    SELECT CASE WHEN {_IS_OLD} THEN {_MIDDLE} + 1 ELSE low END,
        CASE WHEN {_IS_OLD} THEN high ELSE {_MIDDLE} END
    FROM half WHERE low < high
)
SELECT coalesce(max(low) - 1, 0), coalesce((SELECT max(seq) FROM events), 0) FROM half
"""

# Events of sessions go with their sessions; an agent's newest report is kept.
_OLD_EVENTS = """
SELECT seq, type, agent_id FROM events AS old WHERE session_id IS NULL
AND seq <= ? AND (seq <= ? OR at < ?)
AND (type <> 'agent.state' OR seq < (
    SELECT max(seq) FROM events WHERE type = 'agent.state' AND agent_id = old.agent_id
))
"""
_FORGET_EVENTS = f"""
DELETE FROM events WHERE seq IN (
    SELECT seq FROM ({_OLD_EVENTS}) AS batch ORDER BY seq LIMIT ?
) RETURNING type
"""


# Beyond the bound the oldest go, but none whose session is unfinished: it would run twice.
_SURPLUS_KEYS = """
SELECT key, expires_at FROM idempotency_keys AS old WHERE (expires_at, key) <= (
    SELECT expires_at, key FROM idempotency_keys
    ORDER BY expires_at DESC, key DESC LIMIT 1 OFFSET ?
) AND NOT EXISTS (
    SELECT 1 FROM sessions WHERE sessions.id = old.session_id AND sessions.ended_at IS NULL
)
"""
_DELETE_SURPLUS_KEYS = f"""
DELETE FROM idempotency_keys WHERE key IN (
    SELECT key FROM ({_SURPLUS_KEYS}) AS surplus ORDER BY expires_at, key LIMIT ?
) RETURNING 1
"""
_COUNT_KEYS = f"""
SELECT count(*) FROM idempotency_keys
WHERE expires_at <= ? OR key IN (SELECT key FROM ({_SURPLUS_KEYS}) AS surplus)
"""


def prune(
    dialect: Dialect, retention: Retention, now: datetime, surplus: Surplus
) -> Program[dict[str, int]]:
    oldest = micros(now - retention.ended_session_age)
    batch = retention.batch
    counts: dict[str, int] = {}
    tally: Tally = Counter()
    sessions = yield Fetch(
        dialect.sql(_OLD_SESSIONS_BATCH), (oldest, retention.ended_sessions, batch)
    )
    counts["sessions"] = len(sessions)
    if sessions:
        counts["tasks"] = yield from _forget_sessions(dialect, sessions, tally)
    agents = yield Fetch(dialect.sql(_OLD_AGENTS_BATCH), (oldest, retention.gone_agents, batch))
    counts["agents"] = len(agents)
    if agents:
        yield from _forget_agents(dialect, [row[0] for row in agents], tally)
    old_events = yield from _old_events(retention, now)
    events = yield Fetch(_FORGET_EVENTS, (*old_events, batch))
    counts["history"] = sum(row[0] == EventType.AGENT_STATE for row in events)
    counts["events"] = len(events) - counts["history"]
    if events:
        crash_point("prune.events-gone")
        tally["events"] -= len(events)
    for kind, table, key, column, until in _expiring(now):
        counts[kind] = yield from _forget_expired(table, key, column, until, batch)
    keys = yield Fetch(_DELETE_SURPLUS_KEYS, (retention.idempotency_keys, batch))
    counts["idempotencyKeys"] += len(keys)
    if not any(counts.values()):
        counts["events"] = yield from surplus.forget(retention)
        tally["events"] -= counts["events"]
    yield from forget_residue(dialect, now)
    yield from write_events((), tally)
    return {kind: count for kind, count in counts.items() if count}


def prunable(retention: Retention, now: datetime) -> Program[dict[str, int]]:
    """What `prune` would forget, were it called until it forgets nothing more."""
    oldest = micros(now - retention.ended_session_age)
    sessions = (oldest, retention.ended_sessions)
    agents = (oldest, retention.gone_agents)
    events = yield from _old_events(retention, now)
    rows = yield Fetch(
        _PRUNABLE, (*sessions, *sessions, *agents, *events, *agents, *sessions, *agents)
    )
    counts: dict[str, int] = {row[0]: row[1] for row in rows}
    gone = counts.pop(_THEIRS) + counts.get("events", 0) + counts.get("history", 0)
    surplus = yield from count_surplus(retention, gone)
    counts["events"] = counts.get("events", 0) + surplus
    for kind, table, _, column, until in _expiring(now):
        found = yield Fetch(f"SELECT count(*) FROM {table} WHERE {column} < ?", (micros(until),))
        counts[kind] = found[0][0]
    keys = yield Fetch(_COUNT_KEYS, (micros(now), retention.idempotency_keys))
    counts["idempotencyKeys"] = keys[0][0]
    return {kind: count for kind, count in counts.items() if count}


def _old_events(retention: Retention, now: datetime) -> Program[tuple[int, int, int]]:
    """Which events are too old or too many: up to which number, for their number, or their age."""
    before = micros(now - retention.event_age)
    rows = yield Fetch(_LAST_EVENTS, (before, before))
    last_old, last = rows[0]
    last_surplus = last - retention.events
    return max(last_old, last_surplus), last_surplus, before


_THEIRS = "events of sessions and agents"

# Reports of an agent that is forgotten go with it.
_PRUNABLE = f"""
SELECT 'sessions' AS kind, count(*) FROM ({_OLD_SESSIONS}) AS one
UNION ALL
SELECT 'tasks', count(*) FROM tasks
WHERE session_id IN (SELECT id FROM ({_OLD_SESSIONS}) AS two)
UNION ALL
SELECT 'agents', count(*) FROM ({_OLD_AGENTS}) AS three
UNION ALL
SELECT CASE WHEN type = 'agent.state' THEN 'history' ELSE 'events' END, count(*)
FROM ({_OLD_EVENTS}) AS four
WHERE type <> 'agent.state' OR agent_id NOT IN (SELECT id FROM ({_OLD_AGENTS}) AS five)
GROUP BY 1
UNION ALL
SELECT '{_THEIRS}', count(*) FROM events
WHERE session_id IN (SELECT id FROM ({_OLD_SESSIONS}) AS six)
OR (type = 'agent.state' AND agent_id IN (SELECT id FROM ({_OLD_AGENTS}) AS seven))
"""


def _expiring(now: datetime) -> Sequence[tuple[str, str, str, str, datetime]]:
    """What expires: its kind, table and key, the column of its time, and the time."""
    after = now + timedelta(microseconds=1)
    return (
        ("idempotencyKeys", "idempotency_keys", "key", "expires_at", after),
        ("receipts", "webhook_receipts", "signature", "expires_at", after),
        ("earlyReports", "early_reports", "agent_id", "received_at", now - EARLY_REPORT_AGE),
    )


def _forget_expired(table: str, key: str, column: str, until: datetime, limit: int) -> Program[int]:
    some = f"SELECT {key} FROM {table} WHERE {column} < ? LIMIT ?"
    rows = yield Fetch(
        # Asked again of what is deleted: it may just have been renewed.
        f"DELETE FROM {table} WHERE {key} IN ({some}) AND {column} < ? RETURNING 1",
        (micros(until), limit, micros(until)),
    )
    return len(rows)


def _forget_agents(dialect: Dialect, ids: list[str], tally: Tally) -> Program[None]:
    among = dump(ids)
    reports = yield Fetch(
        dialect.sql(
            "DELETE FROM events WHERE type = 'agent.state' AND agent_id {among} RETURNING seq"
        ),
        (among,),
    )
    yield Execute(dialect.sql("DELETE FROM agents WHERE id {among}"), [(among,)])
    crash_point("prune.agents-gone")
    yield Execute(dialect.sql("DELETE FROM agent_lanes WHERE agent_id {among}"), [(among,)])
    yield from forget_turns(dialect)
    tally["agents"] -= len(ids)
    tally["events"] -= len(reports)


def _forget_sessions(dialect: Dialect, sessions: Sequence[Row], tally: Tally) -> Program[int]:
    """The sessions with their tasks and events; how many tasks these were."""
    among = dump([row[0] for row in sessions])
    tasks = yield Fetch(
        dialect.sql("DELETE FROM tasks WHERE session_id {among} RETURNING status, queue_bytes"),
        (among,),
    )
    crash_point("prune.tasks-gone")
    events = yield Fetch(
        dialect.sql("DELETE FROM events WHERE session_id {among} RETURNING seq"), (among,)
    )
    yield Execute(dialect.sql("DELETE FROM sessions WHERE id {among}"), [(among,)])
    crash_point("prune.sessions-gone")
    yield from forget_definitions(dialect, {row[1] for row in sessions})
    tally.update(tasks_tally(((row[0], row[1]) for row in tasks), ()))
    tally["sessions"] -= len(sessions)
    tally["events"] -= len(events)
    return len(tasks)
