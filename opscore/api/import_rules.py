"""Check the records of an export: by the rules of the API's own input, and against each other.

Anyone may have written the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Annotated, Any

import pydantic
from pydantic import Field, TypeAdapter

from opscore.agentkit_client.addresses import check_endpoint
from opscore.api.schemas import AgentIn, Id, StateWordText
from opscore.api.validation import VISIBLE_PATTERN, validation_error
from opscore.models import (
    ANY_ENDPOINT,
    HIGHEST_PRIORITY,
    Agent,
    AgentKitKnowledge,
    Event,
    IdempotencyRecord,
    WebhookReceipt,
    WorkflowDefinition,
    WorkflowRevision,
    WorkflowSession,
)
from opscore.storage.portable import (
    EarlyReport,
    KeptAgent,
    KeptTask,
    LastEvent,
    Portable,
    ServedTurn,
)
from opscore.storage.transfer import remember
from opscore.workflow.templates import dump_definition, parse_definition

_ID: TypeAdapter[str] = TypeAdapter(Id)
_TOKEN: TypeAdapter[str] = TypeAdapter(
    Annotated[str, Field(pattern=VISIBLE_PATTERN, max_length=255)]
)
_STATE: TypeAdapter[str] = TypeAdapter(StateWordText)
_COUNTED_FROM_ONE = frozenset({"rev", "revision"})
_IDS = frozenset({"id", "step_id", "stands_for", "wanted_agent", "preferred_agent"})


def check_definition(definition: WorkflowDefinition) -> None:
    """Raise InvalidWorkflowError, as saving it would, or ValueError."""
    if parse_definition(dump_definition(definition)) != definition:
        raise ValueError("the definition has values that Ops-Core does not write")


@dataclass(frozen=True, slots=True)
class _Steps:
    workflow_id: str
    ids: frozenset[str]


class ImportRules:
    """Checks records one after the other; raises ValueError with the reason as a clause."""

    def __init__(self) -> None:
        # As numbers of 64 bits, because there may be millions.
        self._seen: set[int] = set()
        self._sessions: dict[str, _Steps] = {}
        self._steps: dict[int, tuple[WorkflowDefinition, _Steps]] = {}
        self._revisions: dict[str, int] = {}
        self._successors: dict[str, str] = {}
        self._last_event = 0
        self._event = 0

    def check(self, record: Portable) -> None:
        _check_values(record)
        match record:
            case LastEvent(seq):
                self._check_new("lastEvent")
                self._last_event = seq
            case WorkflowRevision():
                self._check_revision(record)
            case KeptAgent(agent):
                self._check_new("agent", agent.id)
                self._check_successor(agent)
                _check_agent(agent)
            case WorkflowSession():
                self._check_new("session", record.id)
                self._sessions[record.id] = self._steps_of(record.definition)
            case KeptTask():
                self._check_new("task", record.task.id)
                self._check_task(record)
            case ServedTurn():
                self._check_new("turn", record.lane, record.needs_agentkit, record.priority)
            case Event():
                self._check_event(record)
            case EarlyReport(report):
                self._check_new("earlyReport", report.agent_id)
                _check_text(_STATE, "state", report.state)
            case WebhookReceipt():
                self._check_new("receipt", record.signature)
                _check_text(_TOKEN, "signature", record.signature)
            case IdempotencyRecord():
                self._check_new("idempotencyKey", record.key)
                _check_text(_TOKEN, "key", record.key)
            case AgentKitKnowledge():
                self._check_new("agentkit", record.agentkit)

    def _check_new(self, *key: object) -> None:
        number = hash(key)
        if number in self._seen:
            raise ValueError("it stands there twice")
        self._seen.add(number)

    def _check_revision(self, saved: WorkflowRevision) -> None:
        if saved.revision <= self._revisions.get(saved.id, 0):
            raise ValueError("the revisions of a workflow must rise from 1")
        self._revisions[saved.id] = saved.revision

    def _check_successor(self, agent: Agent) -> None:
        if agent.replaced_by is None:
            return
        newest = self._newest_id(agent.replaced_by)
        if newest == agent.id:
            raise ValueError("agents replace each other in a circle")
        self._successors[agent.id] = newest

    def _newest_id(self, agent_id: str) -> str:
        """Return the end of the chain of successors; each step of it then leads there at once."""
        passed = []
        while agent_id in self._successors:
            passed.append(agent_id)
            agent_id = self._successors[agent_id]
        self._successors.update(dict.fromkeys(passed, agent_id))
        return agent_id

    def _check_task(self, kept: KeptTask) -> None:
        task = kept.task
        steps = self._sessions.get(task.session_id)
        if steps is None:
            raise ValueError("the task belongs to no session before it")
        named = {task.step_id, task.stands_for or task.step_id}
        if task.workflow_id != steps.workflow_id or not named <= steps.ids:
            raise ValueError("the task is no step of its session's definition")
        if (kept.turn or kept.arrival) and task.status != "queued":
            raise ValueError("a task that is not queued has no place in a queue")

    def _steps_of(self, definition: WorkflowDefinition) -> _Steps:
        """The same object for all sessions of a definition that come near each other."""
        known = self._steps.get(id(definition))
        # The definition is kept beside its id, so the id cannot come to mean another one.
        if known is None:
            steps = _Steps(definition.id, frozenset(step.task_id for step in definition.tasks))
            known = definition, steps
            remember(self._steps, id(definition), known)
        return known[1]

    def _check_event(self, event: Event) -> None:
        if not self._event < event.seq <= self._last_event:
            raise ValueError("the numbers of events must rise, up to that of lastEvent")
        self._event = event.seq


def _check_agent(agent: Agent) -> None:
    AgentIn(
        agent_id=agent.id,
        agent_name=agent.name,
        capabilities=agent.capabilities,
        version=agent.version,
        contact_endpoint=agent.contact_endpoint,
        metadata=None if agent.metadata is None else dict(agent.metadata),
        concurrency=agent.concurrency,
    )
    if agent.contact_endpoint is not None:
        check_endpoint(agent.contact_endpoint, ANY_ENDPOINT)


def _check_text(rule: TypeAdapter[str], name: str, value: str) -> None:
    try:
        rule.validate_python(value)
    except pydantic.ValidationError as error:
        issue = validation_error(error.errors()).faults[0]
        raise ValueError(f"{name}: {issue.message}") from error


def _check_values(record: Any) -> None:
    """Check what holds for a field wherever it stands: ids, times and numbers."""
    for name, value in _values(record):
        match value:
            case datetime() if value.utcoffset() != timedelta():
                raise ValueError(f"{name} must be a time in UTC")
            case str() if value and (name in _IDS or name.endswith("_id")):
                _check_text(_ID, name, value)
            case int() if value < (least := 1 if name in _COUNTED_FROM_ONE else 0):
                raise ValueError(f"{name} must be at least {least}")
            case int() if name == "priority" and value > HIGHEST_PRIORITY:
                raise ValueError(f"{name} goes up to {HIGHEST_PRIORITY}")


def _values(record: Any) -> Iterator[tuple[str, Any]]:
    """All fields with their names, those of records within it too; definitions are checked once."""
    for name in _names(record.__class__):
        value = getattr(record, name)
        if _names(value.__class__):
            yield from _values(value)
        else:
            yield name, value


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The names of a record's fields; none of other values."""
    if kind is WorkflowDefinition or not is_dataclass(kind):
        return ()
    return tuple(field.name for field in fields(kind))
