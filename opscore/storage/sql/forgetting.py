"""Forgetting what has ended, and counting what there is."""

from datetime import datetime, timedelta

from opscore.models import Counts, EventType, Retention, TaskStatus
from opscore.storage.interface import EARLY_REPORT_AGE
from opscore.storage.sql.codec import dump, micros
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program

_OLD_SESSIONS = """
SELECT id FROM sessions WHERE ended_at IS NOT NULL AND (
    ended_at < ? OR ended_at <= (
        SELECT ended_at FROM sessions WHERE ended_at IS NOT NULL
        ORDER BY ended_at DESC LIMIT 1 OFFSET ?
    )
) ORDER BY ended_at LIMIT ?
"""

_OLD_AGENTS = """
SELECT id FROM agents WHERE gone_at IS NOT NULL AND in_flight = 0 AND (
    gone_at < ? OR gone_at <= (
        SELECT gone_at FROM agents WHERE gone_at IS NOT NULL
        ORDER BY gone_at DESC LIMIT 1 OFFSET ?
    )
) AND NOT EXISTS (
    SELECT 1 FROM tasks WHERE lane = 'agent:' || agents.id
    AND (status = 'queued' OR status = 'delayed')
) ORDER BY gone_at LIMIT ?
"""

# Events of sessions go with their sessions; an agent's newest report is kept.
_OLD_EVENTS = """
SELECT seq, type FROM events AS old WHERE session_id IS NULL
AND (seq <= (SELECT max(seq) FROM events) - ? OR at < ?)
AND (type <> 'agent.state' OR seq < (
    SELECT max(seq) FROM events WHERE type = 'agent.state' AND agent_id = old.agent_id
))
ORDER BY seq LIMIT ?
"""

_UNUSED_DEFINITIONS = """
SELECT hash FROM definitions WHERE
    NOT EXISTS (SELECT 1 FROM sessions WHERE sessions.definition = definitions.hash)
    AND NOT EXISTS (SELECT 1 FROM workflows WHERE workflows.definition = definitions.hash)
LIMIT ?
"""


def prune(dialect: Dialect, retention: Retention, now: datetime) -> Program[dict[str, int]]:
    oldest = micros(now - retention.ended_session_age)
    batch = retention.batch
    counts: dict[str, int] = {}
    sessions = yield Fetch(_OLD_SESSIONS, (oldest, retention.ended_sessions, batch))
    counts["sessions"] = len(sessions)
    if sessions:
        counts["tasks"] = yield from _forget_sessions(dialect, [row[0] for row in sessions])
    agents = yield Fetch(_OLD_AGENTS, (oldest, retention.gone_agents, batch))
    counts["agents"] = len(agents)
    if agents:
        ids = [(row[0],) for row in agents]
        yield Execute("DELETE FROM events WHERE type = 'agent.state' AND agent_id = ?", ids)
        yield Execute("DELETE FROM agents WHERE id = ?", ids)
        yield Execute("DELETE FROM agent_lanes WHERE agent_id = ?", ids)
    event_age = micros(now - retention.event_age)
    events = yield Fetch(_OLD_EVENTS, (retention.events, event_age, batch))
    counts["history"] = sum(row[1] == EventType.AGENT_STATE for row in events)
    counts["events"] = len(events) - counts["history"]
    if events:
        yield Execute("DELETE FROM events WHERE seq = ?", [(row[0],) for row in events])
    after = now + timedelta(microseconds=1)
    for kind, table, key, column, until in (
        ("idempotencyKeys", "idempotency_keys", "key", "expires_at", after),
        ("receipts", "webhook_receipts", "signature", "expires_at", after),
        ("earlyReports", "early_reports", "agent_id", "received_at", now - EARLY_REPORT_AGE),
    ):
        counts[kind] = yield from _forget_expired(table, key, column, until, batch)
    return {kind: count for kind, count in counts.items() if count}


def _forget_expired(table: str, key: str, column: str, until: datetime, limit: int) -> Program[int]:
    rows = yield Fetch(
        f"SELECT {key} FROM {table} WHERE {column} < ? LIMIT ?", (micros(until), limit)
    )
    if rows:
        yield Execute(f"DELETE FROM {table} WHERE {key} = ?", [(row[0],) for row in rows])
    return len(rows)


def _forget_sessions(dialect: Dialect, ids: list[str]) -> Program[int]:
    among = dump(ids)
    rows = yield Fetch(dialect.sql("SELECT count(*) FROM tasks WHERE session_id {among}"), (among,))
    for table, column in (("tasks", "session_id"), ("events", "session_id"), ("sessions", "id")):
        yield Execute(dialect.sql(f"DELETE FROM {table} WHERE {column} {{among}}"), [(among,)])
    unused = yield Fetch(_UNUSED_DEFINITIONS, (len(ids),))
    if unused:
        yield Execute("DELETE FROM definitions WHERE hash = ?", [(row[0],) for row in unused])
    return int(rows[0][0])


def counts() -> Program[Counts]:
    statuses = yield Fetch("SELECT status, count(*) FROM tasks GROUP BY status")
    others = yield Fetch(
        "SELECT (SELECT count(*) FROM agents), (SELECT count(*) FROM sessions), "
        "(SELECT count(*) FROM events)"
    )
    by_status = {row[0]: row[1] for row in statuses}
    agents, sessions, events = others[0]
    return Counts(
        agents=agents,
        sessions=sessions,
        tasks=sum(by_status.values()),
        waiting=sum(n for status, n in by_status.items() if TaskStatus(status).waiting),
        in_flight=sum(n for status, n in by_status.items() if TaskStatus(status).in_flight),
        events=events,
        by_status=by_status,
    )
