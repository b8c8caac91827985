"""How a delivery ended, and what follows."""

from dataclasses import replace
from typing import Any

import pytest

from opscore.models import (
    Accepted,
    Agent,
    Answered,
    Change,
    Delivery,
    DispatchMode,
    Failure,
    FailureCode,
    FallbackResult,
    ForwardObservation,
    Forwards,
    Hold,
    HoldReason,
    MessageType,
    Outcome,
    SessionStatus,
    Task,
    TaskStatus,
    WorkflowSession,
)
from opscore.workflow.decisions import on_outcome
from tests.builders import (
    AGENT,
    NOW,
    OWNER,
    agent,
    at,
    became,
    context,
    dispatched,
    moves,
    running,
    seconds,
    session,
    step,
    task,
    task_facts,
    types,
)

KIT, DIRECT = Delivery.AGENTKIT, Delivery.DIRECT


def settle(
    one: Task,
    outcome: Outcome,
    via: Delivery = KIT,
    *,
    where: WorkflowSession | None = None,
    who: Agent | None = None,
    probe: bool = False,
    **changes: Any,
) -> Change:
    facts = task_facts(one, session=where or session(), agent=who or agent())
    return on_outcome(facts, one.attempt, OWNER, via, outcome, context(**changes), probe)


def failure(code: FailureCode, **changes: Any) -> Failure:
    return Failure(code, "It went wrong.", **changes)


# --- accepted ---------------------------------------------------------------------------------


def test_F5_an_accepted_task_waits_for_its_agent_and_no_more_for_its_dispatcher() -> None:
    where = session(status=SessionStatus.PENDING, started_at=None)
    change = settle(dispatched(), Accepted(), where=where)
    one, after = change.tasks[0], change.sessions[0]
    assert (one.status, one.via, one.accepted_at) == (TaskStatus.DISPATCHED, KIT, NOW)
    assert (one.lease_until, one.start_deadline, one.run_deadline) == (None, at(10), at(290))
    assert (after.status, after.started_at) == (SessionStatus.RUNNING, NOW)
    assert types(change.events) == ["task.accepted"]
    assert change.events[0].data["via"] == "agentkit"
    assert change.observation is None


def test_result_that_was_not_understood_is_an_event_beside_the_acceptance() -> None:
    change = settle(dispatched(), Accepted("The status is not known."), DIRECT)
    assert types(change.events) == ["task.accepted", "task.answer_unclear"]
    assert change.events[1].data["message"] == "The status is not known."
    assert change.tasks[0].accepted_at == NOW


@pytest.mark.parametrize(
    ("own", "default", "via", "deadline"),
    [
        (None, 10, KIT, 10),
        (None, None, KIT, None),
        (3, 10, KIT, 3),
        (3, None, KIT, 3),
        (0, 10, KIT, None),
        (None, 10, DIRECT, None),
        (3, 10, DIRECT, 3),
        (0, 10, DIRECT, None),
    ],
)
def test_the_start_deadline(
    own: float | None, default: float | None, via: Delivery, deadline: float | None
) -> None:
    where = session(step(start_timeout=None if own is None else seconds(own)))
    limit = None if default is None else seconds(default)
    one = settle(dispatched(), Accepted(), via, where=where, start_timeout=limit).tasks[0]
    assert one.start_deadline == (None if deadline is None else at(deadline))


@pytest.mark.fault("F103")
def test_start_deadline_is_not_set_once_forwards_are_known_to_reach_the_agent() -> None:
    proved = settle(dispatched(), Accepted(), forwards=Forwards.PROVED)
    assert proved.tasks[0].start_deadline is None
    where = session(step(start_timeout=seconds(3)))
    own = settle(dispatched(), Accepted(), where=where, forwards=Forwards.PROVED)
    assert own.tasks[0].start_deadline == at(3)
    missed = agent(prefer_direct_until=at(-1))
    once_missed = settle(dispatched(), Accepted(), who=missed, forwards=Forwards.PROVED)
    assert once_missed.tasks[0].start_deadline == at(10)
    other_mode = settle(
        dispatched(), Accepted(), forwards=Forwards.PROVED, mode=DispatchMode.AGENTKIT
    )
    assert other_mode.tasks[0].start_deadline == at(10)


@pytest.mark.fault("F124")
@pytest.mark.parametrize(("run", "start"), [(5, 2.5), (10, 5), (20, 10), (60, 10)])
def test_default_start_deadline_is_at_most_half_of_the_run_deadline(
    run: float, start: float
) -> None:
    where = session(step(timeout=seconds(run)))
    one = settle(dispatched(dispatched_at=NOW), Accepted(), where=where).tasks[0]
    assert (one.start_deadline, one.run_deadline) == (at(start), at(run))


@pytest.mark.parametrize(("own", "deadline"), [(None, 290), (30, 20)])
def test_the_run_deadline_counts_from_the_dispatch(own: float | None, deadline: float) -> None:
    where = session(step(timeout=None if own is None else seconds(own)))
    assert settle(dispatched(), Accepted(), where=where).tasks[0].run_deadline == at(deadline)


@pytest.mark.parametrize(
    ("via", "seen"), [(KIT, ForwardObservation(AGENT, arrived=True)), (DIRECT, None)]
)
def test_an_agent_that_spoke_before_the_answer_has_begun(
    via: Delivery, seen: ForwardObservation | None
) -> None:
    early = running(accepted_at=None, lease_until=at(5))
    change = settle(early, Accepted(), via)
    one = change.tasks[0]
    assert (one.status, one.active_at, one.accepted_at) == (TaskStatus.RUNNING, at(-8), NOW)
    assert (one.start_deadline, one.lease_until) == (None, None)
    assert change.observation == seen


@pytest.mark.parametrize(
    "status", [SessionStatus.PENDING, SessionStatus.WAITING, SessionStatus.RUNNING]
)
def test_acceptance_keeps_a_sessions_start(status: SessionStatus) -> None:
    change = settle(dispatched(), Accepted(), where=session(status=status))
    assert [one.started_at for one in change.sessions] in ([], [at(-30)])
    assert bool(change.sessions) is (status is not SessionStatus.RUNNING)


# --- answered ---------------------------------------------------------------------------------


def test_an_answer_completes_the_task() -> None:
    change = settle(dispatched(), Answered({"n": 1}), DIRECT)
    assert (became(change), change.tasks[0].result) == ("completed", {"n": 1})
    assert change.tasks[0].via is DIRECT
    assert change.sessions[0].output == {"n": 1}


@pytest.mark.parametrize(
    ("hold", "after"),
    [
        (Hold(HoldReason.REPORTED_ACTIVE, NOW, at(300)), None),
        (Hold(HoldReason.REPORTED_OFFLINE, NOW), Hold(HoldReason.REPORTED_OFFLINE, NOW)),
    ],
)
def test_an_agent_that_answered_is_busy_no_more(hold: Hold, after: Hold | None) -> None:
    who = agent(hold=hold, delivery_failures=1)
    assert settle(dispatched(), Answered(1), DIRECT, who=who).agents[0].hold == after


@pytest.mark.parametrize("via", list(Delivery))
def test_an_answer_is_a_sign_of_life(via: Delivery) -> None:
    who = agent(missed_deadlines=2, delivery_failures=1)
    one = settle(dispatched(), Answered(1), via, who=who, after=2).agents[0]
    assert (one.missed_deadlines, one.last_seen_at) == (0, at(2))
    assert one.delivery_failures == (0 if via is DIRECT else 1)


def test_an_answer_without_a_known_agent_counts() -> None:
    facts = task_facts(dispatched(), agent=None)
    for via in Delivery:
        assert became(on_outcome(facts, 1, OWNER, via, Answered(1), context())) == "completed"


# --- fenced -----------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [Accepted(), Answered(1), failure(FailureCode.UNREACHABLE)])
@pytest.mark.parametrize(
    ("one", "attempt", "owner"),
    [
        (dispatched(attempt=2), 1, OWNER),
        (dispatched(), 1, "another"),
        (dispatched(owner=None), 1, OWNER),
        (task(attempt=1, owner=OWNER), 1, OWNER),
        (task(status=TaskStatus.COMPLETED, attempt=1, owner=OWNER), 1, OWNER),
    ],
)
def test_F10_a_stale_outcome_changes_nothing(
    one: Task, attempt: int, owner: str, outcome: Outcome
) -> None:
    change = on_outcome(task_facts(one), attempt, owner, KIT, outcome, context())
    assert not moves(change)
    late = ["task.late"] if isinstance(outcome, Answered) else []
    assert types(change.events) == late
    assert [event.data["attempt"] for event in change.events] == [attempt] * len(late)


# --- failed at AgentKit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "retries", "delay"),
    [
        (failure(FailureCode.UNREACHABLE), 0, None),
        (failure(FailureCode.UNAUTHORIZED), 0, None),
        (failure(FailureCode.TLS), 0, None),
        (failure(FailureCode.OUTCOME_UNKNOWN), 1, None),
        (failure(FailureCode.UPSTREAM_ERROR), 1, None),
        (failure(FailureCode.UPSTREAM_ERROR, retry_after=seconds(600)), 1, 600),
        (failure(FailureCode.THROTTLED, free=True, retry_after=seconds(7)), 0, 7),
        (failure(FailureCode.TOOL_ERROR), 1, None),
    ],
    ids=["F23", "F29", "F35", "F24", "F26", "F26-retry-after", "F27", "F31"],
)
def test_F23_F24_F26_F27_F29_F31_a_failure_at_agentkit(
    outcome: Failure, retries: int, delay: float | None
) -> None:
    change = settle(dispatched(), outcome, mode=DispatchMode.AGENTKIT)
    one = change.tasks[0]
    assert (one.status, one.retries, one.attempt) == (TaskStatus.DELAYED, retries, 1)
    assert one.id == dispatched().id
    assert one.delayed_until is not None
    if delay is None:
        assert NOW <= one.delayed_until < at(1)
    else:
        assert one.delayed_until == at(delay)
    assert change.agents == ()


@pytest.mark.parametrize("code", [FailureCode.UNREACHABLE, FailureCode.UNAUTHORIZED])
def test_F38_a_task_outlives_any_number_of_failures_of_agentkit(code: FailureCode) -> None:
    one = dispatched()
    for attempt in range(1, 50):
        failed = settle(replace(one, attempt=attempt), failure(code), mode=DispatchMode.AGENTKIT)
        after = failed.tasks[0]
        assert (after.status, after.retries) == (TaskStatus.DELAYED, 0)
        one = replace(dispatched(), retries=after.retries)


def test_F38_a_failed_probe_costs_no_retry() -> None:
    lost = failure(FailureCode.UPSTREAM_ERROR)
    change = settle(dispatched(retries=3), lost, probe=True, mode=DispatchMode.AGENTKIT)
    assert (became(change), change.tasks[0].retries) == ("delayed", 3)


@pytest.mark.fault("F102")
@pytest.mark.parametrize(
    "code",
    [
        FailureCode.UNREACHABLE,
        FailureCode.OUTCOME_UNKNOWN,
        FailureCode.UPSTREAM_ERROR,
        FailureCode.UNAUTHORIZED,
        FailureCode.TLS,
    ],
)
def test_failure_of_agentkit_in_auto_mode_sends_the_task_direct_at_once(code: FailureCode) -> None:
    one = dispatched(retries=3, not_found=2)
    change = settle(one, failure(code))
    after = change.tasks[0]
    assert (after.status, after.prefer_direct, after.retries) == (TaskStatus.QUEUED, True, 3)
    assert (after.preferred_agent, after.silent_forward) == (AGENT, None)
    assert change.observation is None
    assert types(change.events) == ["task.attempt_failed", "task.queued"]


@pytest.mark.parametrize(
    ("one", "who", "code"),
    [
        (dispatched(message_type=MessageType.TOOL_INVOCATION), agent(), FailureCode.UNREACHABLE),
        (dispatched(), agent(contact_endpoint=None), FailureCode.UNREACHABLE),
        (dispatched(), agent(), FailureCode.THROTTLED),
        (dispatched(), agent(), FailureCode.TOOL_ERROR),
    ],
)
def test_failure_at_agentkit_without_another_way_waits(
    one: Task, who: Agent, code: FailureCode
) -> None:
    after = settle(one, failure(code), who=who).tasks[0]
    assert (after.status, after.prefer_direct) == (TaskStatus.DELAYED, False)


def test_F28_a_rejected_task_fails_at_once_and_keeps_what_was_said() -> None:
    said = failure(FailureCode.REJECTED, terminal=True, status=422, body="b" * 4096)
    change = settle(dispatched(), said)
    assert became(change) == "failed"
    assert change.tasks[0].error == {
        "code": "rejected",
        "message": "It went wrong.",
        "status": 422,
        "body": "b" * 4096,
    }


def test_F28_a_rejected_task_may_fall_back() -> None:
    where = session(step(fallback=FallbackResult(1)))
    said = failure(FailureCode.REJECTED, terminal=True)
    assert became(settle(dispatched(), said, where=where)) == "completed"


@pytest.mark.parametrize("via", list(Delivery))
def test_F24_a_lost_answer_of_a_task_that_runs_is_an_acceptance(via: Delivery) -> None:
    early = running(accepted_at=None, lease_until=at(5), prefer_direct=False)
    change = settle(early, failure(FailureCode.OUTCOME_UNKNOWN), via)
    one = change.tasks[0]
    assert (one.status, one.accepted_at, one.retries) == (TaskStatus.RUNNING, NOW, 0)
    assert one.lease_until is None
    assert types(change.events) == ["task.accepted"]


def test_F24_a_lost_answer_of_a_task_that_runs_is_no_failed_delivery() -> None:
    early = running(accepted_at=None)
    for before in (0, 4, 7):
        change = settle(
            early, failure(FailureCode.OUTCOME_UNKNOWN), DIRECT, who=agent(delivery_failures=before)
        )
        assert [one.delivery_failures for one in change.agents] in ([], [0])
        assert "agent.lost" not in types(change.events)


@pytest.mark.parametrize("code", [FailureCode.UPSTREAM_ERROR, FailureCode.UNREACHABLE])
def test_any_other_failure_of_a_task_that_runs_is_one(code: FailureCode) -> None:
    one = running(accepted_at=None)
    assert became(settle(one, failure(code), mode=DispatchMode.AGENTKIT)) == "delayed"


@pytest.mark.parametrize(("moment", "code"), [(289, "outcome_unknown"), (290, "run_timeout")])
def test_a_message_under_way_until_the_deadline_has_missed_it(moment: float, code: str) -> None:
    facts = task_facts(dispatched())
    lost = failure(FailureCode.OUTCOME_UNKNOWN)
    change = on_outcome(facts, 1, OWNER, DIRECT, lost, context(moment))
    assert change.tasks[0].error is not None
    assert change.tasks[0].error["code"] == code


def test_after_the_deadline_other_failures_stay_what_they_are() -> None:
    facts = task_facts(dispatched())
    change = on_outcome(facts, 1, OWNER, DIRECT, failure(FailureCode.UPSTREAM_ERROR), context(999))
    assert change.tasks[0].error is not None
    assert change.tasks[0].error["code"] == "upstream_error"


# --- what is learned of AgentKit's forwards ----------------------------------------------------

MISSED = ForwardObservation(AGENT, arrived=False)


@pytest.mark.parametrize(
    ("one", "via", "seen"),
    [
        (dispatched(silent_forward=AGENT), DIRECT, MISSED),
        (dispatched(silent_forward="a2"), DIRECT, None),
        (dispatched(silent_forward=AGENT), KIT, None),
        (dispatched(prefer_direct=True), DIRECT, None),
        (dispatched(message_type=MessageType.TOOL_INVOCATION), KIT, None),
    ],
)
def test_an_answer_after_a_silent_forward_says_that_the_forward_missed_its_agent(
    one: Task, via: Delivery, seen: ForwardObservation | None
) -> None:
    assert settle(one, Answered(1), via).observation == seen


def test_an_agent_missed_by_agentkit_is_sent_its_tasks_directly() -> None:
    one = dispatched(silent_forward=AGENT)
    change = settle(one, Answered(1), DIRECT, probe_interval=seconds(7))
    assert change.agents[-1].prefer_direct_until == at(7)


@pytest.mark.parametrize("outcome", [Accepted(), failure(FailureCode.UNREACHABLE)])
def test_a_mere_acceptance_of_a_direct_message_teaches_nothing(outcome: Outcome) -> None:
    assert settle(dispatched(silent_forward=AGENT), outcome, DIRECT).observation is None
