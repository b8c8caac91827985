"""Workflow templates: from YAML, JSON or a mapping to a definition, and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from opscore.models.definition import WorkflowDefinition

Syntax = Literal["json", "yaml"]


def load_workflow_template(
    source: str | bytes | Path | Mapping[str, Any],
    *,
    syntax: Syntax | None = None,
    default_id: str | None = None,
) -> WorkflowDefinition:
    raise NotImplementedError


def parse_definition(
    document: Mapping[str, Any], default_id: str | None = None
) -> WorkflowDefinition:
    raise NotImplementedError


def dump_definition(definition: WorkflowDefinition) -> dict[str, Any]:
    raise NotImplementedError


def read_templates(folder: Path) -> tuple[WorkflowDefinition, ...]:
    raise NotImplementedError
