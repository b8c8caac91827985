"""The schema of a workflow definition: from a document to values, with every fault noted."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from opscore.models.definition import (
    DEFAULT_PRIORITY,
    HIGHEST_PRIORITY,
    Backoff,
    Fallback,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    MessageType,
    RetryPolicy,
    TaskDefinition,
    WorkflowDefinition,
)
from opscore.workflow.faults import Faults
from opscore.workflow.fields import Fields
from opscore.workflow.flow import check_flow
from opscore.workflow.free_values import FreeValues

MOST_TASKS = 1000
MOST_RETRIES = 100
MOST_NON_RETRYABLE = 100
NAME_LENGTH = 256
VERSION_LENGTH = 64
DESCRIPTION_LENGTH = 4096
WORD_LENGTH = 128

DEFINITION_FIELDS = ("id", "name", "version", "description", "timeout", "tasks")
TASK_FIELDS = (
    "taskId",
    "name",
    "agentCapability",
    "agentId",
    "messageType",
    "toolName",
    "parameters",
    "nextTaskId",
    "priority",
    "delay",
    "timeout",
    "startTimeout",
    "queueTimeout",
    "retry",
    "fallback",
)
RETRY_FIELDS = ("maxRetries", "backoff", "initialDelay", "maxDelay", "jitter", "nonRetryable")
FALLBACK_FIELDS = ("taskId", "agentCapability", "result")

# What stands in for an id that is missing or wrong, so that the rest can still be checked.
NO_ID = ""

_NOT_A_TOOL = (None, MessageType.WORKFLOW_TASK)


def read_definition(
    document: Mapping[str, Any], default_id: str | None, faults: Faults
) -> WorkflowDefinition:
    """The definition in a document. It is only sound if no fault was noted."""
    return _DefinitionReader(faults).read(document, default_id)


class _DefinitionReader:
    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._values = FreeValues(faults)

    def read(self, document: Mapping[str, Any], default_id: str | None) -> WorkflowDefinition:
        fields = Fields(document, "", self._faults, DEFINITION_FIELDS)
        if fields.raw("id") is None and default_id is None:
            fields.fault("id", "The definition needs an id.", "missing")
        return WorkflowDefinition(
            id=fields.identifier("id", default_id) or NO_ID,
            name=fields.text("name", NAME_LENGTH),
            version=fields.text_or_number("version", VERSION_LENGTH),
            description=fields.prose("description", DESCRIPTION_LENGTH),
            timeout=fields.duration("timeout"),
            tasks=self._tasks(fields),
        )

    def _tasks(self, fields: Fields) -> tuple[TaskDefinition, ...]:
        items = fields.items("tasks")
        if items is None:
            if fields.raw("tasks") is None:
                fields.fault("tasks", "The definition needs a list of tasks.", "missing")
            return ()
        if not items:
            fields.fault("tasks", "The definition needs at least one task.", "missing")
        if len(items) > MOST_TASKS:
            message = f"A definition may have at most {MOST_TASKS} tasks, not {len(items)}."
            fields.fault("tasks", message, "too_many_tasks")
            return ()
        tasks = tuple(self._task(item, f"/tasks/{number}") for number, item in enumerate(items))
        check_flow(tasks, self._faults)
        return tasks

    def _task(self, item: Any, pointer: str) -> TaskDefinition:
        if not isinstance(item, Mapping):
            self._faults.add(pointer, "A task must be an object.", "wrong_type")
            return TaskDefinition(NO_ID)
        fields = Fields(item, pointer, self._faults, TASK_FIELDS)
        if fields.raw("taskId") is None:
            fields.fault("taskId", "The task needs a taskId.", "missing")
        task = TaskDefinition(
            task_id=fields.identifier("taskId") or NO_ID,
            name=fields.text("name", NAME_LENGTH),
            agent_capability=fields.text("agentCapability", WORD_LENGTH),
            agent_id=fields.identifier("agentId"),
            message_type=fields.choice("messageType", MessageType) or MessageType.WORKFLOW_TASK,
            tool_name=fields.text("toolName", WORD_LENGTH),
            parameters=self._parameters(fields),
            next_task_id=_link(fields, "nextTaskId"),
            priority=_or(fields.integer("priority", 0, HIGHEST_PRIORITY), DEFAULT_PRIORITY),
            delay=fields.duration("delay", zero=True),
            timeout=fields.duration("timeout"),
            start_timeout=fields.duration("startTimeout", zero=True),
            queue_timeout=fields.duration("queueTimeout"),
            retry=self._retry(fields),
            fallback=self._fallback(fields),
        )
        _check_together(fields, task)
        return task

    def _parameters(self, fields: Fields) -> dict[str, Any]:
        found = fields.mapping("parameters")
        if found is None:
            return {}
        copy = self._values.copy(found, fields.place("parameters"), depth=4)
        return copy if isinstance(copy, dict) else {}

    def _retry(self, task: Fields) -> RetryPolicy:
        found = task.mapping("retry")
        if found is None:
            return RetryPolicy()
        fields = Fields(found, task.place("retry"), self._faults, RETRY_FIELDS)
        default = RetryPolicy()
        initial, longest = _delays(fields, default)
        return RetryPolicy(
            max_retries=_or(fields.integer("maxRetries", 0, MOST_RETRIES), default.max_retries),
            backoff=fields.choice("backoff", Backoff) or default.backoff,
            initial_delay=initial,
            max_delay=longest,
            jitter=_or(fields.flag("jitter"), default.jitter),
            non_retryable=self._non_retryable(fields),
        )

    def _non_retryable(self, retry: Fields) -> tuple[str, ...]:
        found = retry.items("nonRetryable") or ()
        if len(found) > MOST_NON_RETRYABLE:
            message = f"It may list at most {MOST_NON_RETRYABLE} entries."
            retry.fault("nonRetryable", message, "too_many_values")
            return ()
        place = retry.place("nonRetryable")
        names = tuple(str(number) for number in range(len(found)))
        entries = Fields(dict(zip(names, found, strict=True)), place, self._faults, names)
        for name in names:
            if entries.raw(name) is None:
                entries.fault(name, "It must be a text, not null.", "wrong_type")
        words = (entries.text(name, NAME_LENGTH) for name in names)
        return tuple(word for word in words if word is not None)

    def _fallback(self, task: Fields) -> Fallback | None:
        found = task.mapping("fallback")
        if found is None:
            return None if task.raw("fallback") is None else FallbackTask(NO_ID)
        fields = Fields(found, task.place("fallback"), self._faults, FALLBACK_FIELDS)
        match _given(fields):
            case ["taskId"]:
                target = _link(fields, "taskId")
                return None if target is None else FallbackTask(target)
            case ["agentCapability"]:
                capability = fields.text("agentCapability", WORD_LENGTH)
                return None if capability is None else FallbackCapability(capability)
            case ["result"]:
                place = fields.place("result")
                return FallbackResult(self._values.copy(found["result"], place, depth=5))
            case _:
                message = "A fallback has exactly one of taskId, agentCapability and result."
                task.fault("fallback", message, "bad_fallback")
                return FallbackTask(NO_ID)


def _given(fallback: Fields) -> list[str]:
    """Which ways are named. A null result counts only where nothing else is named."""
    given = [name for name in FALLBACK_FIELDS if fallback.raw(name) is not None]
    return given or (["result"] if "result" in fallback else [])


def _delays(fields: Fields, default: RetryPolicy) -> tuple[timedelta, timedelta]:
    """A delay that is not given follows the one that is, so that it never contradicts it."""
    initial = fields.duration("initialDelay", zero=True)
    longest = fields.duration("maxDelay", zero=True)
    if initial is not None and longest is not None and longest < initial:
        fields.fault("maxDelay", "It must not be shorter than initialDelay.", "conflict")
    if initial is None:
        initial = default.initial_delay if longest is None else min(default.initial_delay, longest)
    return initial, max(default.max_delay, initial) if longest is None else longest


def _link(fields: Fields, name: str) -> str | None:
    """The id of another task. One that is wrong reads as `NO_ID`: it is a link all the same."""
    link = fields.identifier(name)
    return NO_ID if link is None and fields.raw(name) is not None else link


def _check_together(fields: Fields, task: TaskDefinition) -> None:
    if task.agent_capability is not None and task.agent_id is not None:
        message = "Give agentCapability or agentId, not both."
        fields.fault("agentId", message, "conflict")
    is_tool = task.message_type is MessageType.TOOL_INVOCATION
    if is_tool and fields.raw("toolName") is None:
        fields.fault("toolName", "A tool_invocation needs a toolName.", "missing")
    if fields.raw("toolName") is not None and fields.raw("messageType") in _NOT_A_TOOL:
        message = "A toolName needs the messageType tool_invocation."
        fields.fault("toolName", message, "conflict")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
