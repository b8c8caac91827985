"""Repairs: nothing for what is sound, and for each kind of damage what should have been."""

from typing import Any

import pytest

from opscore.models import Change, SessionStatus, Task, TaskStatus
from opscore.workflow.decisions import repair_session, repair_task
from tests import builders
from tests.builders import at, context, session, session_facts, step, task, task_facts, types

LATER_ID = "01939d3a-0000-7000-8000-000000000002"


def done(**changes: Any) -> Task:
    values = {"status": TaskStatus.COMPLETED, "ended_at": at(-1), "result": 7}
    return builders.running(lease_until=None, run_deadline=None, **values | changes)


def over(status: SessionStatus) -> Any:
    return session(status=status, ended_at=at(-1))


@pytest.mark.parametrize(
    "sound",
    [
        task(),
        task(status=TaskStatus.DELAYED, delayed_until=at(5)),
        builders.dispatched(),
        # The lease has run out, and whoever takes it back will.
        builders.dispatched(lease_until=at(-5)),
        builders.accepted(),
        builders.running(),
        builders.running(accepted_at=None, run_deadline=None, lease_until=at(15)),
        done(),
    ],
)
def test_sound_tasks_are_left_alone(sound: Task) -> None:
    assert repair_task(task_facts(sound), context()) == Change()


@pytest.mark.parametrize("status", [one for one in SessionStatus if one.ended])
def test_ended_tasks_of_ended_sessions_are_sound(status: SessionStatus) -> None:
    assert repair_task(task_facts(done(), session=over(status)), context()) == Change()


@pytest.mark.parametrize(
    ("damaged", "repaired"),
    [
        (task(status=TaskStatus.DELAYED), {"delayed_until": at(0)}),
        (builders.dispatched(lease_until=None), {"lease_until": at(0)}),
        (builders.dispatched(owner=None), {"lease_until": at(0)}),
        (
            builders.running(accepted_at=None, run_deadline=None),
            {"lease_until": at(0)},
        ),
        (builders.accepted(run_deadline=None), {"run_deadline": at(290)}),
        (builders.running(run_deadline=None), {"run_deadline": at(290)}),
    ],
)
def test_a_task_gets_its_timer_back(damaged: Task, repaired: dict[str, Any]) -> None:
    change = repair_task(task_facts(damaged), context())
    (after,) = change.tasks
    assert {name: getattr(after, name) for name in repaired} == repaired
    assert after.rev == damaged.rev + 1
    assert after.due_at is not None
    assert types(change.events) == ["storage.repaired"]
    assert repair_task(task_facts(after), context()) == Change()


@pytest.mark.parametrize("status", [one for one in SessionStatus if one.ended])
@pytest.mark.parametrize("lively", [task(), builders.dispatched(), builders.running()])
def test_a_task_does_not_outlive_its_session(lively: Task, status: SessionStatus) -> None:
    change = repair_task(task_facts(lively, session=over(status)), context())
    assert [one.status for one in change.tasks] == [TaskStatus.CANCELLED]
    assert types(change.events)[:2] == ["storage.repaired", "task.cancelled"]
    assert change.abandoned == ((lively,) if lively.status.in_flight else ())


# --- sessions ---------------------------------------------------------------------------------


def test_sound_sessions_are_left_alone() -> None:
    alive = session_facts(done(), builders.running(step_id="two"))
    ended = session_facts(done(), session=over(SessionStatus.COMPLETED))
    for facts in (alive, ended):
        assert repair_session(facts, context()) == Change()


def test_after_the_last_step_the_session_is_completed() -> None:
    change = repair_session(session_facts(done()), context())
    (after,) = change.sessions
    assert (after.status, after.output, after.results) == (SessionStatus.COMPLETED, 7, {"one": 7})
    assert types(change.events) == ["storage.repaired", "session.completed"]


def test_after_a_step_the_next_one_begins() -> None:
    facts = session_facts(done(), session=session(step("one"), step("two")))
    change = repair_session(facts, context())
    (following,) = change.tasks
    assert (following.step_id, following.status) == ("two", TaskStatus.QUEUED)
    assert change.sessions[0].status is SessionStatus.WAITING
    assert types(change.events) == ["storage.repaired", "task.queued"]


def test_what_stood_in_for_a_step_leads_on_as_that_step_would() -> None:
    steps = step("one", next_task_id="two"), step("two"), step("spare")
    stand_in = done(step_id="spare", stands_for="one")
    failed = done(status=TaskStatus.FAILED, ended_at=at(-20))
    change = repair_session(session_facts(failed, stand_in, session=session(*steps)), context())
    assert change.sessions[0].results == {"spare": 7, "one": 7}
    assert [one.step_id for one in change.tasks] == ["two"]


@pytest.mark.parametrize("status", [TaskStatus.FAILED, TaskStatus.TIMED_OUT])
@pytest.mark.parametrize("error", [None, {"code": "rejected", "message": "No."}])
def test_after_a_failed_task_the_session_fails(status: TaskStatus, error: Any) -> None:
    change = repair_session(session_facts(done(status=status, error=error)), context())
    (after,) = change.sessions
    assert after.status is SessionStatus.FAILED
    assert after.error is not None
    assert after.error["code"] == (error["code"] if error else "interrupted")
    assert types(change.events) == ["storage.repaired", "session.failed"]


def test_after_a_cancelled_task_the_session_is_cancelled() -> None:
    change = repair_session(session_facts(done(status=TaskStatus.CANCELLED)), context())
    assert change.sessions[0].status is SessionStatus.CANCELLED
    assert types(change.events) == ["storage.repaired", "session.cancelled"]


def test_a_session_without_tasks_begins_with_its_first() -> None:
    begun = session(input={"topic": "x"}, status=SessionStatus.PENDING)
    change = repair_session(session_facts(session=begun), context())
    (first,) = change.tasks
    assert (first.step_id, first.parameters) == ("one", {"topic": "x"})


def test_a_step_is_never_begun_twice() -> None:
    steps = session(step("one"), step("two"))
    two = done(step_id="two", ended_at=at(-20))
    change = repair_session(session_facts(done(), two, session=steps), context())
    assert change.tasks == ()
    assert change.sessions[0].status is SessionStatus.FAILED
    assert change.sessions[0].error is not None
    assert change.sessions[0].error["code"] == "interrupted"
