"""Templates as texts: JSON without oddities, and of YAML only what JSON has too."""

import time
from typing import Any

import pytest
import yaml

from opscore.exceptions import InvalidWorkflowError
from opscore.models.definition import TaskDefinition
from opscore.workflow.templates import load_workflow_template
from opscore.workflow.yaml_text import parse_yaml
from tests.unit.template_values import faults_of, places

# --- types in YAML ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("True", "True"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("", None),
        ("~", "~"),
        ("NULL", "NULL"),
        ("1.10", 1.1),
        ("1.0", 1.0),
        ("12", 12),
        ("-3", -3),
        ("1e3", 1000.0),
        ("010", "010"),
        ("0o17", "0o17"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("+1", "+1"),
        (".5", ".5"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("12:30:45", "12:30:45"),
        ("2026-11-21", "2026-11-21"),
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
        ("'12'", "12"),
        ('"true"', "true"),
        ('""', ""),
        ("=", "="),
        ("|\n        12\n", "12\n"),
        ("[1, no, {x: true}]", [1, "no", {"x": True}]),
        ('"<<"', "<<"),
    ],
)
def test_F88_free_values_are_typed_as_json_types_them(written: str, value: Any) -> None:
    text = f"id: w\ntasks:\n- taskId: a\n  parameters:\n    p: {written}\n"
    found = load_workflow_template(text).first().parameters["p"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "written", ["no", "1.10", "12:30:45", "true", "2026-11-21", "010", "1e3", "0x1F", "~"]
)
def test_F88_texts_stay_texts_where_the_schema_wants_them(written: str) -> None:
    text = f"id: w\nversion: {written}\nname: {written}\ntasks:\n- taskId: a\n  name: {written}\n"
    definition = load_workflow_template(text)
    assert (definition.name, definition.version) == (written, written)
    assert definition.first().name == written
    assert type(definition.name) is str


def test_F88_numbers_and_flags_in_quotes_are_not_numbers_and_flags() -> None:
    text = "id: w\ntasks:\n- taskId: a\n  priority: '3'\n  retry: {jitter: 'no', maxRetries: no}\n"
    assert places(faults_of(text)) == [
        ("/tasks/0/priority", "wrong_type"),
        ("/tasks/0/retry/maxRetries", "wrong_type"),
        ("/tasks/0/retry/jitter", "wrong_type"),
    ]


def test_names_in_yaml_are_texts() -> None:
    text = "id: w\ntasks:\n- taskId: 1\n  parameters: {1: a, true: b, no: c, '<<': d}\n"
    assert load_workflow_template(text).tasks == (
        TaskDefinition("1", parameters={"1": "a", "true": "b", "no": "c", "<<": "d"}),
    )


# --- JSON text --------------------------------------------------------------------------------


def _in_parameters(text: str) -> str:
    return f'{{"id": "w", "tasks": [{{"taskId": "a", "parameters": {{"p": {text}}}}}]}}'


@pytest.mark.parametrize(
    "text",
    ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9007199254740993", "1" * 5000,
     "-" + "9" * 5000, '"\\ud800"', '"\\u0000"'],
)  # fmt: skip
def test_F76_F78_F79_F82_odd_values_in_json_are_pointed_at(text: str) -> None:
    assert places(faults_of(_in_parameters(text))) == [("/tasks/0/parameters/p", "bad_value")]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"id": "w", "id": "v", "tasks": [{"taskId": "a"}]}', "/id"),
        ('{"id": "w", "tasks": [{"taskId": "a", "name": "x", "name": "x"}]}', "/tasks/0/name"),
        (_in_parameters('{"x": 1, "y": 2, "x": 3, "x": 4}'), "/tasks/0/parameters/p/x"),
    ],
)
def test_F83_repeated_names_in_json_are_refused(text: str, place: str) -> None:
    assert places(faults_of(text)) == [(place, "repeated_name")]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{", "bad_json"),
        ('{"id": "w"} x', "bad_json"),
        ("{'id': 'w'}", "bad_json"),
        ('{"id": "a\0b"}', "bad_json"),
        ('{"id": 01}', "bad_json"),
        ('{"a":' * 15_000, "too_deep"),
        ('{"a":' * 100_000, "too_many_members"),
        (_in_parameters("[" + "1," * 20_000 + "1]"), "too_many_members"),
        (_in_parameters("[" * 61 + "]" * 61), "too_deep"),
    ],
)
def test_F80_text_that_is_not_json_or_too_deep_is_refused(text: str, code: str) -> None:
    (fault,) = faults_of(text)
    assert fault.code == code
    assert ("line 1, column" in fault.message) == (code == "bad_json")


# --- YAML text --------------------------------------------------------------------------------

_LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}, *{before}]\n"
    for before, name in zip("abcdefghij", "bcdefghijk", strict=True)
)

REFUSED_YAML = [
    (_LAUGHS, "bad_yaml", "line 1, column 4"),
    ("id: *w", "bad_yaml", "line 1, column 5"),
    ("id: w\n&k name: x", "bad_yaml", "line 2, column 1"),
    ("tasks: &t\n- a", "bad_yaml", "line 1, column 8"),
    ("id: !!python/object/apply:os.system [ls]", "bad_yaml", "line 1, column 5"),
    ("id: !!str w", "bad_yaml", "line 1, column 5"),
    ("id: !own w", "bad_yaml", "line 1, column 5"),
    ("id: ! w", "bad_yaml", "line 1, column 5"),
    ("!!map {id: w}", "bad_yaml", "line 1, column 1"),
    ("tasks: !!seq [a]", "bad_yaml", "line 1, column 8"),
    ("<<: {id: w}", "bad_yaml", "line 1, column 1"),
    ("id: w\n---\nid: v", "bad_yaml", "line 2, column 1"),
    ("id: w\nid: v", "repeated_name", "line 2, column 1"),
    ("'1': a\n1: b", "repeated_name", "line 2, column 1"),
    ("? [id]\n: w", "bad_yaml", "line 1, column 3"),
    ("? {id: x}\n: w", "bad_yaml", "line 1, column 3"),
    (": w", "bad_yaml", "line 1, column 1"),
    ("? \n: w", "bad_yaml", "line 1, column 2"),
    ("a:\n  : w", "bad_yaml", "line 2, column 3"),
    ("id: [w", "bad_yaml", "line "),
    ("id: w\n\tname: x", "bad_yaml", "line 2"),
    ("id: 'w", "bad_yaml", "line 1"),
    ("id: @w", "bad_yaml", "line 1, column 5"),
    ("id: w\nname: a\0b", "bad_yaml", "line 2, column 8"),
    ("id: \x1b", "bad_yaml", "line 1, column 5"),
    ("id: \ud800", "bad_yaml", "line 1, column 5"),
    ("[" * 100_000, "too_deep", "line 1, column 65"),
    ("- " * 100_000, "too_deep", "line 1, column 129"),
    ("{a: " * 100_000, "too_deep", "line 1, column 257"),
]


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
@pytest.mark.parametrize(("text", "code", "where"), REFUSED_YAML)
def test_F87_F88_yaml_beyond_json_is_refused_where_it_stands(
    text: str, code: str, where: str, loader: Any
) -> None:
    with pytest.raises(InvalidWorkflowError) as caught:
        parse_yaml(text, loader)
    (fault,) = caught.value.faults
    assert (fault.pointer, fault.code) == ("", code)
    assert where in fault.message


@pytest.mark.parametrize(
    "text",
    [_LAUGHS, "[" * 1_000_000, "- " * 500_000, "&a " * 300_000, "*a " * 300_000, "!" * 1_000_000],
    ids=["laughs", "brackets", "dashes", "anchors", "aliases", "tags"],
)
def test_F87_bombs_are_refused_soon(text: str) -> None:
    best = min(_seconds_to_refuse(text) for _ in range(5))
    assert best < (0.01 if text is _LAUGHS else 0.03)


def _seconds_to_refuse(text: str) -> float:
    began = time.process_time()
    faults_of(text, syntax="yaml")
    return time.process_time() - began


def test_F88_50000_keys_are_refused() -> None:
    text = "".join(f"k{number}: 1\n" for number in range(50_000))
    (fault,) = faults_of(text)
    assert fault.code == "too_many_values"
    assert "line 20000, column" in fault.message


def test_faults_in_yaml_say_the_line() -> None:
    text = "id: w\ntasks:\n- taskId: a\n  priority: 12\n- name: x\n  retry:\n    backof: fixed\n"
    assert [(fault.pointer, fault.message) for fault in faults_of(text)] == [
        ("/tasks/0/priority", "It must lie between 0 and 9 (line 4, column 3)."),
        ("/tasks/1/taskId", "The task needs a taskId (line 5, column 3)."),
        (
            "/tasks/1/retry/backof",
            "This field is not known. Did you mean backoff? (line 7, column 5).",
        ),
    ]


def test_a_fault_of_the_whole_yaml_document_has_no_line() -> None:
    (fault,) = faults_of("tasks: [{taskId: a}]")
    assert fault.message == "The definition needs an id."


@pytest.mark.parametrize("text", ["", "# nothing", "just words", "- a list", "null"])
def test_yaml_that_is_no_mapping_is_refused(text: str) -> None:
    assert places(faults_of(text)) == [("", "wrong_type")]
