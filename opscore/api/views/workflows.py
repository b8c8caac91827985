"""Answers about workflows and their revisions."""

from datetime import datetime
from typing import Any

from opscore.api.views.base import View
from opscore.models import (
    RevisionInfo,
    WorkflowRevision,
)
from opscore.workflow.templates import dump_definition


class WorkflowView(View):
    workflow_id: str
    revision: int
    name: str | None
    version: str | None
    description: str | None
    saved_at: datetime
    definition: dict[str, Any]

    @classmethod
    def of(cls, saved: WorkflowRevision) -> "WorkflowView":
        definition = saved.definition
        return cls(
            workflow_id=saved.id,
            revision=saved.revision,
            name=definition.name,
            version=definition.version,
            description=definition.description,
            saved_at=saved.saved_at,
            definition=dump_definition(definition),
        )


class RevisionView(View):
    """A revision; `GET workflow/{id}?revision=n` has its definition."""

    workflow_id: str
    revision: int
    saved_at: datetime

    @classmethod
    def of(cls, info: RevisionInfo) -> "RevisionView":
        return cls(workflow_id=info.workflow_id, revision=info.revision, saved_at=info.saved_at)


class ValidView(View):
    valid: bool = True
    workflow_id: str
    tasks: int
    definition: dict[str, Any]
