"""A million writes on SQLite, by many writers at once, beside a reader of another connection."""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from opscore.exceptions import StorageError
from opscore.models import Change, Event, EventType, Retention
from opscore.storage import Storage, open_storage
from tests.load.figures import Figure, at_most

WRITES = 1_000_000
WRITERS = 200


def many_writes() -> list[Figure]:
    with TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        file = Path(folder, "opscore.db")
        started = time.monotonic()
        refused = asyncio.run(_write_beside_a_reader(file))
        rate = WRITES / (time.monotonic() - started)
    return [
        at_most(
            f"Writes refused on sqlite, of {WRITES:,} by {WRITERS} writers",
            refused,
            0,
            "writes",
            f"{rate:,.0f} writes a second, beside a reader",
        )
    ]


async def _write_beside_a_reader(file: Path) -> int:
    """How many were refused; those that were not are all there."""
    storage = await open_storage(f"sqlite:///{file}", Retention(events=WRITES))
    with closing(sqlite3.connect(file)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        numbers = iter(range(WRITES))
        refused = sum(await asyncio.gather(*(_write(storage, numbers) for _ in range(WRITERS))))
    counts = await storage.counts()
    await storage.close()
    if counts.events + refused != WRITES:
        raise RuntimeError(
            f"{WRITES - refused:,} writes were taken and {counts.events:,} are there"
        )
    return refused


async def _write(storage: Storage, numbers: Iterator[int]) -> int:
    """Write as long as numbers are left."""
    refused = 0
    for _ in numbers:
        event = Event(EventType.TASK_LATE, datetime.now(UTC))
        try:
            await storage.apply(Change(events=(event,)))
        except StorageError:
            refused += 1
    return refused


MEASURES: dict[str, Callable[[], list[Figure]]] = {"writes": many_writes}
