"""A whole storage as lines of JSON, and lines of JSON as batches for another storage.

The first line says what this is, the last one what there should have been in between. A workflow
definition stands before the first record that refers to it by its hash; so that neither side has
to remember all of them, it is written again when many others have come since.
"""

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import pydantic
from pydantic import TypeAdapter

from opscore.exceptions import OpsCoreError
from opscore.models import (
    Event,
    IdempotencyRecord,
    WebhookReceipt,
    WorkflowDefinition,
    WorkflowRevision,
    WorkflowSession,
)
from opscore.storage.interface import Storage
from opscore.storage.portable import (
    BATCH,
    EarlyReport,
    KeptAgent,
    KeptTask,
    LastEvent,
    Portable,
    ServedTurn,
)
from opscore.storage.sql.codec import DefinitionTexts, dump, dump_session

Tell = Callable[[int], None]
"""Is told how many records it has been until now."""
Progress = Callable[[str], AbstractContextManager[Tell]]
"""What is done to the records, said in one word, and then who is to be told of it."""

FORMAT = 1
PART_SIZE = 64 * 1024
"""A reader that takes less than one part in half a minute is not waited for."""
_REMEMBERED = 1000

_KINDS: dict[str, type[Portable]] = {
    "lastEvent": LastEvent,
    "workflow": WorkflowRevision,
    "agent": KeptAgent,
    "session": WorkflowSession,
    "task": KeptTask,
    "turn": ServedTurn,
    "event": Event,
    "earlyReport": EarlyReport,
    "receipt": WebhookReceipt,
    "idempotencyKey": IdempotencyRecord,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}
_DEFINITION: TypeAdapter[WorkflowDefinition] = TypeAdapter(WorkflowDefinition)
_SUM_BELOW = 1 << 256


class TransferError(OpsCoreError):
    """The lines are not an export, or not a whole one, or not what the storage holds now."""

    title = "Bad transfer"


@dataclass
class Inventory:
    """How many records of each kind there are, and the sum of their digests, in any order."""

    counts: dict[str, int] = field(default_factory=dict)
    sums: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, line: bytes) -> None:
        digest = int.from_bytes(hashlib.sha256(line).digest())
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self.sums[kind] = (self.sums.get(kind, 0) + digest) % _SUM_BELOW

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def entries(self) -> dict[str, dict[str, Any]]:
        return {
            kind: {"count": count, "digest": f"{self.sums[kind]:064x}"}
            for kind, count in sorted(self.counts.items())
        }

    def differences(self, other: "Inventory") -> list[str]:
        """The kinds that are not the same here and there, each with both counts."""
        return [
            f"{kind} ({self.counts.get(kind, 0)} and {other.counts.get(kind, 0)})"
            for kind in _KINDS
            if self.sums.get(kind, 0) != other.sums.get(kind, 0)
            or self.counts.get(kind, 0) != other.counts.get(kind, 0)
        ]


# --- writing ------------------------------------------------------------------------------------


class Writer:
    """Makes lines of records, and counts them."""

    def __init__(self) -> None:
        self.inventory = Inventory()
        self._texts = DefinitionTexts()
        self._written: dict[str, None] = {}

    def lines(self, record: Portable) -> Iterator[bytes]:
        name = _NAMES[type(record)]
        line = {"kind": name}
        if isinstance(record, WorkflowSession | WorkflowRevision):
            line["definition"], text = self._texts.of(record.definition)
            yield from self._definition(line["definition"], text)
        encoded = orjson.dumps({**line, "record": orjson.Fragment(_record_text(record))})
        self.inventory.add(name, encoded)
        yield encoded + b"\n"

    def note(self, record: Portable) -> None:
        """Count the record only."""
        for _ in self.lines(record):
            pass

    def _definition(self, name: str, text: str) -> Iterator[bytes]:
        if name not in self._written:
            _remember(self._written, name, None)
            line = {"kind": "definition", "hash": name, "record": orjson.Fragment(text)}
            yield orjson.dumps(line) + b"\n"


def _record_text(record: Portable) -> str:
    if isinstance(record, WorkflowSession):
        return dump_session(record)
    if isinstance(record, WorkflowRevision):
        return dump({"revision": record.revision, "saved_at": record.saved_at})
    return dump(record)


def _remember(known: dict[str, Any], name: str, value: Any) -> None:
    """Both sides forget by the same rule, so that the reader has what the writer leaves out."""
    if len(known) == _REMEMBERED:
        del known[next(iter(known))]
    known[name] = value


async def export_lines(
    storage: Storage, writer: Writer, source: str
) -> AsyncGenerator[bytes, None]:
    """Write the whole storage in parts of at most `PART_SIZE` bytes; `source` is its kind."""
    buffer = bytearray()
    async with aclosing(_lines(storage, writer, source)) as lines:
        async for line in lines:
            buffer += line
            while len(buffer) >= PART_SIZE:
                yield bytes(buffer[:PART_SIZE])
                del buffer[:PART_SIZE]
    yield bytes(buffer)


async def _lines(storage: Storage, writer: Writer, source: str) -> AsyncGenerator[bytes, None]:
    about = {"format": FORMAT, "source": source, "at": datetime.now(UTC)}
    yield orjson.dumps({"kind": "opscore-export", **about}) + b"\n"
    async with aclosing(storage.export(BATCH)) as batches:
        async for batch in batches:
            for record in batch:
                for line in writer.lines(record):
                    yield line
    end = {"kind": "end", "records": writer.inventory.entries()}
    yield orjson.dumps(end) + b"\n"


async def compare(
    storage: Storage, expected: Inventory | None, tell: Tell = lambda _: None
) -> Inventory:
    """Look through the whole storage; raise TransferError if it holds anything else."""
    writer = Writer()
    async with aclosing(storage.export(BATCH)) as batches:
        async for batch in batches:
            for record in batch:
                writer.note(record)
            tell(writer.inventory.total)
    differences = writer.inventory.differences(expected) if expected is not None else ()
    if differences:
        raise TransferError(
            "The storage does not hold what was imported; of these kinds it has other records "
            f"(counts there and in the export): {', '.join(differences)}. If nothing else wrote "
            "into it meanwhile, empty it, import again and report this."
        )
    return writer.inventory


# --- reading ------------------------------------------------------------------------------------


@contextmanager
def _untold(_: str) -> Iterator[Tell]:
    yield lambda _: None


async def import_lines(
    storage: Storage, lines: Iterable[bytes], progress: Progress = _untold
) -> dict[str, int]:
    """Take an export into an empty storage, all of it or nothing, and compare; how much it was."""
    reader = Reader()
    with progress("Imported") as tell:
        await storage.load(reader.batches(lines, tell))
    with progress("Compared") as tell:
        return (await compare(storage, reader.inventory, tell)).counts


class Reader:
    """Makes batches of lines; raises TransferError unless they are a whole export.

    `inventory` is of the records as they are written today, whoever wrote the lines.
    """

    def __init__(self) -> None:
        self._writer = Writer()
        self._found = Inventory()
        self._definitions: dict[str, WorkflowDefinition] = {}
        self._end: dict[str, Any] | None = None

    @property
    def inventory(self) -> Inventory:
        return self._writer.inventory

    async def batches(
        self, lines: Iterable[bytes], tell: Tell = lambda _: None
    ) -> AsyncIterator[Sequence[Portable]]:
        batch: list[Portable] = []
        for record in self._records(lines):
            if batch and (len(batch) == BATCH or type(batch[0]) is not type(record)):
                yield batch
                tell(self.inventory.total)
                batch = []
            batch.append(record)
        if batch:
            yield batch

    def _records(self, lines: Iterable[bytes]) -> Iterator[Portable]:
        numbered = enumerate(lines, 1)
        _check_header(next(numbered, (1, b""))[1])
        for number, line in numbered:
            try:
                record = self._record(line)
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise TransferError(
                    f"Line {number} is not one of an export ({_reason(error)}); export again."
                ) from error
            if record is not None:
                self._writer.note(record)
                yield record
        self._check_end()

    def _record(self, line: bytes) -> Portable | None:
        if self._end is not None:
            raise ValueError("it stands after the last one")
        value = orjson.loads(line)
        kind = value["kind"]
        if kind == "end":
            self._end = value["records"]
            return None
        if kind == "definition":
            self._define(value["hash"], value["record"])
            return None
        if "definition" in value:
            value["record"]["definition"] = self._definitions[value["definition"]]
        self._found.add(kind, line.rstrip(b"\n"))
        record: Portable = _ADAPTERS[kind].validate_python(value["record"])
        return record

    def _define(self, name: str, record: dict[str, Any]) -> None:
        if hashlib.sha256(orjson.dumps(record)).hexdigest() != name:
            raise ValueError("the definition is not the one that its hash stands for")
        _remember(self._definitions, name, _DEFINITION.validate_python(record))

    def _check_end(self) -> None:
        if self._end is None:
            raise TransferError("The export ends too early; nothing was imported. Export again.")
        if self._end != self._found.entries():
            raise TransferError(
                "The export was changed after it was written; nothing was imported. Export again."
            )


def _check_header(line: bytes) -> None:
    try:
        header = orjson.loads(line)
        known = header["kind"] == "opscore-export"
    except (KeyError, TypeError, ValueError) as error:
        raise TransferError("This is not an export of Ops-Core; name another file.") from error
    if not known:
        raise TransferError("This is not an export of Ops-Core; name another file.")
    if header.get("format") != FORMAT:
        raise TransferError(
            f"The export has format {header.get('format')}, and this version reads only format "
            f"{FORMAT}; use the version of Ops-Core that wrote it."
        )


def _reason(error: Exception) -> str:
    if isinstance(error, pydantic.ValidationError):
        first = error.errors(include_input=False, include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
