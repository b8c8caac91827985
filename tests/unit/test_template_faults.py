"""Whatever is wrong with a definition is told at once, each fault with its place."""

from typing import Any

import pytest
import yaml

from opscore.exceptions import InvalidWorkflowError
from opscore.json_rules import MAX_DEPTH
from opscore.workflow.faults import MOST_FAULTS
from opscore.workflow.free_values import MOST_VALUES
from opscore.workflow.templates import load_workflow_template, parse_definition
from opscore.workflow.validation import MOST_TASKS, TASK_FIELDS
from tests.timing import taking_less_than
from tests.unit.template_values import document, faults_of, places, task


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("taskId", None, "missing"),
        ("taskId", 1, "wrong_type"),
        ("taskId", "", "bad_id"),
        ("taskId", "a" * 129, "bad_id"),
        ("taskId", "/../x", "bad_id"),
        ("taskId", "a/b", "bad_id"),
        ("taskId", "%2e", "bad_id"),
        ("taskId", "a\r\nb", "bad_id"),
        ("taskId", "a\n", "bad_id"),
        ("taskId", "-a", "bad_id"),
        ("taskId", "\u202eab", "bad_id"),
        ("taskId", "\x1b[31m", "bad_id"),
        ("taskId", "é", "bad_id"),
        ("agentId", "a b", "bad_id"),
        ("agentId", [], "wrong_type"),
        ("name", 5, "wrong_type"),
        ("name", b"x", "wrong_type"),
        ("name", " ", "bad_text"),
        ("name", "n" * 257, "bad_text"),
        ("name", "a\nb", "bad_text"),
        ("name", "\x9b", "bad_text"),
        ("name", "a\0", "bad_text"),
        ("name", "\ud800", "bad_text"),
        ("agentCapability", "", "bad_text"),
        ("agentCapability", ["x"], "wrong_type"),
        ("agentCapability", "c" * 129, "bad_text"),
        ("messageType", "workflow", "bad_choice"),
        ("messageType", 1, "wrong_type"),
        ("toolName", "hammer", "conflict"),
        ("parameters", [], "wrong_type"),
        ("parameters", "x", "wrong_type"),
        ("nextTaskId", "b", "unknown_task"),
        ("nextTaskId", 2, "wrong_type"),
        ("nextTaskId", "b c", "bad_id"),
        ("priority", -1, "out_of_range"),
        ("priority", 10, "out_of_range"),
        ("priority", 2**70, "out_of_range"),
        ("priority", float("nan"), "out_of_range"),
        ("priority", 1.5, "wrong_type"),
        ("priority", True, "wrong_type"),
        ("priority", "5", "wrong_type"),
        ("delay", "-1s", "bad_duration"),
        ("delay", "31d", "bad_duration"),
        ("delay", "soon", "bad_duration"),
        ("delay", False, "bad_duration"),
        ("timeout", 0, "bad_duration"),
        ("timeout", -5, "bad_duration"),
        ("timeout", 1e-9, "bad_duration"),
        ("timeout", 10**400, "bad_duration"),
        ("startTimeout", -1, "bad_duration"),
        ("queueTimeout", "0s", "bad_duration"),
        ("retry", 3, "wrong_type"),
        ("fallback", "b", "wrong_type"),
        ("fallback", {}, "bad_fallback"),
        ("fallback", {"taskId": None}, "bad_fallback"),
        ("fallback", {"taskId": "b", "agentCapability": "c"}, "bad_fallback"),
        ("fallback", {"taskId": "b", "result": 1}, "bad_fallback"),
    ],
)
def test_F89_a_wrong_field_of_a_task_is_pointed_at(field: str, value: Any, code: str) -> None:
    assert places(faults_of(document({"taskId": "a", field: value}))) == [
        (f"/tasks/0/{field}", code)
    ]


@pytest.mark.parametrize(
    ("part", "value", "place", "code"),
    [
        ("retry", {"maxRetries": 101}, "maxRetries", "out_of_range"),
        ("retry", {"maxRetries": -1}, "maxRetries", "out_of_range"),
        ("retry", {"maxRetries": 10**30}, "maxRetries", "out_of_range"),
        ("retry", {"maxRetries": "many"}, "maxRetries", "wrong_type"),
        ("retry", {"backoff": "random"}, "backoff", "bad_choice"),
        ("retry", {"initialDelay": "1y"}, "initialDelay", "bad_duration"),
        ("retry", {"maxDelay": "365d"}, "maxDelay", "bad_duration"),
        ("retry", {"initialDelay": "2s", "maxDelay": "1s"}, "maxDelay", "conflict"),
        ("retry", {"jitter": "yes"}, "jitter", "wrong_type"),
        ("retry", {"nonRetryable": "x"}, "nonRetryable", "wrong_type"),
        ("retry", {"nonRetryable": ["x", 1]}, "nonRetryable/1", "wrong_type"),
        ("retry", {"nonRetryable": [None]}, "nonRetryable/0", "wrong_type"),
        ("retry", {"nonRetryable": [""]}, "nonRetryable/0", "bad_text"),
        ("retry", {"nonRetryable": ["x"] * 101}, "nonRetryable", "too_many_values"),
        ("retry", {"retries": 3}, "retries", "unknown_field"),
        ("fallback", {"taskId": "b"}, "taskId", "unknown_task"),
        ("fallback", {"taskId": "a"}, "taskId", "bad_fallback"),
        ("fallback", {"taskId": "a b"}, "taskId", "bad_id"),
        ("fallback", {"agentCapability": ""}, "agentCapability", "bad_text"),
        ("fallback", {"result": {"x": float("nan")}}, "result/x", "bad_value"),
        ("fallback", {"result": 1, "task": "b"}, "task", "unknown_field"),
    ],
)
def test_F89_a_wrong_field_within_a_task_is_pointed_at(
    part: str, value: Any, place: str, code: str
) -> None:
    assert places(faults_of(document(task(**{part: value})))) == [
        (f"/tasks/0/{part}/{place}", code)
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": "a/b"}, [("/id", "bad_id")]),
        ({"id": 5}, [("/id", "wrong_type")]),
        ({"name": ["x"]}, [("/name", "wrong_type")]),
        ({"description": "d" * 4097}, [("/description", "bad_text")]),
        ({"description": "a\x1bb"}, [("/description", "bad_text")]),
        ({"timeout": 0}, [("/timeout", "bad_duration")]),
        ({"tasks": None}, [("/tasks", "missing")]),
        ({"tasks": []}, [("/tasks", "missing")]),
        ({"tasks": {}}, [("/tasks", "wrong_type")]),
        ({"tasks": ["a"]}, [("/tasks/0", "wrong_type")]),
        ({"tasks": [None]}, [("/tasks/0", "wrong_type")]),
        ({"tasks": [task()] * 1001}, [("/tasks", "too_many_tasks")]),
    ],
)
def test_F89_a_wrong_field_of_the_definition_is_pointed_at(
    fields: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    assert places(faults_of(document(**fields) | fields)) == expected


@pytest.mark.parametrize("source", [None, [], "text", 5])
def test_a_definition_is_an_object(source: object) -> None:
    with pytest.raises(InvalidWorkflowError) as caught:
        parse_definition(source)
    assert places(caught.value.faults) == [("", "wrong_type")]


def test_F89_100000_tasks_are_refused_at_once() -> None:
    tasks = [task(f"t{number}") for number in range(100_000)]
    given = document(*tasks)
    with taking_less_than(0.05):
        faults = faults_of(given)
    assert f"at most {MOST_TASKS} tasks" in faults[0].message


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("task_id", "taskId"),
        ("taskid", "taskId"),
        ("nextTask", "nextTaskId"),
        ("next_task_id", "nextTaskId"),
        ("agent-capability", "agentCapability"),
        ("paramters", "parameters"),
        ("timeouts", "timeout"),
        ("start timeout", "startTimeout"),
    ],
)
def test_an_unknown_field_comes_with_a_suggestion(written: str, meant: str) -> None:
    (fault,) = faults_of(document({"taskId": "a", written: None}))
    assert fault.pointer == f"/tasks/0/{written}"
    assert fault.message == f"This field is not known. Did you mean {meant}?"


@pytest.mark.parametrize("name", ["colour", "x" * 1000, "<b>", "a\x1b[31mb", "", 5, None])
def test_F92_an_odd_unknown_field_is_not_repeated(name: Any) -> None:
    (fault,) = faults_of(document({"taskId": "a", name: "canary"}))
    assert fault.code == "unknown_field"
    assert fault.pointer == ("/tasks/0/colour" if name == "colour" else "/tasks/0")
    assert ", ".join(TASK_FIELDS) in fault.message
    assert "canary" not in fault.message


def test_all_faults_come_at_once() -> None:
    faults = faults_of(
        {
            "name": "",
            "verson": "1",
            "tasks": [
                {"priority": 11, "delay": "x"},
                task("b", nextTaskId="d", agentId="x", agentCapability="y"),
                task("b", messageType="tool_invocation", parameters={"p": "${inptu.x}"}),
                7,
            ],
        }
    )
    assert places(faults) == [
        ("/verson", "unknown_field"),
        ("/id", "missing"),
        ("/name", "bad_text"),
        ("/tasks/0/taskId", "missing"),
        ("/tasks/0/priority", "out_of_range"),
        ("/tasks/0/delay", "bad_duration"),
        ("/tasks/1/agentId", "conflict"),
        ("/tasks/2/toolName", "missing"),
        ("/tasks/3", "wrong_type"),
        ("/tasks/2/taskId", "duplicate_task"),
        ("/tasks/1/nextTaskId", "unknown_task"),
        ("/tasks/2/parameters/p", "bad_reference"),
    ]


def test_check_ends_after_the_bound_of_faults_and_says_so() -> None:
    faults = faults_of(document(*(task(f"t{number}", priority=-1) for number in range(250))))
    assert len(faults) == MOST_FAULTS
    assert faults[-2].pointer == "/tasks/98/priority"
    assert faults[-1].pointer == ""
    assert faults[-1].message == "There are more faults; mend these first."
    exact = faults_of(document(*(task(f"t{number}", priority=-1) for number in range(100))))
    assert exact[-1].pointer == "/tasks/99/priority"


class CountedDict(dict[str, Any]):
    """A document that knows how often it was asked for a field."""

    asked = 0

    def get(self, name: str, default: Any = None) -> Any:
        type(self).asked += 1
        return super().get(name, default)


@pytest.mark.fault("F108")
def test_tasks_after_the_bound_of_faults_are_not_looked_at() -> None:
    tasks = [CountedDict(taskId=f"t{number}", priority=-1) for number in range(1000)]
    faults_of(document(*tasks[:101]))
    needed = CountedDict.asked
    CountedDict.asked = 0
    faults_of(document(*tasks))
    assert CountedDict.asked == needed > 0


def test_F89_very_many_unknown_fields_cost_little() -> None:
    fields: dict[str, Any] = {f"prioritys{number}": 1 for number in range(50_000)}
    with taking_less_than(1):
        assert len(faults_of(document(task(**fields)))) == MOST_FAULTS


# --- free values ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (float("inf"), "bad_value"),
        (2**53 + 1, "bad_value"),
        (-(2**53) - 1, "bad_value"),
        ("\ud800", "bad_value"),
        ("a\0b", "bad_value"),
        (object(), "wrong_type"),
        (b"bytes", "wrong_type"),
    ],
)
def test_F82_values_that_json_cannot_carry_are_refused(value: Any, code: str) -> None:
    source = document(task(parameters={"list": [1, {"x": value}]}))
    assert places(faults_of(source)) == [("/tasks/0/parameters/list/1/x", code)]


@pytest.mark.parametrize("name", ["\0", "\ud800", 5])
def test_F79_names_that_json_cannot_carry_are_refused(name: Any) -> None:
    source = document(task(parameters={"object": {name: 1}}))
    assert [fault.pointer for fault in faults_of(source)] == ["/tasks/0/parameters/object"]


def test_F82_the_largest_integers_are_kept() -> None:
    parameters = {"most": 2**53, "least": -(2**53), "text": str(2**53 + 1)}
    assert parse_definition(document(task(parameters=parameters))).first().parameters == parameters


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize("as_yaml", [False, True])
def test_F80_parameters_may_be_nested_so_deep_and_no_deeper(as_yaml: bool) -> None:
    deepest = document(task(parameters={"p": _nested(MAX_DEPTH - 4)}))
    too_deep = document(task(parameters={"p": _nested(MAX_DEPTH - 3)}))
    if as_yaml:
        text = yaml.safe_dump(too_deep, default_flow_style=True)
        assert load_workflow_template(yaml.safe_dump(deepest)).id == "w"
        assert places(faults_of(text, syntax="yaml")) == [("", "too_deep")]
    else:
        assert parse_definition(deepest).id == "w"
        (fault,) = faults_of(too_deep)
        assert (fault.code, fault.pointer.count("/0")) == ("too_deep", MAX_DEPTH - 3)


def test_F80_a_fallback_result_may_be_nested_as_deep() -> None:
    def with_result(depth: int) -> dict[str, Any]:
        return document(task(fallback={"result": _nested(depth)}))

    assert parse_definition(with_result(MAX_DEPTH - 4)).id == "w"
    assert places(faults_of(with_result(MAX_DEPTH - 3)))[0][1] == "too_deep"


def test_values_that_contain_themselves_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert places(faults_of(document(task(parameters={"p": loop}))))[0][1] == "too_deep"


def test_as_many_values_as_the_limit_says_are_kept() -> None:
    # The parameters of each task and the list itself count as one value each.
    most = [1] * (MOST_VALUES - 3)
    source = document(task(), task("b", parameters={"p": most}), task("c", parameters={}))
    assert parse_definition(source).tasks[1].parameters["p"] == most
    most.append(1)
    assert [fault.code for fault in faults_of(source)] == ["too_many_values"]


@pytest.mark.parametrize(
    "parameters",
    [{"p": [1] * MOST_VALUES}, {f"p{number}": 1 for number in range(MOST_VALUES + 5)}],
    ids=["list", "object"],
)
def test_F88_too_many_values_are_refused(parameters: dict[str, Any]) -> None:
    source = document(task(parameters=parameters), task("b", parameters={"q": 1, "r": [2]}))
    (fault,) = faults_of(source)
    assert fault.code == "too_many_values"
    assert fault.pointer.startswith("/tasks/0/parameters/p")
