"""The catalog: saving, revisions, deleting, folders."""

import asyncio
from pathlib import Path

import pytest

from opscore.exceptions import (
    ConfigurationError,
    InvalidWorkflowError,
    VersionConflictError,
    WorkflowNotFoundError,
)
from opscore.models import EventType, WorkflowRevision
from tests.builders import at, definition, step
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder

FLOW = definition()
CHANGED = definition(step("two"))


async def test_a_definition_is_saved_once_and_changes_make_revisions(build: Builder) -> None:
    house = await build(running=False)
    assert await house.catalog.create_workflow(FLOW) == (WorkflowRevision(FLOW, 1, at(0)), True)
    house.clock.advance(5)
    assert await house.catalog.create_workflow(FLOW) == (WorkflowRevision(FLOW, 1, at(0)), False)
    second = WorkflowRevision(CHANGED, 2, at(5))
    assert await house.catalog.create_workflow(CHANGED) == (second, True)
    assert await house.catalog.get_workflow_definition("flow") == second
    assert (await house.catalog.get_workflow_definition("flow", 1)).definition == FLOW
    page = await house.catalog.revisions("flow", None, 10)
    assert [one.revision for one in page.items] == [2, 1]
    saved = await house.events(EventType.WORKFLOW_SAVED)
    assert [event.data for event in saved] == [
        {"workflowId": "flow", "revision": 1},
        {"workflowId": "flow", "revision": 2},
    ]


async def test_what_is_unknown_or_deleted_is_not_found(build: Builder) -> None:
    house = await build(running=False)
    with pytest.raises(WorkflowNotFoundError, match="GET workflows"):
        await house.catalog.get_workflow_definition("flow")
    with pytest.raises(WorkflowNotFoundError):
        await house.catalog.delete_workflow("flow")
    await house.catalog.create_workflow(FLOW)
    with pytest.raises(WorkflowNotFoundError, match="no such revision"):
        await house.catalog.get_workflow_definition("flow", 2)
    await house.catalog.delete_workflow("flow")
    with pytest.raises(WorkflowNotFoundError):
        await house.catalog.revisions("flow", None, 10)
    assert len(await house.events(EventType.WORKFLOW_DELETED)) == 1
    saved, created = await house.catalog.create_workflow(CHANGED)
    assert (saved.revision, created) == (1, True)


async def test_two_who_save_at_once_make_two_revisions(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    storage.conflicts = 2
    saved, created = await house.catalog.create_workflow(FLOW)
    assert (saved.revision, created) == (1, True)
    storage.conflicts = 1_000
    with pytest.raises(VersionConflictError, match="Others keep saving"):
        await house.catalog.create_workflow(CHANGED)
    assert (await house.catalog.get_workflow_definition("flow")).definition == FLOW


async def test_40_revisions_of_one_workflow_saved_at_once_are_all_kept(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    storage.slow = {"apply"}
    revisions = [definition(description=str(number)) for number in range(40)]
    saves = asyncio.gather(*map(house.catalog.create_workflow, revisions))
    await settle(50)
    storage.gate.set()
    await saves
    page = await house.catalog.revisions("flow", None, 100)
    assert [one.revision for one in page.items] == [*range(40, 0, -1)]


async def test_a_template_is_read_and_saved(build: Builder) -> None:
    house = await build(running=False)
    text = "id: made\ntasks:\n  - taskId: one\n    agentCapability: research\n"
    saved, created = await house.catalog.load_workflow_template(text)
    assert (saved.id, saved.revision, created) == ("made", 1, True)
    assert saved.definition.tasks[0].agent_capability == "research"
    again, created = await house.catalog.load_workflow_template(text.encode())
    assert (again.revision, created) == (1, False)


async def test_a_folder_is_loaded_as_a_whole_or_not_at_all(build: Builder, tmp_path: Path) -> None:
    house = await build(running=False)
    (tmp_path / "a.yaml").write_text("tasks:\n  - taskId: one\n")
    (tmp_path / "b.json").write_text('{"id": "second", "tasks": [{"taskId": "one"}]}')
    assert await house.catalog.load_folder(tmp_path) == 2
    page = await house.storage.workflows(None, 10)
    assert [one.id for one in page.items] == ["a", "second"]
    (tmp_path / "a.yaml").write_text("tasks:\n  - taskId: changed\n")
    (tmp_path / "c.yaml").write_text("tasks: nothing\n")
    with pytest.raises(InvalidWorkflowError):
        await house.catalog.load_folder(tmp_path)
    assert (await house.catalog.get_workflow_definition("a")).revision == 1
    with pytest.raises(ConfigurationError):
        await house.catalog.load_folder(tmp_path / "nowhere")
