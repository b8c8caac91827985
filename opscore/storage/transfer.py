"""A whole storage as lines of JSON.

The first line says what this is, the last one what there should have been in between. A workflow
definition stands before the first record that refers to it by its hash; so that neither side has
to remember all of them, it is written again when many others have come since.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import orjson

from opscore.exceptions import OpsCoreError
from opscore.models import (
    AgentKitKnowledge,
    Event,
    IdempotencyRecord,
    WebhookReceipt,
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

K = TypeVar("K")
V = TypeVar("V")

Tell = Callable[[int], None]
"""Is told how many records it has been until now."""

FORMAT = 1
PART_SIZE = 64 * 1024
"""A reader that takes less than one part in half a minute is not waited for."""
_REMEMBERED = 1000

KINDS: dict[str, type[Portable]] = {
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
    "agentkit": AgentKitKnowledge,
}
_NAMES = {kind: name for name, kind in KINDS.items()}
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
            for kind in KINDS
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
            remember(self._written, name, None)
            line = {"kind": "definition", "hash": name, "record": orjson.Fragment(text)}
            yield orjson.dumps(line) + b"\n"


def _record_text(record: Portable) -> str:
    if isinstance(record, WorkflowSession):
        return dump_session(record)
    if isinstance(record, WorkflowRevision):
        return dump({"revision": record.revision, "saved_at": record.saved_at})
    return dump(record)


def remember(known: dict[K, V], name: K, value: V) -> None:
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
