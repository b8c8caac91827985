"""Lines of JSON as batches for a storage: read with the care that requests are read with."""

import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO

import orjson
import pydantic
from pydantic import TypeAdapter

from opscore.api.import_rules import ImportRules, check_definition
from opscore.api.validation import validation_error
from opscore.exceptions import Fault, OpsCoreError
from opscore.json_rules import MAX_DEPTH
from opscore.middleware import parse_json
from opscore.models import WorkflowDefinition
from opscore.storage import Storage
from opscore.storage.portable import BATCH, Portable
from opscore.storage.transfer import (
    FORMAT,
    KINDS,
    Inventory,
    Tell,
    TransferError,
    Writer,
    compare,
    remember,
)

Progress = Callable[[str], AbstractContextManager[Tell]]
"""Called with what is done to the records, in one word; gives who is to be told of it."""

_MALFORMED = (
    OpsCoreError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    ValueError,
)
_LINE_LIMIT = 64 * 1024 * 1024
# A result may stand within parameters, and both within a record.
_DEPTH = 2 * MAX_DEPTH + 16

_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in KINDS.items()}
_DEFINITION: TypeAdapter[WorkflowDefinition] = TypeAdapter(WorkflowDefinition)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; a longer one than any export has comes cut, and is refused."""
    while line := file.readline(_LINE_LIMIT):
        yield line


@contextmanager
def _untold(_: str) -> Iterator[Tell]:
    yield lambda _: None


async def import_lines(
    storage: Storage, lines: Iterable[bytes], progress: Progress = _untold
) -> dict[str, int]:
    """Take an export into an empty storage, all of it or nothing; return counts by kind."""
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
        self._rules = ImportRules()
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
                record = self._read(line.rstrip(b"\n"))
            except _MALFORMED as error:
                raise TransferError(
                    f"Line {number} is not one of an export ({_reason(error)}); nothing was "
                    "imported. Export again."
                ) from error
            if record is not None:
                yield record
        self._check_end()

    def _read(self, line: bytes) -> Portable | None:
        if self._end is not None:
            raise ValueError("it stands after the last one")
        # A session holds the results of many requests: their bound is not that of one request.
        value = parse_json(line, _DEPTH, max_members=None)
        match value["kind"]:
            case "end":
                self._end = value["records"]
            case "definition":
                self._define(value["hash"], value["record"])
            case str() as kind if kind in KINDS:
                return self._record(kind, value, line)
            case _:
                raise ValueError("its kind is not known")
        return None

    def _record(self, kind: str, value: dict[str, Any], line: bytes) -> Portable:
        self._found.add(kind, line)
        given = value["record"]
        if "definition" in value:
            given = {**given, "definition": self._definitions[value["definition"]]}
        record: Portable = _ADAPTERS[kind].validate_python(given)
        self._rules.check(record)
        *_, written = self._writer.lines(record)
        written = written.rstrip(b"\n")
        # Mostly the very same bytes; one of an earlier version may have fewer fields.
        if written != line and not _is_part_of(value, orjson.loads(written)):
            raise ValueError("it has values that Ops-Core does not write")
        return record

    def _define(self, name: str, given: dict[str, Any]) -> None:
        if hashlib.sha256(orjson.dumps(given)).hexdigest() != name:
            raise ValueError("the definition is not the one that its hash stands for")
        definition = _DEFINITION.validate_python(given)
        check_definition(definition)
        remember(self._definitions, name, definition)

    def _check_end(self) -> None:
        if self._end is None:
            raise TransferError("The export ends too early; nothing was imported. Export again.")
        if self._end != self._found.entries():
            raise TransferError(
                "The export was changed after it was written; nothing was imported. Export again."
            )


def _check_header(line: bytes) -> None:
    try:
        header = parse_json(line, _DEPTH)
        known = header["kind"] == "opscore-export"
    except (OpsCoreError, KeyError, TypeError) as error:
        raise TransferError("This is not an export of Ops-Core; name another file.") from error
    if not known:
        raise TransferError("This is not an export of Ops-Core; name another file.")
    if header.get("format") != FORMAT:
        raise TransferError(
            f"The export has another format, and this version reads only format {FORMAT}; use "
            "the version of Ops-Core that wrote it."
        )


def _is_part_of(given: Any, written: Any) -> bool:
    """Return whether each given value is the written one; the written may have more members."""
    if isinstance(given, dict) and isinstance(written, dict):
        return all(
            name in written and _is_part_of(value, written[name]) for name, value in given.items()
        )
    if isinstance(given, list) and isinstance(written, list):
        return len(given) == len(written) and all(map(_is_part_of, given, written))
    return type(given) is type(written) and bool(given == written)


def _reason(error: Exception) -> str:
    """A clause that says what is wrong, and holds nothing of the file but names of ours."""
    match error:
        case pydantic.ValidationError():
            return _reason(validation_error(error.errors(include_url=False)))
        case OpsCoreError():
            issue = error.faults[0] if error.faults else Fault("", error.detail)
            place = f"{issue.pointer}: " if issue.pointer else ""
            return f"{place}{issue.message}".rstrip(".")
        case ValueError():
            return str(error).rstrip(".")
        case _:
            return "it does not have the form of its kind"
