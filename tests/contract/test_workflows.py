"""Workflows and their revisions."""

from typing import Any

from opscore.models import Change, Page, WorkflowRevision
from opscore.storage import Storage
from tests import builders
from tests.builders import at
from tests.contract.shelf import one_run, put


def revision(number: int, workflow_id: str = "flow", **changes: Any) -> WorkflowRevision:
    definition = builders.definition(id=workflow_id, version=str(number), **changes)
    return WorkflowRevision(definition, number, at(number))


async def test_revisions_are_kept_and_the_newest_is_the_workflow(storage: Storage) -> None:
    saved = [revision(number) for number in (1, 2, 3)]
    for one in saved:
        await storage.apply(Change(workflow=one))
    assert await storage.workflow("flow") == saved[2]
    assert [await storage.workflow("flow", one) for one in (1, 2, 3)] == saved
    assert await storage.workflow("flow", 4) is None
    assert await storage.workflow("flow", 0) is None
    assert list(await storage.workflow_revisions("flow")) == saved[::-1]
    assert list(await storage.workflow_revisions("other")) == []


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
    assert list(await storage.workflow_revisions("flow")) == []
    assert (await storage.workflows(None, 10)).items == (revision(1, "other"),)
    assert await storage.session(session.id) == session
    await storage.apply(Change(workflow=revision(1)))
    assert list(await storage.workflow_revisions("flow")) == [revision(1)]
