"""Forgetting what nothing refers to any more. It is nobody's record, so nobody counts it."""

import random
from collections.abc import Iterable
from datetime import datetime, timedelta

from opscore.storage.sql.codec import dump, micros
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program

_COMMIT_AGE = timedelta(days=1)
_LOOKED_AT = 100

# Written so that only a look into an index answers it, however many have the same definition.
_IS_UNUSED = """
coalesce((SELECT min(definition) FROM sessions WHERE definition >= definitions.hash), '') <> hash
AND coalesce((SELECT min(definition) FROM workflows WHERE definition >= definitions.hash), '')
<> hash
"""

_SOME_UNUSED = f"""
SELECT hash FROM (
    SELECT hash FROM (
        SELECT hash FROM definitions WHERE hash >= ? ORDER BY hash LIMIT {_LOOKED_AT}
    ) AS further
    UNION
    SELECT hash FROM (SELECT hash FROM definitions ORDER BY hash LIMIT {_LOOKED_AT}) AS first
) AS definitions WHERE {_IS_UNUSED}
"""

# New workflows on a level begin after the turn that was served last. Where nobody waits any more
# they may begin anew.
_UNUSED_TURNS = """
DELETE FROM turns WHERE NOT EXISTS (
    SELECT 1 FROM agent_lanes WHERE lane = substr(turns.level, 1, length(turns.level) - 3)
) AND NOT EXISTS (
    SELECT 1 FROM tasks {by_queue} WHERE status = 'queued' AND tasks.level = turns.level
)
"""


def forget_residue(dialect: Dialect, now: datetime) -> Program[None]:
    """A bounded look at definitions, from a place that is different every time."""
    start = f"{random.getrandbits(32):08x}"
    unused = yield Fetch(_SOME_UNUSED, (start,))
    if unused:
        yield from forget_definitions(dialect, (row[0] for row in unused))
    if dialect.remote:
        yield Execute("DELETE FROM commits WHERE at < ?", [(micros(now - _COMMIT_AGE),)])


def forget_definitions(dialect: Dialect, hashes: Iterable[str]) -> Program[None]:
    """Those of these that no session and no workflow has."""
    among = dump(sorted(hashes))
    # Held first, so that the next statement sees every session that has begun with one of them.
    yield Fetch(
        dialect.sql("SELECT 1 FROM definitions WHERE hash {among} ORDER BY hash {lock}"), (among,)
    )
    sql = dialect.sql(f"DELETE FROM definitions WHERE hash {{among}} AND {_IS_UNUSED}")
    yield Execute(sql, [(among,)])


def forget_turns(dialect: Dialect) -> Program[None]:
    """Those of levels where no task waits and which no agent serves."""
    yield Execute(dialect.sql(_UNUSED_TURNS))
