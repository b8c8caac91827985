"""Definitions are stored once for all sessions; a session keeps the one it began with."""

import hashlib
import json
import sqlite3
from pathlib import Path

from opscore.models import Retention
from opscore.storage import open_storage
from opscore.storage.sql.codec import forget_recent
from tests import builders
from tests.contract.shelf import bump, one_run, put


async def test_a_session_outlives_a_change_of_how_definitions_are_written(tmp_path: Path) -> None:
    file = tmp_path / "opscore.db"
    storage = await open_storage(f"sqlite:///{file}", Retention())
    session, task = one_run(1)
    await put(storage, builders.agent(), session, task)
    await storage.close()
    _write_in_other_words(file)
    forget_recent()
    storage = await open_storage(f"sqlite:///{file}", Retention())
    await put(storage, bump(session, metadata={"new": True}))
    found = await storage.session(session.id)
    assert found is not None
    assert (found.metadata, found.definition) == ({"new": True}, session.definition)
    assert await storage.task_facts(task.id) is not None
    await storage.close()


def _write_in_other_words(file: Path) -> None:
    """As an earlier version would have, whose definitions had no description."""
    database = sqlite3.connect(file)
    ((old, doc),) = database.execute("SELECT hash, doc FROM definitions").fetchall()
    fields = json.loads(doc)
    assert fields.pop("description", "missing") is None
    text = json.dumps(fields)
    new = hashlib.sha256(text.encode()).hexdigest()
    database.execute("UPDATE definitions SET hash = ?, doc = ?", (new, text))
    database.execute("UPDATE sessions SET definition = ? WHERE definition = ?", (new, old))
    database.commit()
    database.close()
