"""References take values from the input, from earlier results and from the session."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.exceptions import InvalidWorkflowError
from opscore.workflow.references import (
    LEAST_SIZE,
    MOST_REFERENCES,
    REFERENCE_LIMIT,
    RESULT_LIMIT,
    ParametersTooLargeError,
    Reference,
    UnresolvedReferenceError,
    find_references,
    resolve,
    split,
)
from opscore.workflow.templates import parse_definition
from tests.timing import taking_less_than

SCOPE: dict[str, Any] = {
    "input": {"topic": "tides", "limit": 3, "deep": [{"x": [10, 20]}], "": "nameless", "a b": 7},
    "tasks": {
        "gather": {"result": {"urls": ["u0", "u1"], "ok": True, "none": None, "ratio": 0.5}},
        "step.1": {"result": "dotted"},
        "empty": {"result": None},
    },
    "session": {"id": "s-1", "metadata": {"owner": "ops", "ünï": "é"}},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("", ""),
        ("${input.topic}", "tides"),
        ("${input.limit}", 3),
        ("${input}", SCOPE["input"]),
        ("${input.deep[0].x[1]}", 20),
        ("${input.deep.0.x.1}", 20),
        ('${input["a b"]}', 7),
        ("${input['']}", "nameless"),
        ("${tasks.gather.result.urls}", ["u0", "u1"]),
        ("${tasks.gather.result.urls[0]}", "u0"),
        ("${tasks.gather.result.ok}", True),
        ("${tasks.gather.result.none}", None),
        ("${tasks.empty.result}", None),
        ('${tasks["step.1"].result}', "dotted"),
        ("${session.id}", "s-1"),
        ("${session.metadata.ünï}", "é"),
        ("about ${input.topic}!", "about tides!"),
        ("${input.topic}${input.limit}", "tides3"),
        (" ${input.limit}", " 3"),
        ("u: ${tasks.gather.result.urls}", 'u: ["u0","u1"]'),
        ("${session.metadata} here", '{"owner":"ops","ünï":"é"} here'),
        ("${tasks.gather.result.ok}/${tasks.gather.result.none}", "true/null"),
        ("$${input.topic}", "${input.topic}"),
        ("a $${b} ${input.limit}", "a ${b} 3"),
        ("$$${x}", "$${x}"),
        ("${input.topic}$${x}", "tides${x}"),
        ("$${", "${"),
        ("$ {input.topic} $x }", "$ {input.topic} $x }"),
    ],
)
def test_a_reference_takes_its_value(text: str, expected: Any) -> None:
    resolved = resolve({"p": text}, SCOPE)["p"]
    assert resolved == expected
    assert type(resolved) is type(expected)


def test_references_are_found_in_nested_parameters_and_the_rest_is_kept() -> None:
    parameters = {"a": {"b": ["${input.limit}", 1, None, {"${input.topic}": False}]}, "c": 2.5}
    assert resolve(parameters, SCOPE) == {
        "a": {"b": [3, 1, None, {"${input.topic}": False}]},
        "c": 2.5,
    }
    assert parameters["a"] == {"b": ["${input.limit}", 1, None, {"${input.topic}": False}]}


def test_a_value_that_looks_like_a_reference_is_not_resolved_again() -> None:
    scope = {"input": {"text": "${session.id}"}, "tasks": {}, "session": {"id": "secret"}}
    assert resolve({"p": "${input.text}", "q": "<${input.text}>"}, scope) == {
        "p": "${session.id}",
        "q": "<${session.id}>",
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("${input.subject}", 'input has no "subject"; it has topic, limit, deep, , a b'),
        ("${tasks.gather.result.url}", "tasks.gather.result has no .*it has urls, ok, none, ratio"),
        ("${tasks.write.result}", "tasks has no .*it has gather, step.1, empty"),
        ("${tasks.gather.result.urls[2]}", 'has no "2"; it is a list of 2'),
        ("${tasks.gather.result.urls.first}", 'has no "first"; it is a list of 2'),
        ("${input.topic.length}", "it is a text"),
        ("${input.limit.x}", "it is a number"),
        ("${tasks.gather.result.ok.x}", "it is true or false"),
        ("${tasks.empty.result.x}", "it is null"),
        ("${env.HOME}", "the scope has no .*it has input, tasks, session"),
        ("x ${input.subject} y", r"The reference \$\{input.subject\} cannot be resolved"),
    ],
)
def test_an_unresolved_reference_says_what_there_is(text: str, sentence: str) -> None:
    with pytest.raises(UnresolvedReferenceError, match=sentence):
        resolve({"deep": [{"p": text}]}, SCOPE)


def test_only_some_of_many_names_are_shown() -> None:
    scope = {"input": {f"name{number}": number for number in range(12)}}
    with pytest.raises(UnresolvedReferenceError, match=r"name0, .*name9 and 2 more\."):
        resolve({"p": "${input.x}"}, scope)


@pytest.mark.parametrize("empty", [{}, []])
def test_an_empty_value_is_called_empty(empty: Any) -> None:
    with pytest.raises(UnresolvedReferenceError, match="it is empty"):
        resolve({"p": "${input.x}"}, {"input": empty})


MALFORMED = [
    "${}",
    "${",
    "${input",
    "${input.",
    "${input.}",
    "${input..x}",
    "${input[}",
    "${input[]}",
    "${input[x]}",
    "${input[-1]}",
    "${input[1}",
    "${input['x]}",
    "${input['x'}",
    "${input['x\x1b']}",
    "${input[٣]}",
    "${input[" + "1" * 10 + "]}",
    "${input.a b}",
    "${input.a\x1b}",
    "${ input}",
    "${input${input}}",
    "${input.x" + "y" * REFERENCE_LIMIT + "}",
    "fine ${input.topic} and ${broken",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_reference_is_refused_and_found(text: str) -> None:
    with pytest.raises(UnresolvedReferenceError, match="is malformed"):
        resolve({"p": text}, SCOPE)
    (found,) = find_references({"p": text}, "/tasks/0/parameters")
    assert found.pointer == "/tasks/0/parameters/p"
    assert found.reference is None
    assert found.problem is not None
    assert "is malformed" in found.problem


def test_references_are_found_with_their_places() -> None:
    parameters = {
        "a/b": ["none", {"x": "${input.topic} ${tasks.t.result[0]}"}],
        "c": "$${escaped}",
        "\x1b": "${session.id}",
        "n": 5,
    }
    found = [(item.pointer, item.reference) for item in find_references(parameters, "/p")]
    assert found == [
        ("/p/a~1b/1/x", Reference("${input.topic}", ("input", "topic"))),
        ("/p/a~1b/1/x", Reference("${tasks.t.result[0]}", ("tasks", "t", "result", "0"))),
        ("/p", Reference("${session.id}", ("session", "id"))),
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        {"p": ["${tasks.big.result}"] * 10_000},
        {"p": "${tasks.big.result}" * 10_000},
        {f"p{number}": "x${tasks.big.result}" for number in range(10_000)},
    ],
    ids=["exact", "one text", "many texts"],
)
def test_F15_a_large_result_repeated_fails_clearly_and_soon(parameters: dict[str, Any]) -> None:
    scope = {"tasks": {"big": {"result": ["é" * 1024] * 128}}}
    with (
        taking_less_than(1),
        pytest.raises(ParametersTooLargeError, match="more than 1024 KiB"),
    ):
        resolve(parameters, scope)


def test_F15_the_limit_itself_is_allowed() -> None:
    scope = {"input": "x" * (RESULT_LIMIT // 4)}
    assert len(resolve({"p": ["${input}"] * 4}, scope)["p"]) == 4
    with pytest.raises(ParametersTooLargeError):
        resolve({"p": ["${input}"] * 4 + ["${input}"]}, scope)


@pytest.mark.parametrize(
    "text", ["${" * 300_000, "$${" * 300_000, "${input['" * 100_000, "$" * 500_000]
)
def test_reading_hostile_texts_takes_linear_time(text: str) -> None:
    with taking_less_than(1):
        list(find_references({"p": text}))


@given(st.text(alphabet="${}ab.[]'\" \\0", max_size=40))
def test_any_text_is_either_read_in_full_or_refused(text: str) -> None:
    try:
        parts = split(text)
    except UnresolvedReferenceError:
        return
    written = [p.replace("${", "$${") if isinstance(p, str) else p.text for p in parts]
    assert "".join(written) == text


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text())))
def test_escaped_parameters_come_out_as_they_were(parameters: dict[str, Any]) -> None:
    def escaped(value: Any) -> Any:
        if isinstance(value, list):
            return [escaped(item) for item in value]
        return value.replace("${", "$${") if isinstance(value, str) else value

    written = {key: escaped(value) for key, value in parameters.items()}
    assert resolve(written, {}) == parameters


# --- bounds -----------------------------------------------------------------------------------


@pytest.mark.fault("F108")
def test_each_reference_counts_at_least_16_bytes() -> None:
    most = RESULT_LIMIT // LEAST_SIZE
    scope = {"input": {"n": None}, "tasks": {}, "session": {}}
    assert resolve({"x": ["${input.n}"] * most}, scope)["x"] == [None] * most
    with pytest.raises(ParametersTooLargeError):
        resolve({"x": ["${input.n}"] * (most + 1)}, scope)


class CountedInput(dict[str, Any]):
    asked = 0

    def __getitem__(self, name: str) -> Any:
        type(self).asked += 1
        return super().__getitem__(name)


@pytest.mark.fault("F108")
def test_each_distinct_reference_is_looked_up_once() -> None:
    scope = {"input": CountedInput(a=1, b=2), "tasks": {}, "session": {}}
    resolve({"x": ["${input.a}", "${input.b}", "${input.a} ${input.a}"] * 50}, scope)
    assert CountedInput.asked == 2


@pytest.mark.fault("F108")
@pytest.mark.parametrize("text", ["${input.a}", "$${", "${input.a} and $${", "${"])
def test_definition_with_too_many_references_is_refused(text: str) -> None:
    most = MOST_REFERENCES // text.count("${")
    tasks = [{"taskId": f"t{n}", "parameters": {"x": [text] * (most // 2)}} for n in range(2)]
    if text != "${":
        parse_definition({"id": "w", "tasks": tasks})
    tasks.append({"taskId": "last", "parameters": {"y": text}})
    with pytest.raises(InvalidWorkflowError) as raised:
        parse_definition({"id": "w", "tasks": tasks})
    assert [(fault.pointer, fault.code) for fault in raised.value.faults] == [
        ("/tasks", "too_many_references")
    ]
