"""Small programs: the processes that share the database, their duties, and the shared time."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import TypeAdapter

from opscore.models import Replica
from opscore.storage.sql.codec import dump, micros, moment
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program
from opscore.storage.sql.rows import upsert

_replica: TypeAdapter[Replica] = TypeAdapter(Replica)

# One statement, so that of two who ask at the same time one is refused.
_TAKE = """
INSERT INTO duties (name, replica_id, until) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET replica_id = excluded.replica_id, until = excluded.until
WHERE duties.replica_id = excluded.replica_id OR duties.until <= ?
RETURNING name
"""


def beat(replica: Replica, forget_before: datetime) -> Program[None]:
    row = (replica.id, micros(replica.beat_at), dump(replica))
    yield Execute(upsert("replicas", ("id", "beat_at", "doc")), [row])
    yield Execute("DELETE FROM replicas WHERE beat_at < ?", [(micros(forget_before),)])


def leave(replica_id: str) -> Program[None]:
    yield Execute("DELETE FROM replicas WHERE id = ?", [(replica_id,)])
    yield Execute("DELETE FROM duties WHERE replica_id = ?", [(replica_id,)])


def replicas() -> Program[Sequence[Replica]]:
    rows = yield Fetch("SELECT doc FROM replicas ORDER BY id")
    return [_replica.validate_json(row[0]) for row in rows]


def take_duty(name: str, owner: str, now: datetime, until: datetime) -> Program[bool]:
    rows = yield Fetch(_TAKE, (name, owner, micros(until), micros(now)))
    return bool(rows)


def time(dialect: Dialect) -> Program[datetime]:
    rows = yield Fetch(dialect.now)
    return moment(rows[0][0])
