"""Moving everything from one storage to another, with nothing lost and nothing changed."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest

from opscore.api.importing import Reader
from opscore.exceptions import ConfigurationError
from opscore.models import (
    Change,
    Event,
    EventFilter,
    EventType,
    Retention,
)
from opscore.storage import Storage, open_storage
from opscore.storage.portable import KeptTask, LastEvent, Portable
from opscore.storage.sql.codec import dump
from opscore.storage.transfer import (
    PART_SIZE,
    Inventory,
    TransferError,
    Writer,
    export_lines,
)
from tests import builders
from tests.builders import at
from tests.contract.conftest import Opener
from tests.contract.filling import claims_in_turn, fill
from tests.contract.shelf import claim, events, one_run, put
from tests.databases import migrated_database, require_postgres


async def all_of(storage: Storage) -> list[Portable]:
    async with aclosing(storage.export(7)) as batches:
        return [record async for batch in batches for record in batch]


def by_text(records: Sequence[Portable]) -> list[Portable]:
    return sorted(records, key=lambda one: (type(one).__name__, dump(one)))


async def in_batches(records: Sequence[Portable]) -> AsyncIterator[Sequence[Portable]]:
    for record in records:
        yield [record]


async def copy(source: Storage, target: Storage) -> None:
    await target.load(source.export())


async def inventory(storage: Storage) -> Inventory:
    writer = Writer()
    for record in await all_of(storage):
        list(writer.lines(record))
    return writer.inventory


@pytest.fixture
async def chain(tmp_path: Path) -> AsyncIterator[list[Storage]]:
    """Each kind of storage, the first one again at the end."""
    require_postgres()
    with migrated_database() as database:
        urls = ["memory:", f"sqlite:///{tmp_path}/chain.db", database, "memory:"]
        opened = [await open_storage(url, Retention()) for url in urls]
        yield opened
        for storage in opened:
            await storage.close()


# --- nothing lost -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_everything_survives_a_journey_through_all_storages(
    chain: list[Storage], seed: int
) -> None:
    await fill(chain[0], seed)
    whole = await inventory(chain[0])
    assert set(whole.counts) >= {"agent", "session", "task", "turn", "event", "earlyReport"}
    for source, target in pairwise(chain):
        await copy(source, target)
        assert (await inventory(target)).differences(whole) == []
        assert await target.counts() == await chain[0].counts()
    assert by_text(await all_of(chain[-1])) == by_text(await all_of(chain[0]))


@pytest.mark.parametrize("seed", range(3))
async def test_claims_come_in_the_same_order_afterwards(chain: list[Storage], seed: int) -> None:
    await fill(chain[1], seed)
    await copy(chain[1], chain[2])
    await copy(chain[2], chain[3])
    expected = await claims_in_turn(chain[1], seed)
    assert len(expected) > 15
    assert await claims_in_turn(chain[2], seed) == expected
    assert await claims_in_turn(chain[3], seed) == expected


async def test_a_copy_goes_on_where_the_original_was(open_with: Opener) -> None:
    source, target = await open_with(Retention()), await open_with(Retention())
    await fill(source, 1)
    await copy(source, target)
    assert await claims_in_turn(target, 5) == await claims_in_turn(source, 5)
    assert await target.counts() == await source.counts()


async def test_numbers_of_events_go_on_and_cursors_hold(open_with: Opener) -> None:
    source, target = await open_with(Retention()), await open_with(Retention())
    await fill(source, 2)
    read = await source.events(EventFilter(), 0, 10)
    await copy(source, target)
    after = int(read.next_cursor or 0)
    rest = await source.events(EventFilter(), after, 1000)
    assert await target.events(EventFilter(), after, 1000) == rest
    await target.apply(Change(events=(Event(EventType.AGENT_LOST, at(5), "a1"),)))
    new = await target.events(EventFilter(), int(rest.next_cursor or 0), 10)
    assert [event.seq for event in new.items] == [rest.items[-1].seq + 1]


async def test_what_must_not_happen_twice_does_not(open_with: Opener) -> None:
    source, target = await open_with(Retention()), await open_with(Retention())
    await fill(source, 3)
    await copy(source, target)
    assert await target.idempotency("k1", at(0)) == await source.idempotency("k1", at(0))
    facts = await target.registration_facts("e2", at(0))
    assert facts.early_report == builders.report(agent_id="e2")
    assert await target.prune(Retention(), at(301)) == await source.prune(Retention(), at(301))
    revisions = await target.workflow_revisions("saved", None, 100)
    assert [saved.revision for saved in revisions.items] == [2, 1]
    assert [event.seq for event in await events(target, agent_id="a1")] == [
        event.seq for event in await events(source, agent_id="a1")
    ]


async def test_events_with_gaps_between_their_numbers_are_read_on_from_anywhere(
    open_with: Opener,
) -> None:
    source, target = await open_with(Retention()), await open_with(Retention())
    await source.apply(
        Change(events=tuple(Event(EventType.AGENT_LOST, at(n), "a1") for n in range(9)))
    )
    kept = [one for one in await all_of(source) if not (isinstance(one, Event) and one.seq % 3)]
    await target.load(in_batches(kept))
    found = {after: (await target.events(EventFilter(), after, 9)).items for after in (0, 3, 4, 8)}
    assert {after: [event.seq for event in items] for after, items in found.items()} == {
        0: [3, 6, 9],
        3: [6, 9],
        4: [6, 9],
        8: [9],
    }


# --- one moment, all or nothing ---------------------------------------------------------------


async def test_an_export_is_of_one_moment_while_others_write(open_with: Opener) -> None:
    storage = await open_with(Retention())
    await fill(storage, 4)
    before = await inventory(storage)
    writer = Writer()
    async with aclosing(storage.export(5)) as batches:
        number = 0
        async for batch in batches:
            number += 1
            for record in batch:
                list(writer.lines(record))
            session, task = one_run(2000 + number)
            await put(storage, session, task)
            await claim(storage, 1)
    assert writer.inventory == before


async def test_only_an_empty_storage_takes_a_load(open_with: Opener) -> None:
    source, target = await open_with(Retention()), await open_with(Retention())
    await fill(source, 5, runs=2)
    await put(target, builders.agent())
    whole = await inventory(target)
    with pytest.raises(ConfigurationError, match="not empty"):
        await copy(source, target)
    assert await inventory(target) == whole


async def test_a_load_that_breaks_off_leaves_nothing(open_with: Opener) -> None:
    source, target = await open_with(Retention()), await open_with(Retention())
    await fill(source, 6)

    async def breaking() -> AsyncIterator[Sequence[Portable]]:
        async with aclosing(source.export(3)) as batches:
            async for batch in batches:
                yield batch
                if isinstance(batch[0], KeptTask):
                    raise TransferError("The file cannot be read further.")

    with pytest.raises(TransferError):
        await target.load(breaking())
    assert [one for one in await all_of(target) if not isinstance(one, LastEvent)] == []
    await copy(source, target)
    assert await inventory(target) == await inventory(source)


# --- lines ------------------------------------------------------------------------------------


@pytest.fixture
async def lines(open_with: Opener) -> list[bytes]:
    storage = await open_with(Retention())
    await fill(storage, 7, runs=12)
    text = [part async for part in export_lines(storage, Writer(), "test")]
    return b"".join(text).splitlines(keepends=True)


async def read(lines: Sequence[bytes]) -> list[Portable]:
    return [one async for batch in Reader().batches(iter(lines)) for one in batch]


async def test_what_is_read_is_what_was_written(lines: list[bytes]) -> None:
    target = await open_storage("memory:", Retention())
    reader = Reader()
    await target.load(reader.batches(iter(lines)))
    assert reader.inventory == await inventory(target)
    text = [part async for part in export_lines(target, Writer(), "test")]
    assert sorted(b"".join(text).splitlines(keepends=True)[1:]) == sorted(lines[1:])


def damaged(lines: list[bytes]) -> Iterator[tuple[list[bytes], str]]:
    swapped = [line.replace(b'"name":"agent a1"', b'"name":"agent a9"') for line in lines]
    yield lines[1:], "not an export"
    yield [], "not an export"
    yield [b"\x00\x01", *lines[1:]], "not an export"
    yield [lines[0].replace(b'"format":1', b'"format":9'), *lines[1:]], "another format"
    yield lines[:-1], "ends too early"
    yield [*lines[:5], *lines[6:]], "changed|not one of an export"
    yield swapped, "changed"
    renamed = [line.replace(b'"as of 1"', b'"as of 9"') for line in lines]
    assert renamed != lines
    yield renamed, "its hash stands for"
    yield [*lines, lines[5]], "after the last"
    yield [*lines[:5], b'{"kind":"agent","record":{"agent":1}}\n', *lines[5:]], "Line 6"
    yield [*lines[:5], b'{"kind":"parrot","record":{}}\n', *lines[5:]], "Line 6"
    yield [*lines[:5], lines[5][:20], *lines[6:]], "Line 6"


async def test_a_damaged_export_is_refused_with_a_reason(lines: list[bytes]) -> None:
    for text, reason in damaged(lines):
        with pytest.raises(TransferError, match=reason):
            await read(text)


async def test_parts_of_an_export_are_small_whatever_they_hold(storage: Storage) -> None:
    await put(storage, *one_run(1, parameters={"text": "x" * 3_000_000}))
    for number in range(2, 50):
        await put(storage, *one_run(number))
    parts = [part async for part in export_lines(storage, Writer(), "test")]
    assert max(map(len, parts)) <= PART_SIZE <= 256 * 1024
    assert len(await read(b"".join(parts).splitlines(keepends=True))) == 99


@pytest.mark.storages("sqlite", "postgres")
async def test_export_of_large_records_reads_few_at_a_time(storage: Storage) -> None:
    for number in range(9):
        await put(storage, *one_run(number, parameters={"text": "x" * 3_000_000}))
    for number in range(9, 20):
        await put(storage, *one_run(number))
    async with aclosing(storage.export(200)) as batches:
        sizes = [len(batch) async for batch in batches if isinstance(batch[0], KeptTask)]
    assert sum(sizes) == 20
    assert sizes[:4] == [2, 2, 2, 2]


async def test_a_definition_is_written_again_when_many_came_since(storage: Storage) -> None:
    for number in range(1100):
        await put(storage, *one_run(number, workflow_id=f"flow{number}"))
    await put(storage, *one_run(1100, workflow_id="flow0"))
    text = b"".join([part async for part in export_lines(storage, Writer(), "test")])
    found = await read(text.splitlines(keepends=True))
    assert by_text(found) == by_text(await all_of(storage))
