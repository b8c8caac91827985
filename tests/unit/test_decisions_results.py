"""The precise way: `result` and `heartbeat` of one task."""

from typing import Any

import pytest

from opscore.models import (
    Delivery,
    ForwardObservation,
    SessionStatus,
    Task,
    TaskResult,
    TaskStatus,
)
from opscore.workflow.decisions import on_heartbeat, on_task_result
from tests.builders import (
    AGENT,
    NOW,
    accepted,
    agent,
    at,
    became,
    context,
    dispatched,
    moves,
    running,
    session,
    task,
    task_facts,
    types,
)

OK = TaskResult(True, {"n": 1})
BAD = TaskResult(False, error="boom")
IN_FLIGHT = [dispatched(), accepted(), running()]


def given_up(code: str, **changes: Any) -> Task:
    return task(status=TaskStatus.DELAYED, attempt=1, error={"code": code}, **changes)


@pytest.mark.parametrize("one", IN_FLIGHT)
def test_a_success_completes_the_task_and_its_session(one: Task) -> None:
    change = on_task_result(task_facts(one), OK, context(2))
    after, where = change.tasks[0], change.sessions[0]
    assert (after.status, after.result, after.ended_at) == (TaskStatus.COMPLETED, {"n": 1}, at(2))
    assert (after.owner, after.lease_until, after.due_at) == (None, None, None)
    assert (where.status, where.output, where.ended_at) == (
        SessionStatus.COMPLETED,
        {"n": 1},
        at(2),
    )
    assert types(change.events) == ["task.completed", "session.completed"]


@pytest.mark.parametrize("one", IN_FLIGHT)
def test_a_failure_is_retried(one: Task) -> None:
    change = on_task_result(task_facts(one), BAD, context())
    after = change.tasks[0]
    assert (after.status, after.retries) == (TaskStatus.DELAYED, 1)
    assert after.error == {"code": "agent_error", "message": "boom", "error": "boom"}
    assert types(change.events) == ["task.attempt_failed", "task.retry", "task.delayed"]


@pytest.mark.parametrize(("attempt", "counts"), [(None, True), (2, True), (1, False), (3, False)])
@pytest.mark.parametrize("said", [OK, BAD])
def test_F42_only_the_present_attempt_counts(
    attempt: int | None, counts: bool, said: TaskResult
) -> None:
    one = running(attempt=2)
    result = TaskResult(said.succeeded, said.result, said.error, attempt)
    change = on_task_result(task_facts(one), result, context())
    assert moves(change) is counts
    assert ("task.late" in types(change.events)) is not counts


@pytest.mark.parametrize("status", [status for status in TaskStatus if status.ended])
@pytest.mark.parametrize(("said", "word"), [(OK, "completed"), (BAD, "failed")])
def test_F43_a_result_after_the_end_is_late(
    status: TaskStatus, said: TaskResult, word: str
) -> None:
    one = task(status=status, attempt=1, agent_id="a1")
    change = on_task_result(task_facts(one), said, context())
    assert not moves(change)
    assert change.agents == ()
    assert types(change.events) == ["task.late"]
    assert change.events[0].data["said"] == word
    assert change.events[0].agent_id == "a1"


@pytest.mark.parametrize(
    ("one", "said", "becomes"),
    [
        (given_up("run_timeout"), OK, "completed"),
        (given_up("start_timeout"), OK, "completed"),
        (given_up("outcome_unknown"), OK, "completed"),
        (given_up("lease_lost"), OK, "completed"),
        (given_up("run_timeout"), BAD, None),
        (given_up("agent_error"), OK, None),
        (given_up("upstream_error"), OK, None),
        (task(error={"code": "run_timeout"}), OK, None),
        (task(), OK, None),
    ],
)
def test_a_success_counts_after_an_end_in_doubt(
    one: Task, said: TaskResult, becomes: str | None
) -> None:
    assert became(on_task_result(task_facts(one), said, context())) == becomes


@pytest.mark.parametrize("said", [OK, BAD])
def test_a_result_is_a_sign_of_life(said: TaskResult) -> None:
    facts = task_facts(agent=agent(missed_deadlines=2))
    after = on_task_result(facts, said, context(4)).agents[0]
    assert (after.missed_deadlines, after.last_seen_at) == (0, at(4))


def test_a_result_needs_no_known_agent() -> None:
    change = on_task_result(task_facts(agent=None), OK, context())
    assert (became(change), change.agents) == ("completed", ())


@pytest.mark.parametrize(
    ("one", "proved"),
    [
        (accepted(), True),
        (accepted(via=Delivery.DIRECT), None),
        (dispatched(via=Delivery.AGENTKIT), None),
    ],
)
@pytest.mark.parametrize("how", ["result", "heartbeat"])
def test_a_precise_report_proves_forwards(one: Task, proved: bool | None, how: str) -> None:
    if how == "result":
        said = TaskResult(True, result=1, attempt=one.attempt)
        change = on_task_result(task_facts(one), said, context())
    else:
        change = on_heartbeat(task_facts(one), None, None, context())
    assert (change.observation is not None) is bool(proved)


def test_a_result_that_names_no_attempt_may_be_an_operators_and_teaches_nothing() -> None:
    change = on_task_result(task_facts(accepted()), OK, context())
    assert (became(change), change.observation) == ("completed", None)


def test_a_sign_of_life_of_an_agent_that_agentkit_missed_brings_agentkit_back() -> None:
    who = agent(prefer_direct_until=at(-5))
    change = on_heartbeat(task_facts(accepted(), agent=who), None, None, context())
    assert change.observation == ForwardObservation(AGENT, arrived=True)
    assert change.agents[0].prefer_direct_until is None


# --- heartbeats -------------------------------------------------------------------------------


def test_the_first_heartbeat_marks_the_task_running() -> None:
    facts = task_facts(accepted(), session=session(status=SessionStatus.WAITING))
    change = on_heartbeat(facts, None, None, context(2))
    after = change.tasks[0]
    assert (after.status, after.active_at, after.heartbeat_at) == (
        TaskStatus.RUNNING,
        at(2),
        at(2),
    )
    assert (after.start_deadline, after.run_deadline) == (None, at(290))
    assert change.sessions[0].status is SessionStatus.RUNNING
    assert change.agents[0].last_seen_at == at(2)
    assert types(change.events) == ["task.running"]


def test_F37_later_heartbeats_leave_the_deadline() -> None:
    change = on_heartbeat(task_facts(running()), None, 1, context(2))
    after = change.tasks[0]
    assert (after.active_at, after.heartbeat_at, after.run_deadline) == (at(-8), at(2), at(290))
    assert change.events == ()


@pytest.mark.parametrize("progress", [0, "half", {"done": 3}, False])
def test_progress_is_kept_and_told(progress: Any) -> None:
    change = on_heartbeat(task_facts(running(progress="old")), progress, None, context())
    assert change.tasks[0].progress == progress
    assert types(change.events) == ["task.heartbeat"]
    assert change.events[0].data["progress"] == progress


@pytest.mark.parametrize(("length", "kept"), [(4094, True), (4095, False)])
def test_F17_large_progress_is_left_out_of_the_event(length: int, kept: bool) -> None:
    change = on_heartbeat(task_facts(), "x" * length, None, context())
    assert change.tasks[0].progress == "x" * length
    told = "x" * length if kept else {"omittedBytes": length + 2}
    assert change.events[0].data["progress"] == told


def test_without_progress_the_last_one_stays() -> None:
    change = on_heartbeat(task_facts(running(progress="old")), None, None, context())
    assert change.tasks[0].progress == "old"


@pytest.mark.parametrize(
    ("one", "attempt"),
    [
        (task(), None),
        (given_up("run_timeout"), None),
        (task(status=TaskStatus.COMPLETED), None),
        (running(attempt=2), 1),
    ],
)
def test_F42_F43_a_late_heartbeat_changes_nothing(one: Task, attempt: int | None) -> None:
    change = on_heartbeat(task_facts(one), 0.5, attempt, context())
    assert not moves(change)
    assert change.agents == ()
    assert [(event.type.value, event.at) for event in change.events] == [("task.late", NOW)]
    assert change.events[0].data["said"] == "heartbeat"
