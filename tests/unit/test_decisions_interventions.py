"""Decisions of an operator about tasks and sessions: retry and cancel."""

from typing import Any

import pytest

from opscore.exceptions import ConflictError
from opscore.models import (
    Change,
    EventType,
    FailureCode,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    SessionStatus,
    Task,
    TaskFacts,
    TaskStatus,
    WorkflowSession,
)
from opscore.workflow.decisions import cancel_task, retry_session, retry_task_now
from tests.builders import (
    accepted,
    at,
    context,
    definition,
    dispatched,
    running,
    seconds,
    session,
    session_facts,
    step,
    task,
    task_facts,
    types,
)

IN_FLIGHT = [dispatched(), accepted(), running()]
EVENTS = ["task.retry", "task.queued"]


def failed(**changes: Any) -> Task:
    values: dict[str, Any] = {
        "status": TaskStatus.FAILED,
        "owner": None,
        "lease_until": None,
        "run_deadline": None,
        "ended_at": at(-1),
        "retries": 3,
        "error": {"code": "agent_error", "message": "no"},
    }
    return running(**values | changes)


def stopped(one: Task, **changes: Any) -> WorkflowSession:
    """The session that failed at this task."""
    values: dict[str, Any] = {
        "status": SessionStatus.FAILED,
        "ended_at": at(-1),
        "error": {"taskId": one.id, "stepId": one.step_id, "code": "agent_error"},
    }
    return session(*changes.pop("steps", ()), **values | changes)


def the_task(change: Change) -> Task:
    (only,) = change.tasks
    return only


# --- retry of an open task --------------------------------------------------------------------


@pytest.mark.parametrize("one", IN_FLIGHT)
def test_retry_of_task_at_work_takes_it_back_and_tells_its_agent(one: Task) -> None:
    change = retry_task_now(task_facts(one), None, context(2))
    assert change.abandoned == (one,)
    again = the_task(change)
    assert (again.status, again.attempt, again.waiting_since) == (TaskStatus.QUEUED, 1, at(2))
    assert (again.owner, again.lease_until, again.run_deadline) == (None, None, None)
    assert (again.error or {})["code"] == "taken_back"
    events = [event for event in change.events if event.type is not EventType.AGENT_HELD]
    assert types(tuple(events)) == EVENTS
    assert events[0].data["by"] == "operator"
    assert change.sessions[0].status is SessionStatus.WAITING
    assert change.may_ready


def test_retry_of_delayed_task_makes_it_due_now_with_all_its_retries() -> None:
    one = task(status=TaskStatus.DELAYED, delayed_until=at(600), retries=2, attempt=3)
    change = retry_task_now(
        task_facts(one, session=session(status=SessionStatus.WAITING)), 3, context()
    )
    again = the_task(change)
    assert (again.status, again.delayed_until, again.retries) == (TaskStatus.QUEUED, None, 0)
    assert (change.abandoned, change.sessions) == ((), ())


def test_retry_gives_the_step_its_own_agent_back_after_a_fallback() -> None:
    flow = session(step(fallback=FallbackCapability("other")))
    one = running(wanted_agent=None, wanted_capability="other", fell_back=True, agent_id="a9")
    again = the_task(retry_task_now(task_facts(one, session=flow), None, context()))
    assert (again.wanted_agent, again.wanted_capability, again.fell_back) == ("a1", None, False)


def test_retry_of_queued_task_is_refused() -> None:
    with pytest.raises(ConflictError, match="queued already"):
        retry_task_now(task_facts(task()), None, context())


def test_retry_that_names_another_attempt_is_refused() -> None:
    with pytest.raises(ConflictError, match="attempt 1 now"):
        retry_task_now(task_facts(running()), 2, context())


# --- retry of what has failed -----------------------------------------------------------------


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.TIMED_OUT])
def test_retry_of_failed_session_reopens_it_at_its_failed_task(status: TaskStatus) -> None:
    done = task(step_id="zero", status=TaskStatus.COMPLETED, result=1)
    one = failed(status=status)
    where = stopped(one, steps=(step("zero"), step("one")), results={"zero": 1})
    change = retry_session(session_facts(done, one, session=where), context(2))
    reopened = change.sessions[0]
    assert (reopened.status, reopened.ended_at, reopened.error) == (
        SessionStatus.WAITING,
        None,
        None,
    )
    assert reopened.results == {"zero": 1}
    again = the_task(change)
    assert (again.id, again.status, again.attempt) == (one.id, TaskStatus.QUEUED, 1)
    assert (again.ended_at, again.retries) == (None, 0)
    assert types(change.events) == ["session.resumed", *EVENTS]
    assert change.events[0].data["by"] == "operator"


def test_retry_of_task_and_of_its_session_decide_the_same() -> None:
    one = failed()
    facts = session_facts(one, session=stopped(one))
    by_task = retry_task_now(TaskFacts(one, facts.session), None, context())
    assert by_task == retry_session(facts, context())


def test_retry_begins_the_session_timeout_anew() -> None:
    one = failed()
    flow = definition(step(), timeout=seconds(60))
    where = stopped(one, definition=flow, deadline_at=at(-1))
    change = retry_session(session_facts(one, session=where), context(5))
    assert change.sessions[0].deadline_at == at(65)


def test_retry_of_timed_out_session_goes_on_from_its_cancelled_task() -> None:
    one = failed(status=TaskStatus.CANCELLED)
    where = stopped(one, status=SessionStatus.TIMED_OUT, error={"code": "session_timeout"})
    change = retry_session(session_facts(one, session=where), context())
    assert the_task(change).status is TaskStatus.QUEUED


def test_retry_resolves_references_anew_from_corrected_metadata() -> None:
    first = step("one", parameters={"to": "${session.metadata.owner}", "n": 1})
    one = failed(error={"code": "unresolved_reference"}, parameters=first.parameters)
    where = stopped(one, steps=(first,), input={"n": 2}, metadata={"owner": "ops"})
    again = the_task(retry_session(session_facts(one, session=where), context()))
    assert again.parameters == {"to": "ops", "n": 2}
    with pytest.raises(ConflictError, match="cannot be tried again yet"):
        retry_session(
            session_facts(one, session=stopped(one, steps=(first,))),
            context(),
        )


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (SessionStatus.COMPLETED, "nothing to retry"),
        (SessionStatus.CANCELLED, "was cancelled"),
        (SessionStatus.RUNNING, "has not ended"),
        (SessionStatus.WAITING, "has not ended"),
    ],
)
def test_retry_of_session_that_did_not_fail_is_refused(
    status: SessionStatus, sentence: str
) -> None:
    with pytest.raises(ConflictError, match=sentence):
        retry_session(session_facts(failed(), session=session(status=status)), context())


def test_retry_of_task_whose_session_was_cancelled_is_refused() -> None:
    one = failed(status=TaskStatus.CANCELLED)
    where = session(status=SessionStatus.CANCELLED)
    with pytest.raises(ConflictError, match="was cancelled"):
        retry_task_now(task_facts(one, session=where), None, context())


def test_retry_of_task_whose_session_went_on_is_refused() -> None:
    for one in (failed(), task(status=TaskStatus.COMPLETED)):
        with pytest.raises(ConflictError):
            retry_task_now(task_facts(one), None, context())


def test_retry_of_another_task_than_the_failed_one_is_refused() -> None:
    other = failed(step_id="two")
    where = stopped(failed(), steps=(step("one"), step("two")))
    with pytest.raises(ConflictError, match="did not fail at this task"):
        retry_task_now(task_facts(other, session=where), None, context())


def test_retry_of_session_that_failed_by_its_results_is_refused() -> None:
    done = task(status=TaskStatus.COMPLETED)
    with pytest.raises(ConflictError, match="start the workflow anew"):
        retry_session(session_facts(done, session=stopped(done)), context())


# --- cancel -----------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [task(), *IN_FLIGHT])
def test_cancelled_task_fails_and_so_does_its_session(one: Task) -> None:
    change = cancel_task(task_facts(one), "not needed", context(2))
    ended = the_task(change)
    assert (ended.status, ended.ended_at) == (TaskStatus.FAILED, at(2))
    assert (ended.error or {})["code"] == FailureCode.CANCELLED
    assert "not needed" in (ended.error or {})["message"]
    assert change.sessions[0].status is SessionStatus.FAILED
    assert change.abandoned == ((one,) if one.status.in_flight else ())


@pytest.mark.parametrize(
    ("fallback", "after"),
    [
        (FallbackResult("x"), TaskStatus.COMPLETED),
        (FallbackCapability("other"), TaskStatus.QUEUED),
        (FallbackTask("two"), TaskStatus.FAILED),
    ],
)
def test_cancelled_task_falls_back_and_spends_no_retry(fallback: Any, after: TaskStatus) -> None:
    flow = session(step(fallback=fallback), step("two"))
    one = running()
    change = cancel_task(task_facts(one, session=flow), "why", context())
    assert next(each for each in change.tasks if each.id == one.id).status is after
    assert change.abandoned == (one,)
    assert "task.fallback" in types(change.events)
    assert "task.retry" not in types(change.events)


def test_cancel_of_ended_task_is_refused_and_of_cancelled_one_changes_nothing() -> None:
    for status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
        with pytest.raises(ConflictError, match=status.value):
            cancel_task(task_facts(task(status=status)), "why", context())
    before = failed(error={"code": "cancelled"})
    assert cancel_task(task_facts(before), "why", context()) == Change()
