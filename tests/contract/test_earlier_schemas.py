"""Databases of every schema version that ever was, with data in them, are brought up to date."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from opscore.models import NO_AGENT, EventFilter, Retention
from opscore.storage import open_storage
from opscore.storage.migrations import migrations
from opscore.storage.sql.program import POSTGRES, SQLITE, Dialect
from opscore.storage.transfer import compare
from opscore.storage.upkeep import read_status
from tests.contract.shelf import claim
from tests.databases import fresh_database, require_postgres
from tests.fixtures.make_schema import answers

FIXTURES = Path(__file__).parents[1] / "fixtures"
VERSIONS = [migration.version for migration in migrations()]

Build = Callable[..., Any]

_MIGRATIONS = """
CREATE TABLE schema_migrations (
    version BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    checksum TEXT NOT NULL,
    applied_at BIGINT NOT NULL
)"""


def script(version: int, dialect: Dialect) -> str:
    """The schema as of then, and the data of then."""
    statements = [_MIGRATIONS]
    for migration in migrations()[:version]:
        statements += migration.statements()
    schema = ";\n".join(map(dialect.ddl, statements))
    return f"{schema};\n{(FIXTURES / f'schema_{version:04}.sql').read_text('utf-8')}"


@pytest.fixture(params=["sqlite", "postgres"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Build]:
    """Makes a database of a version, with one thing more if need be, and gives its URL."""
    if request.param == "sqlite":

        async def build_file(version: int, more: str = "") -> str:
            with closing(sqlite3.connect(tmp_path / "then.db")) as connection:
                connection.executescript(script(version, SQLITE) + more)
            return f"sqlite:///{tmp_path}/then.db"

        yield build_file
        return
    require_postgres()
    with fresh_database() as url:

        async def build_database(version: int, more: str = "") -> str:
            connection = await asyncpg.connect(url)
            await connection.execute(script(version, POSTGRES) + more)
            await connection.close()
            return url

        yield build_database


def test_there_is_a_fixture_of_every_version() -> None:
    """When this fails, run python -m tests.fixtures.make_schema and add what it writes."""
    found = sorted(int(path.stem.partition("_")[2]) for path in FIXTURES.glob("schema_*.sql"))
    assert found == VERSIONS


@pytest.mark.parametrize("version", VERSIONS)
async def test_nothing_is_lost_and_everything_goes_on_as_it_would_have(
    build: Build, version: int
) -> None:
    url = await build(version)
    assert (await read_status(url)).version == version
    storage = await open_storage(url, Retention())
    expected = json.loads((FIXTURES / f"schema_{version:04}.json").read_text("utf-8"))
    assert json.loads(json.dumps(await answers(storage))) == expected
    await storage.close()
    assert (await read_status(url)).version == VERSIONS[-1]


@pytest.mark.parametrize("version", VERSIONS)
async def test_it_can_be_moved_elsewhere_then(build: Build, version: int) -> None:
    source = await open_storage(await build(version), Retention())
    target = await open_storage("memory:", Retention())
    await target.load(source.export())
    await compare(target, await compare(source, None))
    await source.close()


async def test_F17_events_of_sessions_that_were_forgotten_become_nobodys(build: Build) -> None:
    orphan = "INSERT INTO events VALUES (999, 0, 'task.late', NULL, 'forgotten', NULL, '{}');"
    storage = await open_storage(await build(1, orphan), Retention())
    kept = (await storage.events(EventFilter(), 0, 10_000)).items
    assert [event.session_id for event in kept if event.seq == 999] == [None]
    assert sum(event.session_id is not None for event in kept) > 0
    assert (await storage.prune(Retention(), kept[0].at))["events"] == 1
    await storage.close()


@pytest.mark.fault("F125")
@pytest.mark.parametrize("version", [1, 2])
async def test_tool_steps_of_earlier_schemas_need_no_agent(build: Build, version: int) -> None:
    made_tools = (
        'UPDATE tasks SET doc = replace(doc, \'"message_type":"workflow_task"\', '
        '\'"message_type":"tool_invocation"\') WHERE id IN '
        "(SELECT id FROM tasks WHERE status = 'queued' ORDER BY id LIMIT 5);"
        "UPDATE agents SET slots = in_flight;"
    )
    storage = await open_storage(await build(version, made_tools), Retention())
    claims = await claim(storage)
    assert [one.agent for one in claims] == [NO_AGENT] * 5
    assert all(one.task.needs_agentkit for one in claims)
    await storage.close()
