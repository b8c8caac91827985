"""Whole sessions: updated, cancelled; and the transitions that anything may make."""

from typing import Any

import pytest

from opscore.exceptions import PayloadTooLargeError
from opscore.models import Change, IdempotencyRecord, SessionStatus, TaskStatus
from opscore.workflow.decisions import cancel_session, start_session, update_session
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.transitions import (
    SESSION_TRANSITIONS,
    TASK_TRANSITIONS,
    IllegalTransitionError,
    check_session,
    check_task,
)
from tests.builders import (
    NOW,
    SESSION,
    accepted,
    at,
    context,
    definition,
    dispatched,
    running,
    session,
    session_facts,
    task,
    types,
)

ENDED = [status for status in SessionStatus if status.ended]


# --- cancelling -------------------------------------------------------------------------------


def test_cancelling_ends_what_has_not_ended_and_tells_only_agents_at_work() -> None:
    on_the_way, taken, at_work = (
        dispatched(step_id="a"),
        accepted(step_id="b"),
        running(step_id="c"),
    )
    tasks = (
        task(status=TaskStatus.COMPLETED, step_id="done", result=1),
        on_the_way,
        taken,
        at_work,
        task(step_id="queued"),
        task(step_id="delayed", status=TaskStatus.DELAYED, delayed_until=at(5), agent_id="a1"),
    )
    change = cancel_session(session_facts(*tasks), "not needed", context(2))
    assert {one.step_id for one in change.tasks} == {"a", "b", "c", "queued", "delayed"}
    for one in change.tasks:
        assert (one.status, one.ended_at, one.due_at) == (TaskStatus.CANCELLED, at(2), None)
        assert (one.owner, one.delayed_until) == (None, None)
    assert change.abandoned == (on_the_way, taken, at_work)
    assert types(change.events) == ["task.cancelled"] * 5 + ["session.cancelled"]
    assert {event.data["reason"] for event in change.events} == {"not needed"}
    where = change.sessions[0]
    assert (where.status, where.ended_at) == (SessionStatus.CANCELLED, at(2))
    assert where.error == {"code": "cancelled", "message": "not needed"}
    assert change.may_ready


@pytest.mark.parametrize("status", ENDED)
def test_F43_an_ended_session_is_not_cancelled(status: SessionStatus) -> None:
    facts = session_facts(task(), session=session(status=status))
    assert cancel_session(facts, "why", context()) == Change()


# --- updating ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "given", "kept"),
    [
        ({}, {}, {}),
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": {"n": 2}}, {"a": {"n": 2}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": 1}, {"gone": None}, {"a": 1}),
        ({"a": 1}, {"b": False, "c": 0}, {"a": 1, "b": False, "c": 0}),
    ],
)
def test_metadata_is_merged_and_null_takes_a_key_away(
    before: dict[str, Any], given: dict[str, Any], kept: dict[str, Any]
) -> None:
    change = update_session(session(metadata=before), given, context())
    assert change.sessions[0].metadata == kept
    assert types(change.events) == ["session.updated"]
    assert change.events[0].data == {"keys": sorted(given)}


def test_the_metadata_may_have_64_kib_in_all() -> None:
    most = 64 * 1024 - len('{"a":"","b":1}')
    where = session(metadata={"b": 1})
    kept = update_session(where, {"a": "x" * most}, context()).sessions[0].metadata
    assert len(kept["a"]) == most
    with pytest.raises(PayloadTooLargeError):
        update_session(where, {"a": "x" * (most + 1)}, context())


@pytest.mark.parametrize("status", ENDED)
def test_the_metadata_of_an_ended_session_may_change(status: SessionStatus) -> None:
    change = update_session(session(status=status), {"a": 1}, context())
    assert change.sessions[0].status is status


def test_a_trigger_keeps_its_idempotency_record() -> None:
    record = IdempotencyRecord("key", "print", SESSION, at(60))
    change = start_session(SESSION, definition(), 0, None, {}, context(), record)
    assert change.idempotency == record


# --- transitions ------------------------------------------------------------------------------

Q, D, S, R = TaskStatus.QUEUED, TaskStatus.DELAYED, TaskStatus.DISPATCHED, TaskStatus.RUNNING
ENDS = {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.CANCELLED}
TASK_MOVES = {D: {Q} | ENDS, Q: {S, Q} | ENDS, S: {R, Q, D} | ENDS, R: {S, Q, D} | ENDS}


@pytest.mark.parametrize("before", list(TaskStatus))
@pytest.mark.parametrize("after", list(TaskStatus))
def test_the_transitions_of_a_task(before: TaskStatus, after: TaskStatus) -> None:
    if before is after or after in TASK_MOVES.get(before, set()):
        check_task(before, after)
    else:
        with pytest.raises(IllegalTransitionError, match=f"task: {before} to {after}"):
            check_task(before, after)


LIVES = {SessionStatus.RUNNING, SessionStatus.WAITING}


@pytest.mark.parametrize("before", sorted(SESSION_TRANSITIONS))
@pytest.mark.parametrize("after", list(SessionStatus))
def test_the_transitions_of_a_session(before: SessionStatus, after: SessionStatus) -> None:
    lives = not before.ended and (after in LIVES or after.ended)
    if before is after or lives:
        check_session(before, after)
    else:
        with pytest.raises(IllegalTransitionError, match=f"session: {before} to {after}"):
            check_session(before, after)


def test_nothing_leaves_an_ended_status() -> None:
    assert all(not TASK_TRANSITIONS[status] for status in TaskStatus if status.ended)
    assert all(not SESSION_TRANSITIONS[status] for status in ENDED)


REOPENED = {TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.CANCELLED}


@pytest.mark.parametrize("before", sorted(ENDS))
@pytest.mark.parametrize("after", list(TaskStatus))
def test_ended_task_moves_only_to_queued_and_only_where_reopened(
    before: TaskStatus, after: TaskStatus
) -> None:
    if before is after or (before in REOPENED and after is Q):
        check_task(before, after, reopens=True)
    else:
        with pytest.raises(IllegalTransitionError):
            check_task(before, after, reopens=True)


@pytest.mark.parametrize("before", ENDED)
@pytest.mark.parametrize("after", list(SessionStatus))
def test_ended_session_moves_only_to_waiting_and_only_where_reopened(
    before: SessionStatus, after: SessionStatus
) -> None:
    reopens = before in (SessionStatus.FAILED, SessionStatus.TIMED_OUT)
    if before is after or (reopens and after is SessionStatus.WAITING):
        check_session(before, after, reopens=True)
    else:
        with pytest.raises(IllegalTransitionError):
            check_session(before, after, reopens=True)


def test_F12_a_draft_refuses_to_move_what_has_ended() -> None:
    draft = Draft(context())
    with pytest.raises(IllegalTransitionError):
        draft.task(task(status=TaskStatus.COMPLETED), status=TaskStatus.QUEUED)
    with pytest.raises(IllegalTransitionError):
        draft.session(session(status=SessionStatus.FAILED), status=SessionStatus.COMPLETED)


def test_a_draft_raises_each_rev_once_and_keeps_the_last_word() -> None:
    draft = Draft(context())
    one = draft.task(task(rev=4), progress=1)
    draft.task(one, progress=2)
    change = draft.change()
    assert [(each.rev, each.progress) for each in change.tasks] == [(5, 2)]
    assert not change.may_ready


def test_what_follows_is_decided_before_the_change_is_made() -> None:
    draft, said = Draft(context()), []
    draft.then(lambda: draft.then(lambda: said.append(2)))
    draft.then(lambda: said.append(1))
    assert draft.change() == Change()
    assert said == [1, 2]


def test_events_carry_the_steady_time() -> None:
    change = cancel_session(session_facts(), "why", context(wall=99))
    assert [event.at for event in change.events] == [NOW]
