"""What the failure of an attempt leads to: another one, a fallback, or the session's end."""

from typing import Any

import pytest

from opscore import ids
from opscore.models import (
    Backoff,
    Change,
    Delivery,
    DispatchMode,
    Failure,
    FailureCode,
    Fallback,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    RetryPolicy,
    SessionStatus,
    Task,
    TaskStatus,
    WorkflowSession,
    failure_code,
)
from opscore.workflow.decisions import fallback_task, on_outcome, retry_task
from opscore.workflow.decisions.draft import Draft
from tests.builders import (
    NOW,
    OWNER,
    SESSION,
    at,
    context,
    dispatched,
    running,
    seconds,
    session,
    step,
    task_facts,
    types,
)

ERROR = Failure(FailureCode.UPSTREAM_ERROR, "It broke.", status=502, body="<html>")
DESCRIBED = {
    "code": "upstream_error",
    "message": "It broke.",
    "status": 502,
    "body": "<html>",
}
FIXED = RetryPolicy(backoff=Backoff.FIXED, initial_delay=seconds(4), jitter=False)
SPENT = {"retries": 3}
ID = dispatched().id


def fail(one: Task, where: WorkflowSession, failure: Failure = ERROR) -> Change:
    facts = task_facts(one, session=where)
    ctx = context(mode=DispatchMode.AGENTKIT)
    return on_outcome(facts, one.attempt, OWNER, Delivery.AGENTKIT, failure, ctx)


def flow(fallback: Fallback | None = None, **changes: Any) -> WorkflowSession:
    return session(step("one", retry=FIXED, fallback=fallback), step("spare"), **changes)


# --- codes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error", "shown"),
    [
        (FailureCode.AGENT_ERROR, {"code": "bad_topic"}, "bad_topic"),
        (FailureCode.AGENT_ERROR, {"code": "E-1:x.y"}, "E-1:x.y"),
        (FailureCode.AGENT_ERROR, {"code": "start_timeout"}, "agent_error"),
        (FailureCode.AGENT_ERROR, {"code": "two words"}, "agent_error"),
        (FailureCode.AGENT_ERROR, {"code": "x" * 65}, "agent_error"),
        (FailureCode.AGENT_ERROR, {"code": 7}, "agent_error"),
        (FailureCode.AGENT_ERROR, "bad_topic", "agent_error"),
        (FailureCode.TOOL_ERROR, {"code": "EXTERNAL_TOOL_EXECUTION_FAILED"}, "tool_error"),
    ],
)
def test_error_of_a_task_shows_the_code_that_its_agent_gave(
    code: FailureCode, error: Any, shown: str
) -> None:
    spent = Failure(code, "It broke.", terminal=True, error=error)
    change = fail(dispatched(), flow(), spent)
    stored = change.tasks[0].error
    assert stored is not None
    assert stored["code"] == shown
    assert failure_code(stored) == code
    assert [event.data["code"] for event in change.events if "code" in event.data] == [
        shown,
        shown,
    ]


# --- retry ------------------------------------------------------------------------------------


def test_a_failed_attempt_is_followed_by_another() -> None:
    first = dispatched(preferred_agent="a1", queue_deadline=at(1), prefer_direct=True)
    change = fail(first, flow())
    one = change.tasks[0]
    assert (one.status, one.delayed_until, one.due_at) == (TaskStatus.DELAYED, at(4), at(4))
    assert (one.retries, one.attempt, one.error) == (1, 1, DESCRIBED)
    assert (one.preferred_agent, one.queue_deadline, one.waiting_since) == (None, None, NOW)
    assert not one.prefer_direct
    assert change.sessions[0].status is SessionStatus.WAITING
    assert types(change.events) == ["task.attempt_failed", "task.retry", "task.delayed"]
    assert change.events[0].data == {"stepId": "one", "attempt": 1, **DESCRIBED}
    assert change.events[1].data == {
        "stepId": "one",
        "attempt": 1,
        "retries": 1,
        "free": False,
        "until": at(4).isoformat(),
    }


def test_what_belonged_to_the_attempt_is_gone() -> None:
    one = fail(running(heartbeat_at=at(-1), lease_until=at(3)), flow()).tasks[0]
    names = ["owner", "lease_until", "start_deadline", "run_deadline"]
    names += ["accepted_at", "active_at", "heartbeat_at"]
    assert {getattr(one, name) for name in names} == {None}


@pytest.mark.parametrize(("retries", "free"), [(0, True), (3, True), (2, False)])
def test_a_free_failure_spends_no_retry(retries: int, free: bool) -> None:
    failure = Failure(FailureCode.THROTTLED, "Wait.", free=free)
    one = fail(dispatched(retries=retries), flow(), failure).tasks[0]
    assert one.status is TaskStatus.DELAYED
    assert one.retries == (retries if free else retries + 1)


def test_a_session_that_does_not_run_yet_stays_as_it_is() -> None:
    assert fail(dispatched(), flow(status=SessionStatus.PENDING)).sessions == ()


def test_retry_task_can_be_asked_for() -> None:
    draft = Draft(context())
    retry_task(draft, dispatched(), flow(), ERROR)
    assert draft.change().tasks[0].delayed_until == at(4)


LONG = {"text": "x" * 4096}


def test_F17_events_hold_no_large_errors_but_the_task_and_the_session_do() -> None:
    failure = Failure(FailureCode.TOOL_ERROR, "Too long.", terminal=True, error=LONG)
    change = fail(dispatched(), flow(), failure)
    error = change.tasks[0].error
    assert error is not None
    assert error["error"] == LONG
    assert change.sessions[0].error == {"taskId": ID, "stepId": "one", **error}
    size = len('{"text":""}') + 4096
    attempt_failed, _, failed = change.events
    assert attempt_failed.data["error"] == {"omittedBytes": size}
    assert attempt_failed.data["message"] == "Too long."
    assert failed.data["error"].keys() == {"omittedBytes"}


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "failure"),
    [
        (dispatched(**SPENT), ERROR),
        (
            dispatched(),
            Failure(FailureCode.UPSTREAM_ERROR, "It broke.", True, False, None, 502, "<html>"),
        ),
    ],
)
def test_without_another_attempt_the_session_fails(one: Task, failure: Failure) -> None:
    change = fail(one, flow(), failure)
    after, where = change.tasks[0], change.sessions[0]
    assert (after.status, after.ended_at, after.error) == (TaskStatus.FAILED, NOW, DESCRIBED)
    assert (where.status, where.ended_at) == (SessionStatus.FAILED, NOW)
    assert where.error == {"taskId": one.id, "stepId": "one", **DESCRIBED}
    assert types(change.events) == ["task.attempt_failed", "task.failed", "session.failed"]
    assert change.events[1].data["code"] == "upstream_error"
    assert change.events[2].data["error"] == where.error
    assert change.abandoned == ()


# --- fallback ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fallback", [FallbackResult(5), FallbackCapability("x"), FallbackTask("spare")]
)
def test_while_retries_are_left_there_is_no_fallback(fallback: Fallback) -> None:
    assert fail(dispatched(retries=2), flow(fallback)).tasks[0].status is TaskStatus.DELAYED


@pytest.mark.parametrize("result", [5, None, {"n": 1}])
def test_a_fallback_result_completes_the_task(result: Any) -> None:
    change = fail(dispatched(**SPENT), flow(FallbackResult(result)))
    one, following = change.tasks
    assert (one.status, one.result, one.error) == (TaskStatus.COMPLETED, result, None)
    assert following.step_id == "spare"
    assert change.sessions[0].results == {"one": result}
    assert types(change.events) == [
        "task.attempt_failed",
        "task.fallback",
        "task.completed",
        "task.queued",
    ]
    assert change.events[1].data["kind"] == "result"
    assert change.events[2].data["fallback"] is True


def test_a_fallback_capability_gives_the_task_to_others() -> None:
    where = session(step("one", queue_timeout=seconds(9), fallback=FallbackCapability("x")))
    change = fail(dispatched(preferred_agent="a1", not_found=2, **SPENT), where)
    one = change.tasks[0]
    assert (one.status, one.lane, one.preferred_agent) == (TaskStatus.QUEUED, "capability:x", None)
    assert (one.wanted_agent, one.fell_back, one.retries, one.not_found) == (None, True, 0, 0)
    assert (one.error, one.attempt, one.queue_deadline) == (DESCRIBED, 1, at(9))
    assert change.sessions[0].status is SessionStatus.WAITING
    assert types(change.events) == ["task.attempt_failed", "task.fallback", "task.queued"]
    assert change.events[1].data == {
        "stepId": "one",
        "attempt": 1,
        "kind": "capability",
        "to": "x",
    }


def test_a_fallback_capability_is_used_only_once() -> None:
    where = flow(FallbackCapability("x"))
    change = fail(dispatched(fell_back=True, **SPENT), where)
    assert change.tasks[0].status is TaskStatus.FAILED
    assert change.sessions[0].status is SessionStatus.FAILED


def test_a_fallback_task_runs_in_its_place() -> None:
    change = fail(dispatched(**SPENT), flow(FallbackTask("spare")))
    failed, spare = change.tasks
    assert (failed.status, failed.error) == (TaskStatus.FAILED, DESCRIBED)
    assert spare.id == ids.task_id(SESSION, "spare", "one")
    assert (spare.step_id, spare.stands_for, spare.status) == ("spare", "one", TaskStatus.QUEUED)
    assert change.sessions[0].status is SessionStatus.WAITING
    assert types(change.events) == [
        "task.attempt_failed",
        "task.failed",
        "task.fallback",
        "task.queued",
    ]
    assert change.events[2].data["to"] == "spare"


def test_a_stand_in_of_a_stand_in_stands_for_the_first() -> None:
    where = session(
        step("one", fallback=FallbackTask("b")), step("b", fallback=FallbackTask("c")), step("c")
    )
    second = dispatched(step_id="b", stands_for="one", **SPENT)
    spare = fail(second, where).tasks[1]
    assert (spare.id, spare.stands_for) == (ids.task_id(SESSION, "c", "one"), "one")


def test_a_stand_in_has_the_retries_of_its_own_step() -> None:
    where = session(step("one", fallback=FallbackTask("b")), step("b", retry=RetryPolicy(1)))
    second = dispatched(step_id="b", stands_for="one", retries=1)
    assert fail(second, where).sessions[0].status is SessionStatus.FAILED


def test_without_a_fallback_asking_for_it_fails_the_task() -> None:
    draft = Draft(context())
    fallback_task(draft, dispatched(), flow(), ERROR)
    change = draft.change()
    assert change.tasks[0].status is TaskStatus.FAILED
    assert change.sessions[0].status is SessionStatus.FAILED
