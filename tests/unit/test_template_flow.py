"""The links between tasks: order, cycles, fallbacks, and what a reference may name."""

from typing import Any

import pytest

from opscore.workflow.templates import parse_definition
from tests.unit.template_values import document, faults_of, places, task


def _tasks(*written: str) -> list[dict[str, Any]]:
    """Tasks from a short form: `a>b!c` is task a, followed by b, with c as its fallback."""
    tasks = []
    for text in written:
        rest, _, fallback = text.partition("!")
        task_id, _, following = rest.partition(">")
        fields: dict[str, Any] = {"nextTaskId": following} if following else {}
        tasks.append(
            task(task_id, **fields, **({"fallback": {"taskId": fallback}} if fallback else {}))
        )
    return tasks


@pytest.mark.parametrize(
    "written",
    [
        ["a"],
        ["a", "b", "c"],
        ["a>b", "b>c", "c"],
        ["c", "a>c", "b>a"][::-1],
        ["a!x", "b", "x"],
        ["x", "a!x", "b"],
        ["a!x", "b!y", "x!z", "y", "z"],
        ["a>b!x", "b", "x"],
        ["a>b!x", "b>c", "c", "x>c"],
        ["a!x", "x>y", "y"],
    ],
)
def test_sound_flows_are_accepted(written: list[str]) -> None:
    assert len(parse_definition(document(*_tasks(*written))).tasks) == len(written)


@pytest.mark.parametrize(
    ("written", "place", "names"),
    [
        (["a>a"], "/tasks/0/nextTaskId", "a → a"),
        (["a>b", "b>a"], "/tasks/1/nextTaskId", "a → b → a"),
        (["a>b", "b>c", "c>d", "d>b"], "/tasks/3/nextTaskId", "b → c → d → b"),
        (["a>b", "b", "c>d", "d>c"], "/tasks/3/nextTaskId", "c → d → c"),
        (["a!b", "b!a"], "/tasks/1/fallback/taskId", "a → b → a"),
        (["a", "b!c", "c!d", "d!b"], "/tasks/3/fallback/taskId", "b → c → d → b"),
        (["s>a", "a>b", "b!x", "x>a"], "/tasks/3/nextTaskId", "a → b → x → a"),
    ],
)
def test_F89_a_cycle_is_named(written: list[str], place: str, names: str) -> None:
    (fault,) = faults_of(document(*_tasks(*written)))
    assert (fault.pointer, fault.code) == (place, "cycle")
    assert fault.message == f"The tasks form a cycle: {names}."


def test_F89_of_a_long_cycle_only_some_tasks_are_named() -> None:
    ring = [task(f"t{number}", nextTaskId=f"t{(number + 1) % 1000}") for number in range(1000)]
    (fault,) = faults_of(document(*ring))
    assert fault.message.startswith("The tasks form a cycle: t0 → t1 → ")
    assert fault.message.endswith("t8 → … → t999 → t0.")


def test_F89_every_cycle_is_told() -> None:
    faults = faults_of(document(*_tasks("a>b", "b>a", "c>d", "d>c")))
    assert places(faults) == [("/tasks/1/nextTaskId", "cycle"), ("/tasks/3/nextTaskId", "cycle")]


@pytest.mark.parametrize(
    ("written", "unreached"),
    [
        (["a>b", "b", "c"], [2]),
        (["a>b", "b", "c!d", "d"], [2, 3]),
        (["a", "b>c", "c"], [1, 2]),
        (["x", "b>c", "c", "a!x"], [0, 3]),
    ],
)
def test_F89_an_unreachable_task_is_told(written: list[str], unreached: list[int]) -> None:
    faults = faults_of(document(*_tasks(*written)))
    assert places(faults) == [(f"/tasks/{number}", "unreachable_task") for number in unreached]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (["a", "a"], [("/tasks/1/taskId", "duplicate_task")]),
        (["a>b", "b>c"], [("/tasks/1/nextTaskId", "unknown_task")]),
        (["a!x", "b!x", "x"], [("/tasks/1/fallback/taskId", "bad_fallback")]),
        (["a>b", "b>x!x", "x"], [("/tasks/1/fallback/taskId", "bad_fallback")]),
    ],
)
def test_F89_a_link_that_cannot_be_followed_is_told_alone(
    written: list[str], expected: list[tuple[str, str]]
) -> None:
    assert places(faults_of(document(*_tasks(*written)))) == expected


def test_an_unknown_task_comes_with_a_suggestion_where_there_are_few() -> None:
    (fault,) = faults_of(document(task("gather", nextTaskId="wirte"), task("write")))
    assert fault.message == "There is no task wirte in this definition. Did you mean write?"
    many = [task(f"t{number}") for number in range(200)]
    (fault,) = faults_of(document(*many, task("last", nextTaskId="t1999")))
    assert fault.message == "There is no task t1999 in this definition."


def _with_reference(written: list[str], holder: str, reference: str) -> dict[str, Any]:
    tasks = _tasks(*written)
    for each in tasks:
        if each["taskId"] == holder:
            each["parameters"] = {"p": [f"see {reference}"]}
    return document(*tasks)


LISTED = ["a!x", "b", "c!y", "d", "x", "y!z", "z"]
LINKED = ["a>b!x", "b>c", "c>d!y", "d", "x>c", "y!z", "z"]


@pytest.mark.parametrize(
    ("written", "holder", "named"),
    [
        (LISTED, "b", "a"),
        (LISTED, "d", "a"),
        (LISTED, "d", "c"),
        (LISTED, "b", "x"),
        (LISTED, "y", "b"),
        (LISTED, "y", "x"),
        (LISTED, "z", "a"),
        (LISTED, "d", "y"),
        (LISTED, "d", "z"),
        (LINKED, "b", "a"),
        (LINKED, "c", "x"),
        (LINKED, "c", "a"),
        (LINKED, "d", "c"),
        (LINKED, "d", "y"),
        (LINKED, "d", "z"),
        (["a>b!x", "b", "x>y", "y"], "y", "a"),
    ],
)
def test_a_reference_may_name_what_can_have_completed(
    written: list[str], holder: str, named: str
) -> None:
    source = _with_reference(written, holder, f"${{tasks.{named}.result.x}}")
    assert parse_definition(source).id == "w"


@pytest.mark.parametrize(
    ("written", "holder", "named"),
    [
        (LISTED, "a", "a"),
        (LISTED, "a", "b"),
        (LISTED, "x", "a"),
        (LISTED, "y", "c"),
        (LISTED, "z", "y"),
        (LISTED, "c", "y"),
        (LISTED, "x", "b"),
        (LINKED, "b", "x"),
        (LINKED, "x", "b"),
        (["a>b!x", "b", "x>y", "y"], "y", "b"),
    ],
)
def test_a_reference_to_what_cannot_have_completed_is_told(
    written: list[str], holder: str, named: str
) -> None:
    (fault,) = faults_of(_with_reference(written, holder, f"${{tasks.{named}.result.x}}"))
    place = [text[0] for text in written].index(holder)
    assert (fault.pointer, fault.code) == (f"/tasks/{place}/parameters/p/0", "bad_reference")
    assert f"names {named}, which cannot have completed before this task" in fault.message


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("${tasks.none.result}", "not in this definition"),
        ("${tasks.a}", "is written"),
        ("${tasks.a.results}", "is written"),
        ("${tasks}", "is written"),
        ("${session}", "names one of: id, metadata"),
        ("${session.agent}", "names one of: id, metadata"),
        ("${HOME}", "begins with input, tasks or session"),
        ("${input.}", "is malformed"),
        ("${", "is malformed"),
    ],
)
def test_a_reference_that_can_never_be_resolved_is_told(reference: str, sentence: str) -> None:
    (fault,) = faults_of(_with_reference(["a", "b"], "b", reference))
    assert (fault.pointer, fault.code) == ("/tasks/1/parameters/p/0", "bad_reference")
    assert sentence in fault.message


@pytest.mark.parametrize(
    "reference",
    ["${input}", "${input.x[0]}", "${session.id}", "${session.metadata.x}", "$${HOME}",
     '${tasks["a"].result}'],
)  # fmt: skip
def test_other_references_are_left_to_the_run(reference: str) -> None:
    assert parse_definition(_with_reference(["a", "b"], "b", reference)).id == "w"


def test_references_are_still_checked_where_the_links_are_broken() -> None:
    tasks = _tasks("a>zz", "b")
    tasks[0]["parameters"] = {"p": "${tasks.b.result}", "q": "${tasks.c.result}"}
    assert places(faults_of(document(*tasks))) == [
        ("/tasks/0/nextTaskId", "unknown_task"),
        ("/tasks/0/parameters/q", "bad_reference"),
    ]


def test_a_long_chain_of_fallbacks_needs_no_deep_stack() -> None:
    chain = [task(f"t{number}", fallback={"taskId": f"t{number + 1}"}) for number in range(999)]
    assert len(parse_definition(document(*chain, task("t999"))).tasks) == 1000


def test_delays_that_are_not_given_follow_those_that_are() -> None:
    def delays(**retry: str) -> tuple[float, float]:
        policy = parse_definition(document(task(retry=retry))).first().retry
        return policy.initial_delay.total_seconds(), policy.max_delay.total_seconds()

    assert delays() == (1, 60)
    assert delays(initialDelay="5m") == (300, 300)
    assert delays(initialDelay="2s") == (2, 60)
    assert delays(maxDelay="500ms") == (0.5, 0.5)
    assert delays(maxDelay="5m") == (1, 300)
    assert delays(initialDelay="3s", maxDelay="3s") == (3, 3)
