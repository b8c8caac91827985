"""Does what `opscore storage …` says. Results go to the standard output, the rest to stderr."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, BinaryIO

from opscore.api.importing import import_lines, read_lines
from opscore.cli.environment import BAD_SETTINGS
from opscore.cli.exports import source_of
from opscore.cli.progress import progress
from opscore.exceptions import ConfigurationError, OpsCoreError
from opscore.models import Change, Event, EventType, Retention
from opscore.settings import load_settings
from opscore.storage import Storage, open_storage, storage_of
from opscore.storage.location import is_in_memory, location
from opscore.storage.upkeep import IN_MEMORY, bring_up_to_date, read_status

FAILED = 1
STANDARD = "-"


def run_migrate(url: str) -> int:
    return _run(url, _migrate)


def run_status(url: str) -> int:
    return _run(url, _status)


def run_export(url: str, file: str) -> int:
    return _tried(lambda: _export(url, file))


def run_import(url: str, file: str) -> int:
    return _run(url, lambda where: _import(where, file))


def run_prune(url: str, *, dry_run: bool) -> int:
    return _run(url, _foresee if dry_run else _prune)


def _run(url: str, work: Callable[[str], Coroutine[Any, Any, None]]) -> int:
    """On the database itself."""

    async def on_database() -> None:
        if is_in_memory(url):
            raise ConfigurationError(IN_MEMORY)
        await work(url)

    return _tried(on_database)


def _tried(work: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """The exit status; every error is a sentence."""
    try:
        asyncio.run(work())
    except ConfigurationError as error:
        _note(error.detail)
        return BAD_SETTINGS
    except OpsCoreError as error:
        _note(error.detail)
        return FAILED
    except OSError as error:
        _note(f"{error.filename or 'The file'} cannot be used: {error.strerror}.")
        return FAILED
    return 0


# --- the schema ---------------------------------------------------------------------------------


async def _migrate(url: str) -> None:
    made = await bring_up_to_date(url)
    if not made:
        print(f"{location(url)} is up to date; nothing was to be done.")
        return
    for one in made:
        print(f"Applied migration {one.version:04} {one.name}.")
    print(f"{location(url)} has schema version {made[-1].version} now.")


async def _status(url: str) -> None:
    found = await read_status(url)
    print(f"storage          {location(url)}")
    if found.counts is None:
        stored = f"{found.version}" if found.version else "none yet"
        print(f"schema version   {stored}; opscore storage migrate brings it to {found.known}")
        return
    counts = found.counts
    print(f"schema version   {found.version} of {found.known}, up to date")
    print(f"size             {found.size / 1_000_000:,.1f} MB")
    print(f"agents           {counts.agents:,}")
    print(f"sessions         {counts.sessions:,}")
    by_status = ", ".join(f"{status} {n:,}" for status, n in sorted(counts.by_status.items()))
    print(f"tasks            {counts.tasks:,}{f' ({by_status})' if by_status else ''}")
    print(f"events           {counts.events:,}")
    print(f"replicas alive   {len(found.alive)}")
    for one in found.alive:
        print(f"  {one.id}  {one.host} process {one.pid}, version {one.version}")


# --- moving -------------------------------------------------------------------------------------


async def _export(url: str, file: str) -> None:
    source = source_of(url)
    with _written(file) as target, progress("Exported") as tell:
        async with aclosing(source.parts()) as parts:
            async for part in parts:
                target.write(part)
                tell(source.total)
    _note(f"Exported {_said(source.counts)}.")


async def _import(url: str, file: str) -> None:
    with _read(file) as source:
        storage = await open_storage(url, Retention())
        try:
            counts = await import_lines(storage, read_lines(source), progress)
        finally:
            await storage.close()
    _note(f"Imported {_said(counts)}; the storage holds exactly what the export does.")


@contextmanager
def _written(file: str) -> Iterator[IO[bytes]]:
    """The file appears when it is complete. It holds everything, so only its owner may read it."""
    if file == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = Path(f"{file}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as target:
            yield target
            target.flush()
            os.fsync(target.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _read(file: str) -> Iterator[BinaryIO]:
    if file == STANDARD:
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as source:
        yield source


# --- forgetting ---------------------------------------------------------------------------------


async def _now(storage: Storage) -> datetime:
    return await storage.time() or datetime.now(UTC)


async def _foresee(url: str) -> None:
    retention = load_settings().retention
    storage = storage_of(url, retention)
    try:
        counts = await storage.prunable(retention, await _now(storage))
    finally:
        await storage.close()
    print(f"Would forget {_said(counts)}." if counts else "Nothing is to be forgotten.")


async def _prune(url: str) -> None:
    retention = load_settings().retention
    total: Counter[str] = Counter()
    storage = await open_storage(url, retention)
    try:
        now = await _now(storage)
        with progress("Forgot") as tell:
            while counts := await storage.prune(retention, now):
                total.update(counts)
                tell(total.total())
        if total:
            event = Event(EventType.STORAGE_PRUNED, now, data=dict(total))
            await storage.apply(Change(events=(event,)))
    finally:
        await storage.close()
    print(f"Forgot {_said(total)}." if total else "Nothing was to be forgotten.")


# --- words --------------------------------------------------------------------------------------


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count:,}" for kind, count in counts.items())


def _note(sentence: str) -> None:
    print(sentence, file=sys.stderr)
