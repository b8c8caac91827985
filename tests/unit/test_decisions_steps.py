"""How a task comes into being, and what follows when it completes."""

from typing import Any

import pytest

from opscore import ids
from opscore.models import (
    SESSION_RESULTS_LIMIT,
    Change,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    MessageType,
    SessionStatus,
    Task,
    TaskDefinition,
    TaskResult,
    TaskStatus,
    WorkflowDefinition,
    WorkflowSession,
)
from opscore.workflow.decisions import on_task_result, start_session
from tests.builders import (
    AGENT,
    NOW,
    SESSION,
    at,
    context,
    definition,
    dispatched,
    running,
    seconds,
    session,
    step,
    task_facts,
    types,
)


def start(*steps: TaskDefinition, agent_id: str | None = AGENT, **payload: Any) -> Change:
    return start_session(SESSION, definition(*steps), 3, agent_id, payload, context())


def first(*steps: TaskDefinition, agent_id: str | None = AGENT, **payload: Any) -> Task:
    return start(*steps, agent_id=agent_id, **payload).tasks[0]


def complete(one: Task, where: WorkflowSession, result: Any = "done") -> Change:
    return on_task_result(task_facts(one, session=where), TaskResult(True, result), context())


# --- beginning --------------------------------------------------------------------------------


def test_a_session_begins_with_its_first_task() -> None:
    change = start(step("one"), step("two"), topic="bees")
    where, one = change.sessions[0], change.tasks[0]
    assert where == WorkflowSession(
        SESSION, definition(step("one"), step("two")), 3, NOW, AGENT, input={"topic": "bees"}, rev=1
    )
    assert (one.id, one.session_id, one.workflow_id) == (
        ids.task_id(SESSION, "one"),
        SESSION,
        "flow",
    )
    assert (one.status, one.rev, one.attempt) == (TaskStatus.QUEUED, 1, 0)
    assert (one.created_at, one.waiting_since) == (NOW, NOW)
    assert types(change.events) == ["session.started", "task.queued"]
    assert change.events[0].data == {"workflowId": "flow"}
    assert change.may_ready


def test_a_step_gives_its_task_what_it_says() -> None:
    one = first(
        step(
            "one",
            name="Gather",
            priority=8,
            message_type=MessageType.TOOL_INVOCATION,
            tool_name="calc",
            queue_timeout=seconds(9),
        )
    )
    assert (one.step_id, one.name, one.priority) == ("one", "Gather", 8)
    assert (one.message_type, one.tool_name) == (MessageType.TOOL_INVOCATION, "calc")
    assert one.queue_deadline == at(9)


@pytest.mark.parametrize(
    ("one", "session_agent", "wanted", "capability", "preferred"),
    [
        (step(), "a1", "a1", None, None),
        (step(agent_id="a2"), "a1", "a2", None, None),
        (step(agent_capability="x"), "a1", None, "x", "a1"),
        (step(agent_capability="x", agent_id="a2"), "a1", None, "x", "a1"),
        (step(agent_capability="x"), None, None, "x", None),
    ],
)
def test_whom_a_task_goes_to(
    one: TaskDefinition,
    session_agent: str | None,
    wanted: str | None,
    capability: str | None,
    preferred: str | None,
) -> None:
    made = first(one, agent_id=session_agent)
    assert (made.wanted_agent, made.wanted_capability) == (wanted, capability)
    assert made.preferred_agent == preferred


def test_a_delay_comes_first_and_the_wait_for_an_agent_after_it() -> None:
    change = start(step(delay=seconds(9), queue_timeout=seconds(3)))
    one = change.tasks[0]
    assert (one.status, one.delayed_until, one.queue_deadline) == (TaskStatus.DELAYED, at(9), None)
    assert one.due_at == at(9)
    assert types(change.events) == ["session.started", "task.delayed"]
    assert change.events[1].data["until"] == at(9).isoformat()


def test_a_session_may_have_a_deadline() -> None:
    flow = definition(timeout=seconds(60))
    assert start_session(SESSION, flow, 1, AGENT, {}, context(5)).sessions[0].due_at == at(65)


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "payload", "expected"),
    [
        ({}, {}, {}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": {"n": 2}}, {"a": {"n": 2}}),
        ({"a": "${input.b}"}, {"b": 2}, {"a": 2, "b": 2}),
        ({"a": "${input.b}"}, {"a": 1}, {"a": 1}),
        ({}, {"a": "${input.b}"}, {"a": "${input.b}"}),
        ({"a": "${session.id}"}, {}, {"a": SESSION}),
    ],
)
def test_the_payload_is_merged_over_the_first_parameters(
    parameters: dict[str, Any], payload: dict[str, Any], expected: dict[str, Any]
) -> None:
    change = start(step(parameters=parameters), **payload)
    assert change.tasks[0].parameters == expected
    assert change.sessions[0].input == payload


def test_later_steps_take_values_from_results_and_input_and_not_the_payload_itself() -> None:
    two = step("two", parameters={"urls": "${tasks.one.result.urls}", "why": "${input.why}"})
    where = session(step("one"), two, input={"why": "fun"})
    change = complete(running(), where, {"urls": ["a", "b"]})
    assert change.tasks[1].parameters == {"urls": ["a", "b"], "why": "fun"}


def test_metadata_can_be_referred_to() -> None:
    where = session(
        step("one"), step("two", parameters={"who": "${session.metadata.who}"}), metadata={"who": 7}
    )
    assert complete(running(), where).tasks[1].parameters == {"who": 7}


LOST = {"a": "${tasks.one.result.gone}"}


def test_an_unresolved_reference_fails_its_task_and_the_session() -> None:
    change = complete(running(), session(step("one"), step("two", parameters=LOST)), {"n": 1})
    done, two = change.tasks
    assert (done.status, two.status) == (TaskStatus.COMPLETED, TaskStatus.FAILED)
    assert two.error is not None
    assert two.error["code"] == "unresolved_reference"
    assert "${tasks.one.result.gone}" in two.error["message"]
    where = change.sessions[0]
    assert where.status is SessionStatus.FAILED
    assert where.error == {"taskId": two.id, "stepId": "two", **two.error}
    assert (where.rev, two.rev) == (2, 1)
    assert types(change.events) == [
        "task.completed",
        "task.queued",
        "task.attempt_failed",
        "task.failed",
        "session.failed",
    ]


def test_a_session_may_fail_at_its_very_start() -> None:
    change = start(step(parameters={"a": "${input.gone}"}))
    assert change.tasks[0].status is TaskStatus.FAILED
    assert change.sessions[0].status is SessionStatus.FAILED
    assert change.sessions[0].ended_at == NOW


def test_an_unresolved_reference_may_have_a_result_to_fall_back_on() -> None:
    change = start(step(parameters={"a": "${input.gone}"}, fallback=FallbackResult(7)))
    assert (change.tasks[0].status, change.tasks[0].result) == (TaskStatus.COMPLETED, 7)
    assert (change.sessions[0].status, change.sessions[0].output) == (SessionStatus.COMPLETED, 7)


def test_an_unresolved_reference_may_have_a_stand_in() -> None:
    lost = step(parameters={"a": "${input.gone}"}, fallback=FallbackTask("spare"))
    change = start(lost, step("spare"))
    assert [one.status for one in change.tasks] == [TaskStatus.FAILED, TaskStatus.QUEUED]
    assert change.sessions[0].status is SessionStatus.PENDING


def test_an_unresolved_reference_is_not_sent_to_another_capability() -> None:
    change = start(step(parameters={"a": "${input.gone}"}, fallback=FallbackCapability("x")))
    assert change.tasks[0].status is TaskStatus.FAILED


# --- what follows -----------------------------------------------------------------------------

LISTED = definition(step("one"), step("two"), step("three"))
LINKED = definition(
    step("one", next_task_id="three"), step("two"), step("three", next_task_id="two")
)
SPARE = definition(
    step("one", fallback=FallbackTask("spare")), step("spare"), step("two"), step("other")
)
LINKED_SPARE = definition(
    step("one", fallback=FallbackTask("spare"), next_task_id="two"),
    step("spare", next_task_id="three"),
    step("two"),
    step("three"),
)
LINKED_BARE = definition(
    step("one", fallback=FallbackTask("spare"), next_task_id="two"), step("spare"), step("two")
)


@pytest.mark.parametrize(
    ("flow", "done", "stands_for", "following"),
    [
        (LISTED, "one", None, "two"),
        (LISTED, "two", None, "three"),
        (LISTED, "three", None, None),
        (LINKED, "one", None, "three"),
        (LINKED, "three", None, "two"),
        (LINKED, "two", None, None),
        (SPARE, "one", None, "two"),
        (SPARE, "spare", "one", "two"),
        (LINKED_SPARE, "one", None, "two"),
        (LINKED_SPARE, "spare", "one", "three"),
        (LINKED_BARE, "spare", "one", "two"),
    ],
)
def test_what_follows_a_completed_task(
    flow: WorkflowDefinition, done: str, stands_for: str | None, following: str | None
) -> None:
    where = session(definition=flow)
    change = complete(running(step_id=done, stands_for=stands_for), where)
    after = change.sessions[0]
    if following is None:
        assert len(change.tasks) == 1
        assert (after.status, after.output, after.ended_at) == (
            SessionStatus.COMPLETED,
            "done",
            NOW,
        )
        assert types(change.events) == ["task.completed", "session.completed"]
    else:
        assert change.tasks[1].id == ids.task_id(SESSION, following)
        assert (after.status, after.output) == (SessionStatus.WAITING, None)
        assert types(change.events) == ["task.completed", "task.queued"]
    assert change.may_ready


def test_a_stand_in_leaves_its_result_under_both_names() -> None:
    where = session(definition=SPARE, results={"zero": 0})
    after = complete(running(step_id="spare", stands_for="one"), where, 5).sessions[0]
    assert after.results == {"zero": 0, "spare": 5, "one": 5}
    assert after.results_size == 2 * len("5")


@pytest.mark.parametrize(
    ("before", "done", "status", "error"),
    [
        (SESSION_RESULTS_LIMIT - 6, "one", SessionStatus.WAITING, None),
        (SESSION_RESULTS_LIMIT - 5, "one", SessionStatus.FAILED, "results_too_large"),
        # Nothing of it has to be written again after the last step.
        (SESSION_RESULTS_LIMIT, "three", SessionStatus.COMPLETED, None),
    ],
)
def test_results_of_a_session_are_bounded(
    before: int, done: str, status: SessionStatus, error: str | None
) -> None:
    where = session(definition=LISTED, results_size=before)
    change = complete(running(step_id=done), where)
    after = change.sessions[0]
    assert after.results_size == before + len('"done"')
    assert (change.tasks[0].status, change.tasks[0].result) == (TaskStatus.COMPLETED, "done")
    assert (after.status, (after.error or {}).get("code")) == (status, error)
    assert len(change.tasks) == (2 if status is SessionStatus.WAITING else 1)


@pytest.mark.parametrize("status", [SessionStatus.PENDING, SessionStatus.RUNNING])
@pytest.mark.parametrize("steps", [[step()], [step(), step("two")]])
def test_a_session_whose_task_completed_had_started(
    status: SessionStatus, steps: list[TaskDefinition]
) -> None:
    where = session(*steps, status=status, started_at=None)
    assert complete(dispatched(), where).sessions[0].started_at == at(-10)


def test_a_session_keeps_its_start() -> None:
    assert complete(running(), session()).sessions[0].started_at == at(-30)


def test_a_chain_of_a_thousand_fallbacks_is_followed_at_once() -> None:
    steps = [
        step(f"s{number}", parameters={"a": "${input.gone}"}, fallback=FallbackResult(number))
        for number in range(1000)
    ]
    change = start(*steps)
    assert len(change.tasks) == 1000
    assert change.sessions[0].output == 999
    assert change.sessions[0].rev == 1
