"""The reference page of the templates says what the code does."""

import re
from pathlib import Path
from typing import get_args

import pytest

from opscore.json_rules import MAX_DEPTH
from opscore.models.definition import FallbackResult, FallbackTask, MessageType
from opscore.workflow import fields, free_values, references, validation, yaml_text
from opscore.workflow.faults import MOST_FAULTS
from opscore.workflow.templates import Syntax, load_workflow_template
from tests.unit.template_values import document, faults_of, task

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "templates.md").read_text("utf-8")
EXAMPLES = {
    syntax: re.findall(rf"```{syntax}\n(.*?)```", PAGE, re.DOTALL) for syntax in get_args(Syntax)
}


def _rows(heading: str) -> list[str]:
    """The field names in the first column of the table below a heading."""
    section = PAGE.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    return re.findall(r"^\| `(\w+)`", section, re.MULTILINE)


def test_the_yaml_example_is_a_sound_template() -> None:
    (text,) = EXAMPLES["yaml"]
    definition = load_workflow_template(text)
    assert definition.version == "1.10"
    assert [step.task_id for step in definition.main_line] == ["gather", "summarise", "publish"]
    assert definition.tasks[0].fallback == FallbackTask("gather_offline")
    assert definition.tasks[2].fallback == FallbackResult({"published": False})


def test_the_json_example_is_a_sound_template() -> None:
    (text,) = EXAMPLES["json"]
    definition = load_workflow_template(text)
    assert definition.first().message_type is MessageType.TOOL_INVOCATION
    following = definition.successor("count")
    assert following is not None
    assert following.agent_id == "reporter-1"


@pytest.mark.parametrize(
    ("heading", "known"),
    [
        ("## The definition", validation.DEFINITION_FIELDS),
        ("## A task", validation.TASK_FIELDS),
        ("### retry", validation.RETRY_FIELDS),
        ("### fallback", validation.FALLBACK_FIELDS),
    ],
)
def test_every_field_has_its_row(heading: str, known: tuple[str, ...]) -> None:
    assert _rows(heading) == list(known)


@pytest.mark.parametrize(
    "words",
    [
        f"1 to {validation.MOST_TASKS:,} |",
        f"0 to {validation.MOST_RETRIES} |",
        f"{validation.MOST_NON_RETRYABLE} entries of {validation.NAME_LENGTH} characters",
        f"{validation.DESCRIPTION_LENGTH:,} characters",
        f"{validation.VERSION_LENGTH} characters",
        f"1 to {fields.ID_LENGTH} characters",
        f"{free_values.MOST_VALUES:,} values in all tasks",
        f"more than {yaml_text.MOST_NODES:,} values",
        f"nesting deeper than {MAX_DEPTH}",
        f"at most {MOST_FAULTS}; if",
        f"at most {references.RESULT_LIMIT // 2**20} MiB",
        f"each counts at least {references.LEAST_SIZE} bytes",
        f"at most {references.MOST_REFERENCES:,} references",
    ],
)
def test_the_limits_are_those_of_the_code(words: str) -> None:
    assert words in PAGE


@pytest.mark.parametrize(
    ("fields", "following"),
    [
        ({"agentcapability": "x"}, {}),
        ({"timeout": "soon"}, {}),
        ({"nextTaskId": "b"}, {"nextTaskId": "c"}),
    ],
)
def test_the_messages_are_those_of_the_code(
    fields: dict[str, str], following: dict[str, str]
) -> None:
    tasks = [{"taskId": "a", **fields}]
    if following:
        tasks += [{"taskId": "b", **following}, task("c", nextTaskId="a")]
    (fault,) = faults_of(document(*tasks))
    assert f"| {fault.message} |" in PAGE
