"""A task as it is made of a step: which agents may have it, its parameters, and their size."""

from collections.abc import Mapping
from typing import Any

import orjson

from opscore.ids import task_id
from opscore.models import Task, TaskDefinition, WorkflowSession
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.references import resolve


def new_task(
    draft: Draft, session: WorkflowSession, step: TaskDefinition, stands_for: str | None
) -> Task:
    now = draft.ctx.now
    return Task(
        id=task_id(session.id, step.task_id, stands_for),
        session_id=session.id,
        workflow_id=session.workflow_id,
        step_id=step.task_id,
        name=step.name,
        stands_for=stands_for,
        created_at=now,
        waiting_since=now,
        priority=step.priority,
        message_type=step.message_type,
        tool_name=step.tool_name,
        parameters=step.parameters,
        **wanted_by(step, session),
    )


def wanted_by(step: TaskDefinition, session: WorkflowSession) -> dict[str, Any]:
    """Return the task fields that say which agents may have the step."""
    if step.agent_capability is None:
        wanted = step.agent_id or session.agent_id
        return {"wanted_agent": wanted, "wanted_capability": None, "preferred_agent": None}
    return {
        "wanted_agent": None,
        "wanted_capability": step.agent_capability,
        "preferred_agent": session.agent_id,
    }


def resolved_parameters(
    session: WorkflowSession, step: TaskDefinition, overrides: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Resolve the step's references; `overrides` replace its parameters as they are.

    Where nothing is replaced the definition's own mapping is returned: many tasks share it.
    """
    own = {name: value for name, value in step.parameters.items() if name not in overrides}
    parameters = {**(resolve(own, _scope(session)) if own else {}), **overrides}
    return step.parameters if parameters == step.parameters else parameters


def _scope(session: WorkflowSession) -> dict[str, Any]:
    return {
        "input": session.input,
        "tasks": {step: {"result": result} for step, result in session.results.items()},
        "session": {"id": session.id, "metadata": session.metadata},
    }


def queue_bytes(session: WorkflowSession, parameters: Mapping[str, Any]) -> int:
    """Return how many bytes of JSON a waiting task keeps: parameters, input, own definition.

    A saved definition is shared by all its sessions and counts nothing.
    """
    kept: list[Any] = [parameters, session.input]
    if not session.workflow_revision:
        kept.append([step.parameters for step in session.definition.tasks])
    return len(orjson.dumps(kept))
