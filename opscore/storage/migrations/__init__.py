"""The schema's history: numbered SQL files, applied in order, each once."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files

from opscore.crash_points import crash_point
from opscore.exceptions import ConfigurationError
from opscore.storage.sql.codec import micros
from opscore.storage.sql.program import Dialect, Execute, Fetch, Program

_MIGRATING = 7265671

_TABLE = """
CREATE TABLE schema_migrations (
    version BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at BIGINT NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def statements(self) -> Iterator[str]:
        """The file's statements; none of them holds a semicolon inside."""
        lines = (line.partition("--")[0] for line in self.text.splitlines())
        yield from filter(None, (part.strip() for part in "\n".join(lines).split(";")))


@cache
def migrations() -> tuple[Migration, ...]:
    """All of them, the oldest first."""
    found = [
        Migration(int(file.name[:4]), file.name[5:-4], file.read_text(encoding="utf-8"))
        for file in files(__name__).iterdir()
        if file.name.endswith(".sql")
    ]
    return tuple(sorted(found, key=lambda migration: migration.version))


def applied(dialect: Dialect) -> Program[dict[int, str]]:
    """The versions that the database has, with their checksums; none if it is new."""
    rows = yield Fetch(dialect.has_table, ("schema_migrations",))
    if not rows:
        return {}
    rows = yield Fetch("SELECT version, checksum FROM schema_migrations ORDER BY version")
    return {row[0]: row[1] for row in rows}


def check(known: dict[int, str]) -> None:
    """Refuse a database that a newer version, or another program, has made."""
    ours = {migration.version: migration for migration in migrations()}
    for version, checksum in known.items():
        if version not in ours:
            raise ConfigurationError(
                f"OPSCORE_STORAGE_URL: the database has schema version {version}, and this "
                f"version of Ops-Core knows only up to {max(ours)}; start a newer version."
            )
        if ours[version].checksum != checksum:
            raise ConfigurationError(
                f"OPSCORE_STORAGE_URL: the database's schema version {version} is not the one "
                "that this version of Ops-Core makes; restore a backup or use another database."
            )


def check_current(dialect: Dialect) -> Program[None]:
    """Refuse a database that is not at today's schema version."""
    known = yield from applied(dialect)
    check(known)
    if len(known) < len(migrations()):
        raise ConfigurationError(
            f"OPSCORE_STORAGE_URL: the database has schema version {max(known, default=0)}, and "
            f"this version of Ops-Core needs {len(migrations())}; run opscore storage migrate."
        )


def migrate(dialect: Dialect, now: datetime) -> Program[int]:
    """Bring the schema up to date, in one transaction; how many migrations that took."""
    yield Fetch(dialect.one_at_a_time, (_MIGRATING,))
    known = yield from applied(dialect)
    check(known)
    if not known:
        yield Execute(dialect.ddl(_TABLE))
    missing = [migration for migration in migrations() if migration.version not in known]
    for migration in missing:
        crash_point("migration.before")
        for statement in migration.statements():
            yield Execute(dialect.ddl(statement))
            crash_point("migration.statement-run")
        yield Execute(
            "INSERT INTO schema_migrations (version, name, checksum, applied_at) "
            "VALUES (?, ?, ?, ?)",
            [(migration.version, migration.name, migration.checksum, micros(now))],
        )
        crash_point("migration.recorded")
    return len(missing)
