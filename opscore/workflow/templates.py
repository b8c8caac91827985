"""Workflow templates: from YAML, JSON or a mapping to a definition, and back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from opscore.durations import format_duration
from opscore.exceptions import (
    BadRequestError,
    ConfigurationError,
    Fault,
    InvalidWorkflowError,
    OpsCoreError,
    PayloadTooLargeError,
)
from opscore.models.definition import (
    Fallback,
    FallbackCapability,
    FallbackTask,
    RetryPolicy,
    TaskDefinition,
    WorkflowDefinition,
)
from opscore.workflow.faults import Faults, TooManyFaultsError
from opscore.workflow.json_text import parse_json
from opscore.workflow.validation import read_definition
from opscore.workflow.yaml_text import YamlDocument, parse_yaml

Syntax = Literal["json", "yaml"]

SOURCE_LIMIT = 1024 * 1024

_SYNTAXES: dict[str, Syntax] = {".json": "json", ".yaml": "yaml", ".yml": "yaml"}
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def load_workflow_template(
    source: str | bytes | Path | Mapping[str, Any],
    *,
    syntax: Syntax | None = None,
    default_id: str | None = None,
) -> WorkflowDefinition:
    """Read one definition from a text, from the file at a Path, or from a parsed document.

    A `str` is always a text, never the name of a file. Without `syntax` a file's ending decides,
    and a text that begins with `{` is JSON, any other YAML. A file's name without its ending
    stands in for a missing id.
    """
    match source:
        case Mapping():
            return parse_definition(source, default_id)
        case Path():
            syntax = syntax or _SYNTAXES.get(source.suffix.lower())
            return _load_text(_decode(_read(source)), syntax, default_id or source.stem)
        case bytes():
            return _load_text(_decode(source), syntax, default_id)
        case _:
            return _load_text(source, syntax, default_id)


def parse_definition(document: object, default_id: str | None = None) -> WorkflowDefinition:
    """Check a whole document; InvalidWorkflowError carries every fault with its JSON pointer."""
    faults = Faults()
    if not isinstance(document, Mapping):
        faults.add(
            "", "A workflow definition must be an object with an id and tasks.", "wrong_type"
        )
        raise _invalid(faults.all())
    try:
        definition = read_definition(document, default_id, faults)
    except TooManyFaultsError as error:
        raise _invalid(faults.all()) from error
    if faults:
        raise _invalid(faults.all())
    return definition


def read_templates(folder: Path) -> tuple[WorkflowDefinition, ...]:
    """Every .yaml, .yml and .json file of a folder, in the order of their names.

    Files whose names begin with a dot are passed over. Faults of all files come in one
    InvalidWorkflowError, their pointers beginning with the name of the file.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"The folder of workflow templates is not there: {folder}.")
    files: dict[str, str] = {}
    definitions: list[WorkflowDefinition] = []
    faults: list[Fault] = []
    for file in _template_files(folder):
        try:
            definition = load_workflow_template(file)
        except OpsCoreError as error:
            faults.extend(_faults_in(file, error))
            continue
        earlier = files.setdefault(definition.id, file.name)
        if earlier != file.name:
            message = f"{earlier} has a definition with the same id. Give each its own."
            faults.append(Fault(f"{file.name}#/id", message, "duplicate_id"))
        definitions.append(definition)
    if faults:
        first = f"The templates are not valid. {faults[0].pointer}: {faults[0].message}"
        more = f" And {len(faults) - 1} more." if len(faults) > 1 else ""
        raise InvalidWorkflowError(first + more, faults=faults)
    return tuple(definitions)


def dump_definition(definition: WorkflowDefinition) -> dict[str, Any]:
    """The definition as JSON has it. What is None is left out; all else is there, spelled out."""
    return _without_none(
        id=definition.id,
        name=definition.name,
        version=definition.version,
        description=definition.description,
        timeout=_duration(definition.timeout),
        tasks=[_dump_task(task) for task in definition.tasks],
    )


def _load_text(text: str, syntax: Syntax | None, default_id: str | None) -> WorkflowDefinition:
    if len(text) > SOURCE_LIMIT:
        raise _too_large()
    if text.startswith("\ufeff"):
        raise BadRequestError("The text begins with a byte order mark. Save it without one.")
    if (syntax or _guess(text)) == "json":
        return parse_definition(parse_json(text), default_id)
    document = parse_yaml(text)
    try:
        return parse_definition(document.value, default_id)
    except InvalidWorkflowError as error:
        raise _invalid([_placed(fault, document) for fault in error.faults]) from error


def _guess(text: str) -> Syntax:
    return "json" if text.lstrip().startswith("{") else "yaml"


def _placed(fault: Fault, document: YamlDocument) -> Fault:
    position = document.locate(fault.pointer)
    if position is None:
        return fault
    message = fault.message.removesuffix(".")
    return replace(fault, message=f"{message} (line {position[0]}, column {position[1]}).")


def _decode(source: bytes) -> str:
    if len(source) > SOURCE_LIMIT:
        raise _too_large()
    if source.startswith(_BYTE_ORDER_MARKS):
        raise BadRequestError("The text begins with a byte order mark. Save it as plain UTF-8.")
    try:
        return source.decode()
    except UnicodeDecodeError as error:
        message = f"The text is not UTF-8 at byte {error.start}. Save it as UTF-8."
        raise BadRequestError(message) from error


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(SOURCE_LIMIT + 1)
    except OSError as error:
        reason = error.strerror or "unknown reason"
        raise ConfigurationError(f"{file.name} cannot be read: {reason}.") from error


def _template_files(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.suffix.lower() in _SYNTAXES and not file.name.startswith(".") and file.is_file():
            yield file


def _faults_in(file: Path, error: OpsCoreError) -> tuple[Fault, ...]:
    faults = error.faults or (Fault("", error.detail, error.code),)
    return tuple(replace(fault, pointer=f"{file.name}#{fault.pointer}") for fault in faults)


def _invalid(faults: Sequence[Fault]) -> InvalidWorkflowError:
    detail = "The workflow definition is not valid. Each fault is listed with its place."
    if len(faults) == 1:
        place = faults[0].pointer.removeprefix("/")
        detail = (
            f"The workflow definition is not valid. {place and f'{place}: '}{faults[0].message}"
        )
    return InvalidWorkflowError(detail, faults=faults)


def _too_large() -> PayloadTooLargeError:
    return PayloadTooLargeError(f"A workflow template has at most {SOURCE_LIMIT // 1024} KiB.")


def _dump_task(task: TaskDefinition) -> dict[str, Any]:
    return _without_none(
        taskId=task.task_id,
        name=task.name,
        agentCapability=task.agent_capability,
        agentId=task.agent_id,
        messageType=task.message_type.value,
        toolName=task.tool_name,
        parameters=dict(task.parameters),
        nextTaskId=task.next_task_id,
        priority=task.priority,
        delay=_duration(task.delay),
        timeout=_duration(task.timeout),
        startTimeout=_duration(task.start_timeout),
        queueTimeout=_duration(task.queue_timeout),
        retry=_dump_retry(task.retry),
        fallback=None if task.fallback is None else _dump_fallback(task.fallback),
    )


def _dump_retry(retry: RetryPolicy) -> dict[str, Any]:
    return {
        "maxRetries": retry.max_retries,
        "backoff": retry.backoff.value,
        "initialDelay": format_duration(retry.initial_delay),
        "maxDelay": format_duration(retry.max_delay),
        "jitter": retry.jitter,
        "nonRetryable": list(retry.non_retryable),
    }


def _dump_fallback(fallback: Fallback) -> dict[str, Any]:
    match fallback:
        case FallbackTask(task_id):
            return {"taskId": task_id}
        case FallbackCapability(capability):
            return {"agentCapability": capability}
        case _:
            return {"result": fallback.result}


def _duration(duration: Any) -> str | None:
    return None if duration is None else format_duration(duration)


def _without_none(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
