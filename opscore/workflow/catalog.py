"""The catalog of workflows: saving makes revisions, running sessions keep theirs."""

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from opscore.crash_points import crash_point
from opscore.exceptions import VersionConflictError, WorkflowNotFoundError
from opscore.models import Page, RevisionInfo, WorkflowDefinition, WorkflowRevision
from opscore.workflow.engine import Engine
from opscore.workflow.templates import load_workflow_template, read_templates
from opscore.workflow.turns import Turns

_TRIES = 20
_LONGEST_PAUSE = 0.05


class Catalog:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._storage = engine.storage
        self._turns = Turns()

    async def load_workflow_template(
        self, source: str | bytes | Path | Mapping[str, Any]
    ) -> tuple[WorkflowRevision, bool]:
        """Read a template (JSON or YAML text, a file, a document) and save it."""
        return await self.create_workflow(load_workflow_template(source))

    async def load_folder(self, folder: Path) -> int:
        """Save every template of a folder; how many there were."""
        definitions = read_templates(folder)
        for definition in definitions:
            await self.create_workflow(definition)
        return len(definitions)

    async def create_workflow(
        self, definition: WorkflowDefinition
    ) -> tuple[WorkflowRevision, bool]:
        """Save a definition; the same one again makes no new revision. True if one was made."""
        return await self._turns.run(definition.id, lambda: self._save(definition))

    async def _save(self, definition: WorkflowDefinition) -> tuple[WorkflowRevision, bool]:
        for _ in range(_TRIES):
            newest = await self._storage.workflow(definition.id)
            if newest is not None and newest.definition == definition:
                return newest, False
            number = newest.revision + 1 if newest else 1
            saved = WorkflowRevision(definition, number, self._engine.clock.now())
            crash_point("workflow.checked")
            try:
                await self._engine.save_workflow(saved)
            except VersionConflictError:
                # Other replicas save too, and trying again at once would only meet them again.
                await asyncio.sleep(random.uniform(0, _LONGEST_PAUSE))
                continue
            crash_point("workflow.committed")
            return saved, True
        raise VersionConflictError("Others keep saving this workflow; try again.", retry_after=1)

    async def get_workflow_definition(
        self, workflow_id: str, revision: int | None = None
    ) -> WorkflowRevision:
        saved = await self._storage.workflow(workflow_id, revision)
        if saved is None:
            raise _unknown(revision)
        return saved

    async def revisions(
        self, workflow_id: str, cursor: str | None, limit: int
    ) -> Page[RevisionInfo]:
        page = await self._storage.workflow_revisions(workflow_id, cursor, limit)
        if not page.items and cursor is None:
            raise _unknown(None)
        return page

    async def delete_workflow(self, workflow_id: str) -> None:
        """No new sessions; the running ones keep their definition."""
        await self.get_workflow_definition(workflow_id)
        await self._engine.delete_workflow(workflow_id)
        crash_point("workflow.deleted")


def _unknown(revision: int | None) -> WorkflowNotFoundError:
    if revision is not None:
        return WorkflowNotFoundError(
            "The workflow has no such revision; GET workflow/{id}/revisions lists them."
        )
    return WorkflowNotFoundError("No workflow has this id; GET workflows lists them.")
