"""What happens when time passes: queue, start, run, lease and session deadlines."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from opscore.models import (
    Agent,
    Change,
    Delivery,
    DispatchMode,
    FallbackCapability,
    FallbackResult,
    Forwards,
    MessageType,
    RetryPolicy,
    SessionStatus,
    Standing,
    Task,
    TaskDefinition,
    TaskStatus,
)
from opscore.workflow.decisions import on_session_due, on_stranded, on_task_due
from tests.builders import (
    AGENT,
    NOW,
    accepted,
    agent,
    at,
    became,
    context,
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

NEVER = Change()


def due(one: Task, after: float, *steps: TaskDefinition, **changes: Any) -> Change:
    who = changes.pop("who", agent())
    facts = task_facts(one, session=session(*steps), agent=who)
    return on_task_due(facts, context(after, **changes))


@pytest.mark.parametrize(
    ("one", "moment"),
    [
        (task(queue_deadline=at(5)), 5),
        (task(status=TaskStatus.DELAYED, delayed_until=at(5)), 5),
        (dispatched(), 15),
        (accepted(), 1),
        (accepted(start_deadline=None), 290),
        (running(), 290),
    ],
)
def test_nothing_happens_before_its_moment(one: Task, moment: float) -> None:
    assert due(one, moment - 0.001) == NEVER
    assert due(one, moment) != NEVER
    assert due(one, moment + 60) != NEVER


@pytest.mark.parametrize("status", [status for status in TaskStatus if status.ended])
def test_an_ended_task_has_no_timers(status: TaskStatus) -> None:
    assert due(task(status=status, attempt=1, agent_id=AGENT), 10**6) == NEVER


# --- waiting ----------------------------------------------------------------------------------


def test_a_delayed_task_is_queued_and_its_wait_for_an_agent_begins() -> None:
    one = task(status=TaskStatus.DELAYED, delayed_until=at(5), attempt=1)
    change = due(one, 6, step(queue_timeout=seconds(9)))
    after = change.tasks[0]
    assert (after.status, after.waiting_since, after.delayed_until) == (
        TaskStatus.QUEUED,
        at(6),
        None,
    )
    assert after.queue_deadline == at(15)
    assert types(change.events) == ["task.queued"]
    assert change.may_ready


@pytest.mark.parametrize("status", [TaskStatus.QUEUED, TaskStatus.DELAYED])
def test_a_task_that_waits_for_too_long_times_out_and_nobody_is_told(status: TaskStatus) -> None:
    one = task(status=status, queue_deadline=at(5), agent_id=AGENT)
    change = due(one, 5)
    after = change.tasks[0]
    assert (after.status, after.retries) == (TaskStatus.TIMED_OUT, 0)
    assert after.error is not None
    assert after.error["code"] == "queue_timeout"
    assert change.sessions[0].status is SessionStatus.FAILED
    assert types(change.events) == ["task.attempt_failed", "task.timed_out", "session.failed"]
    assert change.abandoned == ()


def test_a_task_that_waits_for_too_long_may_fall_back() -> None:
    one = task(queue_deadline=at(5))
    change = due(one, 5, step(queue_timeout=seconds(3), fallback=FallbackCapability("x")))
    after = change.tasks[0]
    assert (after.status, after.lane, after.queue_deadline) == (
        TaskStatus.QUEUED,
        "capability:x",
        at(8),
    )


# --- start ------------------------------------------------------------------------------------


def test_F36_accepted_then_silence_goes_direct_and_costs_no_retry() -> None:
    change = due(accepted(retries=2), 1)
    one = change.tasks[0]
    assert (one.status, one.retries, one.attempt) == (TaskStatus.QUEUED, 2, 1)
    assert (one.prefer_direct, one.preferred_agent) == (True, AGENT)
    assert one.error is not None
    assert one.error["code"] == "start_timeout"
    assert (one.accepted_at, one.owner, one.start_deadline) == (None, None, None)
    assert change.sessions[0].status is SessionStatus.WAITING
    assert change.agents == ()
    assert types(change.events) == ["task.attempt_failed", "task.queued"]
    assert (one.silent_forward, change.observation) == (AGENT, None)
    assert change.may_ready


@pytest.mark.parametrize(
    ("one", "who", "mode"),
    [
        (accepted(), agent(), DispatchMode.AGENTKIT),
        (accepted(via=Delivery.DIRECT), agent(), DispatchMode.DIRECT),
        (accepted(via=Delivery.DIRECT), agent(), DispatchMode.AUTO),
        (accepted(message_type=MessageType.TOOL_INVOCATION), agent(), DispatchMode.AUTO),
        (accepted(), agent(contact_endpoint=None), DispatchMode.AUTO),
        (accepted(), None, DispatchMode.AUTO),
    ],
)
def test_F36_where_there_is_no_other_way_silence_costs_a_retry(
    one: Task, who: Agent | None, mode: DispatchMode
) -> None:
    change = due(one, 1, who=who, mode=mode)
    after = change.tasks[0]
    assert (after.status, after.retries, after.prefer_direct) == (TaskStatus.DELAYED, 1, False)
    assert after.error is not None
    assert after.error["code"] == "start_timeout"


def test_F36_silence_to_the_end_falls_back() -> None:
    one = accepted(via=Delivery.DIRECT)
    steps = step(retry=RetryPolicy(0), fallback=FallbackResult(7))
    assert became(due(one, 1, steps)) == "completed"


def test_F36_silence_to_the_end_without_fallback_tells_the_agent_to_stop() -> None:
    one = accepted(via=Delivery.DIRECT)
    change = due(one, 1, step(retry=RetryPolicy(0)))
    assert became(change) == "timed_out"
    assert change.abandoned == (one,)


# --- run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", [accepted(start_deadline=at(290), via=Delivery.DIRECT), running()])
def test_F36_F37_the_run_deadline_ends_the_attempt(one: Task) -> None:
    change = due(one, 290)
    after = change.tasks[0]
    assert (after.status, after.retries, after.prefer_direct) == (TaskStatus.DELAYED, 1, False)
    assert after.error == {
        "code": "run_timeout",
        "message": "The agent did not finish before the deadline.",
    }
    assert change.abandoned == ()


@pytest.mark.fault("F124")
def test_run_deadline_without_a_sign_of_life_after_agentkits_answer_goes_direct() -> None:
    change = due(accepted(retries=3, start_deadline=None), 290)
    after = change.tasks[0]
    assert (after.status, after.prefer_direct, after.retries) == (TaskStatus.QUEUED, True, 3)
    assert after.silent_forward == AGENT
    assert after.error is not None
    assert after.error["code"] == "run_timeout"


@pytest.mark.fault("F103")
def test_silence_of_an_agent_that_forwards_miss_is_not_its_fault() -> None:
    who = agent(prefer_direct_until=at(-1))
    change = due(accepted(), 1, who=who, forwards=Forwards.PROVED)
    assert change.agents == ()


def test_F36_the_last_attempt_to_miss_its_deadline_ends_the_session() -> None:
    one = running(retries=3)
    change = due(one, 290)
    assert (became(change), change.sessions[0].status) == ("timed_out", SessionStatus.FAILED)
    events = ["task.attempt_failed", "agent.held", "task.timed_out", "session.failed"]
    assert types(change.events) == events
    assert change.abandoned == (one,)


@pytest.mark.parametrize(
    ("one", "moment", "proved", "blamed"),
    [
        (running(), 290, False, True),
        (accepted(start_deadline=None), 290, False, False),
        (accepted(start_deadline=None), 290, True, True),
        (accepted(start_deadline=None, via=Delivery.DIRECT), 290, False, True),
        (accepted(), 1, True, True),
        (accepted(via=Delivery.DIRECT), 1, False, True),
        (dispatched(), 15, True, False),
    ],
)
def test_when_an_agent_is_to_blame_for_a_missed_deadline(
    one: Task, moment: float, proved: bool, blamed: bool
) -> None:
    change = due(one, moment, forwards=Forwards.PROVED if proved else Forwards.UNKNOWN)
    assert sum(who.missed_deadlines for who in change.agents) == blamed


@pytest.mark.parametrize(("before", "lost"), [(0, False), (1, False), (2, True), (5, True)])
def test_an_agent_that_misses_deadlines_in_a_row_is_lost(before: int, lost: bool) -> None:
    change = due(running(), 290, who=agent(missed_deadlines=before))
    after = change.agents[0]
    assert after.missed_deadlines == before + 1
    assert after.standing is (Standing.LOST if lost else Standing.REGISTERED)
    assert ("agent.lost" in types(change.events)) is lost
    if lost:
        assert after.standing_reason == f"{before + 1} tasks in a row missed their deadlines"


def test_without_a_known_agent_the_deadline_counts_all_the_same() -> None:
    assert became(due(running(), 290, who=None)) == "delayed"


def test_F39_F62_the_deadline_of_an_agent_that_has_gone_counts() -> None:
    change = due(running(), 290, who=agent(standing=Standing.DEREGISTERED, missed_deadlines=5))
    assert became(change) == "delayed"
    assert change.agents[0].standing is Standing.DEREGISTERED


def test_of_several_timers_the_run_deadline_is_first_and_the_lease_last() -> None:
    one = dispatched(run_deadline=at(1), start_deadline=at(1), lease_until=at(1))
    without_run = replace(one, run_deadline=None)
    errors = [
        due(late, 1).tasks[0].error
        for late in (one, without_run, replace(without_run, start_deadline=None))
    ]
    codes = [error["code"] for error in errors if error]
    assert codes == ["run_timeout", "start_timeout", "lease_lost"]


# --- lease ------------------------------------------------------------------------------------


def test_F3_F14_a_lost_lease_costs_no_retry() -> None:
    change = due(dispatched(retries=1), 15)
    one = change.tasks[0]
    assert (one.status, one.retries, one.lost_leases) == (TaskStatus.QUEUED, 1, 1)
    assert (one.owner, one.lease_until, one.attempt) == (None, None, 1)
    assert change.sessions[0].status is SessionStatus.WAITING
    assert not any(entry.holds for entry in change.agents[0].open_entries)
    assert types(change.events) == ["task.attempt_failed", "task.queued"]


@pytest.mark.parametrize(("lost", "longest"), [(2, 1), (3, 2), (4, 4)])
def test_F14_tasks_that_are_lost_together_again_and_again_part(lost: int, longest: float) -> None:
    ids = [f"task-{number}" for number in range(50)]
    changes = [due(dispatched(id=one, lost_leases=lost - 1), 15) for one in ids]
    tasks = [change.tasks[0] for change in changes]
    assert {task.status for task in tasks} == {TaskStatus.DELAYED}
    assert types(changes[0].events) == ["task.attempt_failed", "task.delayed"]
    pauses = [seconds_between(at(15), task.delayed_until) for task in tasks]
    assert 0 <= min(pauses) < longest / 4
    assert longest * 3 / 4 < max(pauses) <= longest
    assert len(set(pauses)) == len(ids)


def seconds_between(earlier: datetime, later: datetime | None) -> float:
    assert later is not None
    return (later - earlier).total_seconds()


def test_F14_the_fifth_lost_lease_fails_the_task() -> None:
    one = dispatched()
    for lost in range(1, 5):
        one = replace(dispatched(attempt=lost), lost_leases=due(one, 15).tasks[0].lost_leases)
        assert one.lost_leases == lost
    change = due(one, 15)
    assert became(change) == "failed"
    assert change.tasks[0].error == {
        "code": "lease_lost",
        "message": "5 dispatchers were lost while they had the task.",
    }
    assert change.tasks[0].lost_leases == 5
    assert change.sessions[0].status is SessionStatus.FAILED


def test_F14_after_five_lost_leases_the_fallback_runs() -> None:
    change = due(dispatched(lost_leases=4), 15, step(fallback=FallbackResult(7)))
    assert (became(change), change.sessions[0].output) == ("completed", 7)


def test_F4_a_task_that_runs_survives_its_dispatcher() -> None:
    change = due(running(accepted_at=None, run_deadline=None, lease_until=at(15)), 15)
    one = change.tasks[0]
    assert (one.status, one.lost_leases, one.lease_until) == (TaskStatus.RUNNING, 0, None)
    assert (one.accepted_at, one.run_deadline) == (at(15), at(290))
    assert types(change.events) == ["task.accepted"]


# --- session ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [SessionStatus.PENDING, SessionStatus.RUNNING])
def test_the_session_deadline_ends_everything(status: SessionStatus) -> None:
    where = session(status=status, deadline_at=at(5))
    tasks = (task(status=TaskStatus.COMPLETED), running(step_id="two"), task(step_id="three"))
    assert on_session_due(session_facts(*tasks, session=where), context(4.9)) == NEVER
    change = on_session_due(session_facts(*tasks, session=where), context(5))
    after = change.sessions[0]
    assert (after.status, after.ended_at) == (SessionStatus.TIMED_OUT, at(5))
    assert after.error == {
        "code": "session_timeout",
        "message": "The session did not end before its deadline.",
    }
    assert [one.status for one in change.tasks] == [TaskStatus.CANCELLED] * 2
    assert change.abandoned == (tasks[1],)
    assert types(change.events) == ["task.cancelled"] * 2 + ["session.timed_out"]
    assert change.events[0].data["reason"] == "the session's deadline passed"


@pytest.mark.parametrize("status", [status for status in SessionStatus if status.ended])
def test_an_ended_session_has_no_deadline(status: SessionStatus) -> None:
    where = session(status=status, deadline_at=at(5))
    assert on_session_due(session_facts(session=where), context(6)) == NEVER


def test_a_session_without_a_deadline_never_times_out() -> None:
    assert on_session_due(session_facts(task()), context(10**6)) == NEVER


# --- stranded ---------------------------------------------------------------------------------


GONE = agent(standing=Standing.DEREGISTERED)


@pytest.mark.parametrize("status", [TaskStatus.QUEUED, TaskStatus.DELAYED])
def test_F62_a_task_for_an_agent_that_was_deregistered_fails(status: TaskStatus) -> None:
    change = on_stranded(task_facts(task(status=status)), GONE, context())
    assert became(change) == "failed"
    assert change.tasks[0].error is not None
    assert change.tasks[0].error["code"] == "agent_gone"
    assert change.sessions[0].status is SessionStatus.FAILED


def test_F62_it_may_fall_back_to_others() -> None:
    where = session(step(fallback=FallbackCapability("x")))
    change = on_stranded(task_facts(task(), session=where), GONE, context())
    assert (change.tasks[0].lane, change.tasks[0].waiting_since) == ("capability:x", NOW)
    assert change.sessions[0].status is SessionStatus.WAITING


@pytest.mark.parametrize("one", [dispatched(), running(), task(status=TaskStatus.COMPLETED)])
def test_F62_what_runs_may_finish(one: Task) -> None:
    assert on_stranded(task_facts(one), GONE, context()) == NEVER


@pytest.mark.parametrize(
    "wanted", [None, agent(), agent(standing=Standing.LOST), agent(standing=Standing.DRAINING)]
)
def test_F62_only_a_deregistered_agent_strands_its_tasks(wanted: Agent | None) -> None:
    assert on_stranded(task_facts(task()), wanted, context()) == NEVER


def test_F62_a_task_that_others_could_do_is_not_stranded() -> None:
    one = task(wanted_agent=None, wanted_capability="x")
    assert on_stranded(task_facts(one), GONE, context()) == NEVER
