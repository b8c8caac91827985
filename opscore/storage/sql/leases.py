"""Small programs: leases, early reports, idempotency keys, and the question whether all is well."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from opscore.crash_points import crash_point
from opscore.models import AgentKitKnowledge, IdempotencyRecord, StateReport
from opscore.storage.damage import readable
from opscore.storage.sql.batch import REGISTERING
from opscore.storage.sql.codec import dump, load_agentkit, load_task, micros, moment
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program, Row
from opscore.storage.sql.rows import TASK_COLUMNS, task_row, upsert

_EARLY_REPORTS = 1000

_HELD = "id {among} AND owner = ? AND (status = 'dispatched' OR status = 'running')"
_FREE = f"SELECT id, doc, turn, arrival FROM tasks WHERE {_HELD} ORDER BY id {{skip_locked}}"

_FORGET_EARLY = """
DELETE FROM early_reports WHERE agent_id NOT IN (
    SELECT agent_id FROM early_reports ORDER BY received_at DESC, agent_id LIMIT ?
)
"""


def ping() -> Program[None]:
    """Write and commit a changed row: SQLite writes nothing for a row that stays as it is, so
    only a change shows that the disk is full. No other statement locks or reads this row."""
    yield Execute(
        "INSERT INTO counters (name, value) VALUES ('pings', 1) "
        "ON CONFLICT (name) DO UPDATE SET value = counters.value + 1"
    )


def renew(
    dialect: Dialect, owner: str, task_ids: Sequence[str], lease_until: datetime
) -> Program[frozenset[str]]:
    """Whoever holds a row for long must not end the leases of all the others."""
    rows = yield Fetch(dialect.sql(_FREE), (dump(sorted(task_ids)), owner))
    free = list(readable("tasks", rows, lambda row: load_task(row[1])))
    prolonged = [
        task_row(replace(task, lease_until=lease_until, rev=task.rev + 1), row[2], row[3])
        for row, task in free
        if task.lease_until is not None
    ]
    if prolonged:
        crash_point("lease.found")
        yield Execute(upsert("tasks", TASK_COLUMNS), prolonged)
        crash_point("lease.prolonged")
    busy = set(task_ids).difference(row[0] for row in rows)
    still_held: Sequence[Row] = ()
    if busy:
        # Prolonged next time, unless that is what they are being taken away for.
        sql = dialect.sql(f"SELECT id FROM tasks WHERE {_HELD}")
        still_held = yield Fetch(sql, (dump(sorted(busy)), owner))
    return frozenset(task.id for _, task in free).union(row[0] for row in still_held)


def keep_early_report(
    dialect: Dialect, report: StateReport, received_at: datetime
) -> Program[None]:
    yield Fetch(dialect.one_at_a_time, (REGISTERING,))
    yield Execute(
        upsert("early_reports", ("agent_id", "received_at", "doc")),
        [(report.agent_id, micros(received_at), dump(report))],
    )
    counted = yield Fetch("SELECT count(*) FROM early_reports")
    if counted[0][0] > _EARLY_REPORTS:
        yield Execute(_FORGET_EARLY, [(_EARLY_REPORTS,)])


def idempotency(key: str) -> Program[IdempotencyRecord | None]:
    """The record of a key, expired or not."""
    rows = yield Fetch(
        "SELECT fingerprint, session_id, workflow_id, expires_at FROM idempotency_keys "
        "WHERE key = ?",
        (key,),
    )
    if not rows:
        return None
    fingerprint, session_id, workflow_id, expires_at = rows[0]
    return IdempotencyRecord(key, fingerprint, session_id, moment(expires_at), workflow_id)


def agentkit_knowledge(agentkit: str) -> Program[AgentKitKnowledge | None]:
    rows = yield Fetch("SELECT doc FROM agentkit_knowledge WHERE agentkit = ?", (agentkit,))
    return load_agentkit(rows[0][0]) if rows else None


def forget_key(key: str, now: datetime) -> Program[None]:
    yield Execute(
        "DELETE FROM idempotency_keys WHERE key = ? AND expires_at <= ?", [(key, micros(now))]
    )
