"""Templates are read from YAML, JSON, files and mappings, and written back."""

import json
import re
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from opscore.exceptions import (
    BadRequestError,
    ConfigurationError,
    InvalidWorkflowError,
    PayloadTooLargeError,
)
from opscore.models.definition import (
    Backoff,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    MessageType,
    RetryPolicy,
    TaskDefinition,
    WorkflowDefinition,
)
from opscore.workflow.templates import (
    SOURCE_LIMIT,
    dump_definition,
    load_workflow_template,
    parse_definition,
    read_templates,
)
from tests.unit.template_values import definitions, document, faults_of, places, task

FULL_YAML = """
id: research
name: Research
version: 1.10
description: |
  Gathers, then writes.
timeout: 1h
tasks:
  - taskId: gather
    name: no
    agentCapability: search
    parameters: {topic: "${input.topic}", depth: 2}
    priority: 9
    delay: 10
    timeout: 5m
    startTimeout: 0
    queueTimeout: 1h30m
    retry:
      maxRetries: 5
      backoff: fixed
      initialDelay: 500ms
      maxDelay: 2s
      jitter: false
      nonRetryable: [bad_input, 404]
    fallback: {taskId: ask}
  - taskId: count
    messageType: tool_invocation
    toolName: counter
    agentId: agent-1
    fallback: {result: {count: null}}
  - taskId: write
    fallback: {agentCapability: typing}
  - taskId: ask
"""

FULL = WorkflowDefinition(
    id="research",
    name="Research",
    version="1.10",
    description="Gathers, then writes.\n",
    timeout=timedelta(hours=1),
    tasks=(
        TaskDefinition(
            task_id="gather",
            name="no",
            agent_capability="search",
            parameters={"topic": "${input.topic}", "depth": 2},
            priority=9,
            delay=timedelta(seconds=10),
            timeout=timedelta(minutes=5),
            start_timeout=timedelta(0),
            queue_timeout=timedelta(minutes=90),
            retry=RetryPolicy(
                max_retries=5,
                backoff=Backoff.FIXED,
                initial_delay=timedelta(milliseconds=500),
                max_delay=timedelta(seconds=2),
                jitter=False,
                non_retryable=("bad_input", "404"),
            ),
            fallback=FallbackTask("ask"),
        ),
        TaskDefinition(
            task_id="count",
            message_type=MessageType.TOOL_INVOCATION,
            tool_name="counter",
            agent_id="agent-1",
            fallback=FallbackResult({"count": None}),
        ),
        TaskDefinition(task_id="write", fallback=FallbackCapability("typing")),
        TaskDefinition(task_id="ask"),
    ),
)


def test_yaml_text_gives_every_field() -> None:
    assert load_workflow_template(FULL_YAML) == FULL
    assert load_workflow_template(FULL_YAML.encode()) == FULL


def test_a_definition_is_written_as_json_has_it() -> None:
    dumped = dump_definition(FULL)
    assert dumped["timeout"] == "1h"
    assert dumped["tasks"][0] == {
        "taskId": "gather",
        "name": "no",
        "agentCapability": "search",
        "messageType": "workflow_task",
        "parameters": {"topic": "${input.topic}", "depth": 2},
        "priority": 9,
        "delay": "10s",
        "timeout": "5m",
        "startTimeout": "0s",
        "queueTimeout": "1h30m",
        "retry": {
            "maxRetries": 5,
            "backoff": "fixed",
            "initialDelay": "500ms",
            "maxDelay": "2s",
            "jitter": False,
            "nonRetryable": ["bad_input", "404"],
        },
        "fallback": {"taskId": "ask"},
    }
    assert dumped["tasks"][1]["toolName"] == "counter"
    assert dumped["tasks"][1]["fallback"] == {"result": {"count": None}}
    assert dumped["tasks"][2]["fallback"] == {"agentCapability": "typing"}
    assert "fallback" not in dumped["tasks"][3]
    assert "nextTaskId" not in dumped["tasks"][3]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(definitions())
def test_what_is_written_is_read_back(definition: WorkflowDefinition) -> None:
    dumped = dump_definition(definition)
    assert parse_definition(dumped) == definition
    assert load_workflow_template(json.dumps(dumped)) == definition
    assert load_workflow_template(_flow_yaml(dumped), syntax="yaml") == definition


def _flow_yaml(value: Any) -> str:
    """JSON is YAML too, save for its pairs of surrogates."""
    pairs = re.compile(r"\\\\|\\u(d[89ab]..)\\u(d[c-f]..)")

    def joined(found: re.Match[str]) -> str:
        if found.group(1) is None:
            return found.group()
        high, low = int(found.group(1), 16), int(found.group(2), 16)
        return f"\\U{0x10000 + ((high - 0xD800) << 10) + low - 0xDC00:08x}"

    return pairs.sub(joined, json.dumps(value))


def test_definitions_as_other_clients_send_them() -> None:
    definition = parse_definition(
        {
            "id": "wf_1",
            "name": "Test",
            "description": "",
            "version": "1.0",
            "tasks": [
                {
                    "taskId": "step_1",
                    "name": "First Step",
                    "agentCapability": "test_capability",
                    "parameters": {"a": 1},
                    "nextTaskId": "step_2",
                },
                {"taskId": "step_2", "parameters": {}, "nextTaskId": None},
            ],
        }
    )
    assert definition.first().next_task_id == "step_2"
    assert definition.tasks[1] == TaskDefinition("step_2")


def test_null_counts_as_absent() -> None:
    fields = ("name", "version", "description", "timeout")
    nulls = dict.fromkeys(fields)
    names = ("name", "agentCapability", "agentId", "messageType", "toolName", "parameters")
    more = ("nextTaskId", "priority", "delay", "timeout", "startTimeout", "queueTimeout")
    full = {"taskId": "a", **dict.fromkeys((*names, *more, "retry", "fallback"))}
    assert parse_definition(document(full, **nulls)) == parse_definition(document())
    text = "id: w\nname:\nversion: null\ntasks:\n- taskId: a\n  nextTaskId:\n  retry: null\n"
    assert load_workflow_template(text) == parse_definition(document())
    retry = task(retry=dict.fromkeys(("maxRetries", "backoff", "jitter", "nonRetryable")))
    assert parse_definition(document(retry)) == parse_definition(document())


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.10", "1.10"), (1.5, "1.5"), (2, "2"), (None, None), ("2026-11-21", "2026-11-21")],
)
def test_a_version_is_a_text_or_a_number(version: Any, expected: str | None) -> None:
    assert parse_definition(document(version=version)).version == expected


@pytest.mark.parametrize("version", [True, [1], "", 2**60, float("nan"), 10**400])
def test_a_version_is_nothing_else(version: Any) -> None:
    assert [fault.pointer for fault in faults_of(document(version=version))] == ["/version"]


def test_the_first_character_tells_json_from_yaml_unless_the_caller_does() -> None:
    assert load_workflow_template(' {"id": "w", "tasks": [{"taskId": "a"}]}').id == "w"
    flow = "{id: w, tasks: [{taskId: a}]}"
    assert load_workflow_template(flow, syntax="yaml").id == "w"
    assert places(faults_of(flow)) == [("", "bad_json")]
    assert places(faults_of("id: w", syntax="json")) == [("", "bad_json")]


def test_a_text_is_never_the_name_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "w.yaml"
    file.write_text("id: w\ntasks:\n- taskId: a\n")
    assert places(faults_of(str(file))) == [("", "wrong_type")]


def test_a_default_id_stands_in_for_a_missing_one() -> None:
    without = {"tasks": [{"taskId": "a"}]}
    assert parse_definition(without, "given").id == "given"
    assert parse_definition({**without, "id": None}, "given").id == "given"
    assert parse_definition({**without, "id": "own"}, "given").id == "own"
    assert load_workflow_template("tasks: [{taskId: a}]", default_id="given").id == "given"
    assert places(faults_of(without)) == [("/id", "missing")]
    assert places(faults_of(without, default_id="not good")) == [("/id", "bad_id")]


def test_parameters_are_copies() -> None:
    parameters: dict[str, Any] = {"list": [1], "object": {"x": (1, 2)}}
    definition = parse_definition(document(task(parameters=parameters)))
    parameters["list"].append(2)
    assert definition.first().parameters == {"list": [1], "object": {"x": [1, 2]}}


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"])
def test_F84_byte_order_marks_are_refused(mark: bytes) -> None:
    with pytest.raises(BadRequestError, match="byte order mark"):
        load_workflow_template(mark + b"id: w")


@pytest.mark.parametrize("source", ["id: w".encode("utf-16-le") + b"\xd8", b"id: \xff", b"\xc0"])
def test_F84_what_is_not_utf8_is_refused(source: bytes) -> None:
    with pytest.raises(BadRequestError, match="not UTF-8 at byte"):
        load_workflow_template(source)


def test_F84_a_byte_order_mark_in_a_text_is_refused() -> None:
    with pytest.raises(BadRequestError, match="byte order mark"):
        load_workflow_template("\ufeffid: w")


@pytest.mark.parametrize("source", ["#" * (SOURCE_LIMIT + 1), b"#" * (SOURCE_LIMIT + 1)])
def test_F85_a_source_over_one_mebibyte_is_refused(source: str | bytes) -> None:
    with pytest.raises(PayloadTooLargeError, match="1024 KiB"):
        load_workflow_template(source)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("tasks: [{taskId: a}]")
    (tmp_path / "a.json").write_text(json.dumps(document()))
    (tmp_path / "c.YML").write_text("{id: third, tasks: [{taskId: a}]}")
    (tmp_path / "notes.txt").write_text("not a template")
    (tmp_path / ".hidden.yaml").write_text("not a template")
    (tmp_path / "folder.yaml").mkdir()
    assert [definition.id for definition in read_templates(tmp_path)] == ["w", "b", "third"]


def test_every_fault_of_a_folder_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("tasks: [{taskId: a}]\nverson: 1\n")
    (tmp_path / "b.json").write_text("{")
    (tmp_path / "c.yaml").write_bytes(b"\xff")
    (tmp_path / "d.json").write_text(json.dumps(document()))
    (tmp_path / "e.json").write_text(json.dumps(document()))
    (tmp_path / "f g.yaml").write_text("tasks: [{taskId: a}]")
    with pytest.raises(InvalidWorkflowError) as caught:
        read_templates(tmp_path)
    assert places(caught.value.faults) == [
        ("a.yaml#/verson", "unknown_field"),
        ("b.json#", "bad_json"),
        ("c.yaml#", "bad_request"),
        ("e.json#/id", "duplicate_id"),
        ("f g.yaml#/id", "bad_id"),
    ]
    assert "d.json" in caught.value.faults[3].message
    assert "a.yaml#/verson: This field is not known." in caught.value.detail
    assert caught.value.detail.endswith("And 4 more.")


def test_a_folder_that_is_not_there_is_a_bad_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not there"):
        read_templates(tmp_path / "none")


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    file = tmp_path / "research.txt"
    file.write_text("tasks: [{taskId: a}]")
    assert load_workflow_template(file).id == "research"
    assert load_workflow_template(file, default_id="other").id == "other"
    with pytest.raises(ConfigurationError, match=r"none\.yaml cannot be read: No such file"):
        load_workflow_template(tmp_path / "none.yaml")


def test_only_one_wrong_template_is_told_without_a_count(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("id: a")
    with pytest.raises(InvalidWorkflowError, match=r"needs a list of tasks\.$"):
        read_templates(tmp_path)


def _largest() -> dict[str, Any]:
    tasks = [
        task(
            f"t{number}",
            name="Step",
            agentCapability="work",
            timeout="5m",
            retry={"maxRetries": 2, "initialDelay": "2s"},
            parameters={"a": "text", "b": [1, 2], "c": f"${{tasks.t{number - 1}.result}}"},
            nextTaskId=f"t{number + 1}",
        )
        for number in range(1000)
    ]
    tasks[0]["parameters"].pop("c")
    tasks[-1]["nextTaskId"] = None
    return document(*tasks)


def test_a_definition_of_1000_tasks_is_read_in_time() -> None:
    largest = _largest()
    # It takes a third of this, and several times that where coverage is measured.
    assert min(_seconds(parse_definition, largest) for _ in range(3)) < 0.15 * _tracing()
    text = yaml.safe_dump(largest)
    assert load_workflow_template(text) == parse_definition(largest)


def _seconds(function: Any, *arguments: Any) -> float:
    began = time.process_time()
    function(*arguments)
    return time.process_time() - began


def _tracing() -> int:
    return 1 if sys.gettrace() is None else 5
