"""Exports that someone has crafted: each is refused with a reason, and the storage stays empty."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from opscore.api.importing import import_lines, read_lines
from opscore.models import Counts, Retention
from opscore.storage import Storage
from opscore.storage.transfer import Inventory, TransferError, Writer, export_lines
from tests.contract.conftest import Opener
from tests.contract.filling import fill

Edit = Callable[[Any], None]

_SPECIAL = ("opscore-export", "definition", "end")


@pytest.fixture
async def lines(open_with: Opener) -> list[bytes]:
    source = await open_with(Retention())
    await fill(source, 7, runs=12)
    parts = [part async for part in export_lines(source, Writer(), "test")]
    return b"".join(parts).splitlines()


def sealed(values: list[dict[str, Any]] | list[bytes]) -> Iterator[bytes]:
    """The lines with an end that fits them, and sessions with the hashes that definitions have."""
    inventory = Inventory()
    renamed: dict[str, str] = {}
    for value in values:
        line = value if isinstance(value, bytes) else _line(value, renamed)
        kind = orjson.loads(line)["kind"] if line.startswith(b'{"kind"') else "?"
        if kind not in _SPECIAL:
            inventory.add(kind, line)
        if kind != "end":
            yield line + b"\n"
    yield orjson.dumps({"kind": "end", "records": inventory.entries()}) + b"\n"


def _line(value: dict[str, Any], renamed: dict[str, str]) -> bytes:
    if value["kind"] == "definition":
        digest = hashlib.sha256(orjson.dumps(value["record"])).hexdigest()
        renamed[value["hash"]] = digest
        value = {**value, "hash": digest}
    elif "definition" in value:
        value = {**value, "definition": renamed[value["definition"]]}
    return orjson.dumps(value)


def crafted(lines: list[bytes], kind: str, edit: Edit) -> list[bytes]:
    """The export with one record edited, and everything else as the edit needs it."""
    values = [orjson.loads(line) for line in lines]
    edit(next(value for value in values if value["kind"] == kind)["record"])
    return list(sealed(values))


def put(*path: str | int, to: Any) -> Edit:
    def edit(record: Any) -> None:
        for name in path[:-1]:
            record = record[name]
        record[path[-1]] = to

    return edit


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def step(task_id: str, following: str | None) -> dict[str, Any]:
    return {"task_id": task_id, "next_task_id": following}


def replace_itself(record: Any) -> None:
    record["agent"]["replaced_by"] = record["agent"]["id"]


CYCLE = [step("one", "two"), step("two", "one")]

CRAFTED: dict[str, tuple[str, Edit, str]] = {
    "cycle": ("definition", put("tasks", to=CYCLE), "form a cycle"),
    "unknown next task": ("definition", put("tasks", to=[step("one", "nine")]), "no task nine"),
    "no tasks": ("definition", put("tasks", to=[]), "at least one task"),
    "step id": ("definition", put("tasks", 0, "task_id", to="a\r\nb"), "An id has"),
    "step priority": ("definition", put("tasks", 0, "priority", to=99), "between 0 and 9"),
    "reference": (
        "definition",
        put("tasks", 0, "parameters", to={"a": "${tasks.nine.result}"}),
        "not in this definition",
    ),
    "text for a number": (
        "definition",
        put("tasks", 0, "priority", to="5"),
        "does not write",
    ),
    "circle of successors": ("agent", replace_itself, "in a circle"),
    "agent id": ("agent", put("agent", "id", to="a\x1b[31m"), "id: It must begin"),
    "agent name": ("agent", put("agent", "name", to=""), "agent_name: It must not be empty"),
    "concurrency": ("agent", put("agent", "concurrency", to=-1), "at least"),
    "endpoint": (
        "agent",
        put("agent", "contact_endpoint", to="http://169.254.169.254/"),
        "points to a link-local",
    ),
    "capabilities": ("agent", put("agent", "capabilities", to=["x"] * 65), "at most 64"),
    "negative revision": ("task", put("task", "rev", to=-1), "rev must be at least 1"),
    "number as text": ("task", put("task", "attempt", to="1"), "does not write"),
    "truth as number": ("task", put("task", "attempt", to=True), "does not write"),
    "unknown field": ("task", put("task", "superuser", to=1), "does not write"),
    "priority": ("task", put("task", "priority", to=10), "up to 9"),
    "time without a zone": ("task", put("task", "created_at", to="2026-01-01T00:00:00"), "UTC"),
    "other zone": ("task", put("task", "created_at", to="2026-01-01T00:00:00+14:00"), "UTC"),
    "no session": ("task", put("task", "session_id", to="nowhere"), "no session"),
    "no step": ("task", put("task", "step_id", to="nine"), "no step"),
    "other workflow": ("task", put("task", "workflow_id", to="nine"), "no step"),
    "task id": ("task", put("task", "id", to="../../etc"), "id: It must begin"),
    "surrogate": ("task", put("task", "name", to="<surrogate>"), "surrogate"),
    "nul": ("task", put("task", "name", to="a\0b"), "NUL"),
    "deep nesting": ("task", put("task", "parameters", to={"a": nested(200)}), "levels deep"),
    "huge integer": ("task", put("task", "parameters", to={"a": 2**60}), "2\\^53"),
    "wrong kind of value": ("session", put("input", to=[1]), "input"),
    "status": ("session", put("status", to="conquered"), "status"),
    "session id": ("session", put("id", to="a b"), "id: It must begin"),
    "results size": ("session", put("results_size", to=-5), "at least"),
    "event number": ("event", put("seq", to=10**9), "numbers of events"),
    "event type": ("event", put("type", to="agent.crowned"), "type: It must be one of"),
    "event time": ("event", put("at", to=1), "does not write"),
    "workflow revision": ("workflow", put("revision", to=0), "at least"),
    "receipt": ("receipt", put("signature", to="a b"), "visible ASCII"),
    "key": ("idempotencyKey", put("key", to="é"), "visible ASCII"),
    "early report": ("earlyReport", put("report", "state", to="s" * 65), "at most 64"),
    "record is a list": ("agent", put("agent", to=[]), "agent"),
}


async def check_refused(target: Storage, text: list[bytes], reason: str) -> None:
    with pytest.raises(TransferError, match=reason) as refused:
        await import_lines(target, text)
    assert "nothing was imported" in refused.value.detail
    assert await target.counts() == Counts()


@pytest.mark.fault("F118")
async def test_crafted_export_is_refused_and_the_storage_stays_empty(
    lines: list[bytes], open_with: Opener
) -> None:
    target = await open_with(Retention())
    for name, (kind, edit, reason) in CRAFTED.items():
        text = crafted(lines, kind, edit)
        if name == "surrogate":
            text = [line.replace(b"<surrogate>", b"\\ud800") for line in text]
        try:
            await check_refused(target, text, reason)
        except BaseException as error:
            error.add_note(f"the crafted export: {name}")
            raise
    # The refused import left nothing behind that the true export would meet.
    await import_lines(target, sealed(lines))


@pytest.mark.fault("F118")
@pytest.mark.parametrize(
    "kind", ["agent", "session", "task", "event", "workflow", "receipt", "lastEvent"]
)
async def test_record_that_stands_there_twice_is_refused(
    lines: list[bytes], open_with: Opener, kind: str
) -> None:
    target = await open_with(Retention())
    at = next(at for at, line in enumerate(lines) if orjson.loads(line)["kind"] == kind)
    text = list(sealed([*lines[: at + 1], lines[at], *lines[at + 1 :]]))
    await check_refused(target, text, "twice|must rise")


@pytest.mark.fault("F118")
@pytest.mark.parametrize(
    "line",
    [
        b'{"kind":"agent","kind":"agent","record":{}}',
        b'{"kind":"agent"}',
        b'{"kind":["agent"],"record":{}}',
        b'{"kind":"session","definition":[],"record":{}}',
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"kind":"definition","hash":"x","record":{}}',
    ],
)
@pytest.mark.storages("memory")  # what it is about is decided before any storage
async def test_malformed_line_is_refused(
    lines: list[bytes], open_with: Opener, line: bytes
) -> None:
    target = await open_with(Retention())
    text = [one + b"\n" for one in (*lines[:3], line, *lines[3:])]
    await check_refused(target, text, "Line 4")


@pytest.mark.storages("memory")
async def test_endless_line_is_read_in_bounded_pieces(storage: Storage) -> None:
    class Endless:
        def readline(self, limit: int) -> bytes:
            assert 0 < limit < 2**28
            return b"[" * 1000

    with pytest.raises(TransferError, match="not an export"):
        await import_lines(storage, read_lines(Endless()))  # type: ignore[arg-type] # only this


async def test_session_with_more_values_than_one_request_may_send_is_imported(
    lines: list[bytes], open_with: Opener
) -> None:
    target = await open_with(Retention())
    text = crafted(lines, "session", put("input", to={"values": [1] * 30_000}))
    await import_lines(target, text)
    assert (await target.counts()).sessions
