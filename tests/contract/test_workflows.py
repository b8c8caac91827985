"""Workflows and their revisions."""

from dataclasses import replace
from typing import Any

from opscore.models import (
    Change,
    Page,
    Retention,
    RevisionInfo,
    SessionStatus,
    WorkflowRevision,
)
from opscore.storage import Storage
from tests import builders
from tests.builders import at
from tests.contract.shelf import bump, ended, one_run, put


def revision(number: int, workflow_id: str = "flow", **changes: Any) -> WorkflowRevision:
    definition = builders.definition(id=workflow_id, version=str(number), **changes)
    return WorkflowRevision(definition, number, at(number))


async def revisions(storage: Storage, workflow_id: str = "flow") -> list[int]:
    page = await storage.workflow_revisions(workflow_id, None, 1000)
    return [one.revision for one in page.items]


async def test_revisions_are_kept_and_the_newest_is_the_workflow(storage: Storage) -> None:
    saved = [revision(number) for number in (1, 2, 3)]
    for one in saved:
        await storage.apply(Change(workflow=one))
    assert await storage.workflow("flow") == saved[2]
    assert [await storage.workflow("flow", one) for one in (1, 2, 3)] == saved
    assert await storage.workflow("flow", 4) is None
    assert await storage.workflow("flow", 0) is None
    assert await revisions(storage) == [3, 2, 1]
    assert await revisions(storage, "other") == []


async def test_the_list_has_the_newest_of_each_by_id(storage: Storage) -> None:
    for one in ("c", "a", "b"):
        await storage.apply(Change(workflow=revision(1, one)))
    await storage.apply(Change(workflow=revision(2, "b")))
    first = await storage.workflows(None, 2)
    assert first.items == (revision(1, "a"), revision(2, "b"))
    second = await storage.workflows(first.next_cursor, 2)
    assert second == Page((revision(1, "c"),))


async def test_a_deleted_workflow_is_gone_and_its_id_free_again(storage: Storage) -> None:
    await storage.apply(Change(workflow=revision(1)))
    await storage.apply(Change(workflow=revision(2)))
    await storage.apply(Change(workflow=revision(1, "other")))
    session, task = one_run(1)
    await put(storage, session, task)
    await storage.apply(Change(deleted_workflow="flow"))
    assert await storage.workflow("flow") is None
    assert await storage.workflow("flow", 1) is None
    assert await revisions(storage) == []
    assert (await storage.workflows(None, 10)).items == (revision(1, "other"),)
    assert await storage.session(session.id) == session
    await storage.apply(Change(workflow=revision(1)))
    assert await revisions(storage) == [1]


async def test_revisions_are_listed_page_by_page_newest_first(storage: Storage) -> None:
    for number in range(1, 6):
        await storage.apply(Change(workflow=revision(number)))
    await storage.apply(Change(workflow=revision(1, "other")))
    first = await storage.workflow_revisions("flow", None, 2)
    assert first.items == (RevisionInfo("flow", 5, at(5)), RevisionInfo("flow", 4, at(4)))
    await storage.apply(Change(workflow=revision(6)))
    second = await storage.workflow_revisions("flow", first.next_cursor, 2)
    assert [one.revision for one in second.items] == [3, 2]
    third = await storage.workflow_revisions("flow", second.next_cursor, 2)
    assert third == Page((RevisionInfo("flow", 1, at(1)),))


async def test_only_the_newest_100_revisions_are_kept(storage: Storage) -> None:
    for number in range(1, 106):
        await storage.apply(Change(workflow=revision(number)))
    assert await revisions(storage) == [*range(105, 5, -1)]
    assert await storage.workflow("flow", 5) is None
    assert await storage.workflow("flow", 6) == revision(6)
    await storage.apply(Change(workflow=revision(106)))
    assert await storage.workflow("flow") == revision(106)


async def test_an_old_revision_is_kept_until_no_session_has_it(storage: Storage) -> None:
    await storage.apply(Change(workflow=revision(1)))
    session, task = one_run(1)
    session = replace(session, definition=revision(1).definition, workflow_revision=1)
    await put(storage, session, task)
    for number in range(2, 106):
        await storage.apply(Change(workflow=revision(number)))
    assert await revisions(storage) == [*range(105, 5, -1), 1]
    await put(storage, bump(session, status=SessionStatus.CANCELLED, ended_at=at(9)), ended(task))
    await storage.prune(Retention(ended_sessions=0), at(10))
    await storage.apply(Change(workflow=revision(106)))
    assert await revisions(storage) == [*range(106, 6, -1)]
