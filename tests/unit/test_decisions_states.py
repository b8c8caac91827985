"""What a state report says of its agent: the state, its time, and whether to give work."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.models import (
    AgentFacts,
    AgentState,
    Change,
    Hold,
    HoldReason,
    Standing,
    StateReport,
    StateWord,
    TaskStatus,
    normalise_state,
    slots,
)
from opscore.workflow.decisions import on_agent_due, on_state_report
from opscore.workflow.decisions.report_times import settle_time
from tests.builders import (
    AGENT,
    NOW,
    accepted,
    agent,
    agent_facts,
    at,
    context,
    naming,
    report,
    running,
    seconds,
    task,
    types,
)

ID = task().id


def decide(facts: AgentFacts, said: StateReport, after: float = 0, **changes: Any) -> Change:
    return on_state_report(facts, said, context(after, **changes))


def newest(when: float) -> AgentState:
    return AgentState("idle", StateWord.IDLE, {}, at(when), at(when))


# --- time -------------------------------------------------------------------------------------

AHEAD, BEHIND = 300.0, 60.0


@pytest.mark.parametrize(
    ("last", "said", "timestamp", "corrected", "out_of_order"),
    [
        (None, None, 0, False, False),
        (-5, None, 0, False, False),
        (None, -1, -1, False, False),
        (None, -BEHIND, -BEHIND, False, False),
        (None, -BEHIND - 0.001, 0, True, False),
        (None, AHEAD, AHEAD, False, False),
        (None, AHEAD + 0.001, 0, True, False),
        (None, 86_400, 0, True, False),
        (-5, -5, -5, False, False),
        (-5, -5.001, -5.001, False, True),
        (-5, -5 - BEHIND, -5 - BEHIND, False, True),
        (-5, -5.001 - BEHIND, 0, True, False),
        (-1000, -900, -900, False, False),
        (200, 150, 150, False, True),
        (200, 100, 0, True, False),
    ],
)
def test_F41_F49_the_time_of_a_report(
    last: float | None, said: float | None, timestamp: float, corrected: bool, out_of_order: bool
) -> None:
    who = agent(state=None if last is None else newest(last))
    settled = settle_time(who, report("active", when=said), context())
    assert settled.timestamp == at(timestamp)
    assert (settled.corrected, settled.out_of_order) == (corrected, out_of_order)


@pytest.mark.parametrize(
    "said",
    [
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-1))),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_F49_absurd_times_are_replaced_and_marked(said: datetime) -> None:
    change = decide(agent_facts(), StateReport(AGENT, "idle", timestamp=said), wall=7)
    state = change.agents[0].state
    assert state is not None
    assert (state.timestamp, state.received_at, state.clock_corrected) == (at(7), at(7), True)
    assert change.events[0].data["clockCorrected"] is True


def test_F49_other_zones_become_utc() -> None:
    there = NOW.astimezone(timezone(timedelta(hours=9)))
    state = decide(agent_facts(), StateReport(AGENT, "idle", timestamp=there)).agents[0].state
    assert state is not None
    assert state.timestamp == NOW
    assert state.timestamp.tzinfo is UTC


def test_the_wall_clock_judges_the_time_and_the_steady_one_dates_the_event() -> None:
    change = decide(agent_facts(), report("idle", when=3600), wall=3600)
    state = change.agents[0].state
    assert state is not None
    assert (state.timestamp, state.clock_corrected) == (at(3600), False)
    assert change.agents[0].last_seen_at == NOW
    assert change.events[0].at == NOW


@given(st.lists(st.floats(-4000, 4000), max_size=8))
def test_F41_the_newest_time_never_goes_back_but_by_a_bad_clock(times: list[float]) -> None:
    who = agent()
    for moment in times:
        before = who.state
        change = decide(agent_facts(agent=who), report("active", when=moment))
        who = change.agents[0]
        assert who.state is not None
        if before is not None and not change.events[0].data.get("clockCorrected"):
            assert who.state.timestamp >= before.timestamp


# --- what is kept -----------------------------------------------------------------------------


def test_F50_a_strange_word_is_stored_as_it_came() -> None:
    change = decide(agent_facts(running()), report("NAPPING", when=-1, why="tired"))
    state = change.agents[0].state
    assert state == AgentState("NAPPING", StateWord.UNKNOWN, {"why": "tired"}, at(-1), NOW)
    assert change.events[0].data == {
        "state": "NAPPING",
        "word": "unknown",
        "timestamp": at(-1).isoformat(),
        "details": {"why": "tired"},
    }


@pytest.mark.parametrize(("size", "kept"), [(0, True), (4096, True), (4097, False)])
def test_F17_large_details_are_left_out_of_the_history(size: int, kept: bool) -> None:
    change = decide(agent_facts(), report("idle", size=size, n=1))
    state, data = change.agents[0].state, change.events[0].data
    assert state is not None
    assert state.details == {"n": 1}
    assert ("details" in data) is kept
    assert data.get("detailsOmitted", False) is not kept


def test_F41_an_old_report_leaves_the_state_and_counts_as_a_sign_of_life() -> None:
    hold = Hold(HoldReason.REPORTED_ERROR, at(-9))
    who = agent(state=newest(-5), hold=hold, missed_deadlines=2)
    change = decide(agent_facts(agent=who), report("idle", when=-6))
    after = change.agents[0]
    assert (after.state, after.hold) == (who.state, hold)
    assert (after.last_seen_at, after.missed_deadlines) == (NOW, 0)
    assert change.events[0].data["outOfOrder"] is True
    assert change.events[0].data["state"] == "idle"


def test_F44_a_repeated_report_leaves_the_state() -> None:
    first = decide(agent_facts(), report("idle", when=-5)).agents[0]
    who = decide(agent_facts(agent=first), report("idle", when=-4)).agents[0]
    change = decide(agent_facts(agent=who), report("idle", when=-5), 2)
    assert change.agents[0].state == who.state
    assert change.events[0].data["repeated"] is True
    assert change.agents[0].last_seen_at == at(2)


def test_each_record_rises_by_one_rev() -> None:
    change = decide(naming(running(rev=7)), report("finished", taskId=ID))
    revs = change.agents[0].rev, change.tasks[0].rev, change.sessions[0].rev
    assert revs == (2, 8, 2)


# --- whether to give work ---------------------------------------------------------------------

OLD = Hold(HoldReason.REPORTED_OFFLINE, at(-9))
NEVER = Hold(HoldReason.NEVER_REPORTED, at(-9))


def held(reason: HoldReason, until: float | None = None, since: float = 0) -> Hold:
    return Hold(reason, at(since), None if until is None else at(until))


def test_agent_that_reported_an_error_gets_a_task_again_after_a_while() -> None:
    """One that answers 500, reports `error` then, and speaks only when it works."""
    who = decide(agent_facts(), report("error")).agents[0]
    assert (slots(who), who.due_at) == (0, at(600))
    assert slots(on_agent_due(who, context(600)).agents[0]) == 1


@pytest.mark.parametrize("before", [None, OLD, NEVER])
@pytest.mark.parametrize(
    ("word", "hold"),
    [
        ("idle", None),
        ("finished", None),
        ("active", held(HoldReason.REPORTED_ACTIVE, 60)),
        ("initializing", held(HoldReason.REPORTED_INITIALIZING, 300)),
        ("error", held(HoldReason.REPORTED_ERROR, 600)),
    ],
)
def test_without_a_task_the_word_is_about_the_agent(
    before: Hold | None, word: str, hold: Hold | None
) -> None:
    assert decide(agent_facts(agent=agent(hold=before)), report(word)).agents[0].hold == hold


@pytest.mark.parametrize(
    ("before", "hold"),
    [
        (None, held(HoldReason.REPORTED_OFFLINE)),
        (NEVER, held(HoldReason.REPORTED_OFFLINE)),
        (OLD, OLD),
    ],
)
def test_offline_holds_until_the_next_word_and_since_the_first(
    before: Hold | None, hold: Hold
) -> None:
    assert decide(agent_facts(agent=agent(hold=before)), report("stopped")).agents[0].hold == hold


@pytest.mark.parametrize("before", [None, OLD, NEVER])
def test_F50_a_strange_word_leaves_the_hold_as_it_is(before: Hold | None) -> None:
    assert decide(agent_facts(agent=agent(hold=before)), report("napping")).agents[0].hold == before


@pytest.mark.parametrize("word", ["active", "error"])
@pytest.mark.parametrize("in_flight", [(accepted(),), (running(), running(step_id="two"))])
def test_work_in_flight_explains_active_and_error(word: str, in_flight: tuple[Any, ...]) -> None:
    facts = agent_facts(*in_flight, agent=agent(hold=OLD))
    assert decide(facts, report(word)).agents[0].hold is None


@pytest.mark.parametrize("word", ["offline", "initializing"])
def test_work_in_flight_does_not_explain_leaving(word: str) -> None:
    hold = decide(agent_facts(running()), report(word)).agents[0].hold
    assert hold is not None
    assert hold.reason.value == f"reported_{word}"


def test_active_again_prolongs_the_hold_and_keeps_its_start() -> None:
    before = held(HoldReason.REPORTED_ACTIVE, 10, since=-290)
    change = decide(agent_facts(agent=agent(hold=before)), report("active"))
    assert change.agents[0].hold == held(HoldReason.REPORTED_ACTIVE, 60, since=-290)


def test_how_long_active_holds_can_be_set() -> None:
    change = decide(agent_facts(), report("active"), active_hold=seconds(7))
    assert change.agents[0].hold == held(HoldReason.REPORTED_ACTIVE, 7)


@pytest.mark.parametrize("word", ["active", "error"])
@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.DELAYED, TaskStatus.FAILED])
def test_F43_what_is_said_of_a_named_task_is_not_about_the_agent(
    word: str, status: TaskStatus
) -> None:
    facts = agent_facts(named=task(status=status, attempt=1, agent_id=AGENT))
    assert decide(facts, report(word, taskId=ID)).agents[0].hold is None


@pytest.mark.parametrize("before", [None, OLD])
@pytest.mark.parametrize("word", ["active", "error", "idle"])
def test_report_of_unknown_task_neither_holds_nor_releases_agent(
    before: Hold | None, word: str
) -> None:
    facts = agent_facts(agent=agent(hold=before))
    change = decide(facts, report(word, taskId="no such task"))
    assert change.agents[0].hold == before
    assert change.uncounted is not None
    assert "No task has the id" in change.uncounted


@pytest.mark.parametrize("word", ["idle", "active", "finished", "unheard of"])
def test_report_of_deregistered_agent_is_answered_with_what_that_means(word: str) -> None:
    gone = agent(standing=Standing.DEREGISTERED)
    change = decide(agent_facts(agent=gone), report(word))
    assert change.uncounted is not None
    assert "until it registers again" in change.uncounted
    assert decide(agent_facts(), report("idle")).uncounted is None


def test_report_that_ends_the_last_task_of_deregistered_agent_counts() -> None:
    gone = agent(standing=Standing.DEREGISTERED)
    change = decide(agent_facts(agent=gone, named=running()), report("finished", taskId=ID))
    assert change.uncounted is None
    assert change.tasks[0].status is TaskStatus.COMPLETED


def test_repeated_active_holds_busy_agent_for_another_minute() -> None:
    said = report("active", when=0)
    busy = decide(agent_facts(), said).agents[0]
    again = decide(agent_facts(agent=busy), said, 40).agents[0]
    assert again.hold == held(HoldReason.REPORTED_ACTIVE, 100)


def test_repeated_active_does_not_hold_agent_that_is_idle_by_now() -> None:
    said = report("active", when=0)
    busy = decide(agent_facts(), said).agents[0]
    idle = decide(agent_facts(agent=busy), report("idle", when=1), 1).agents[0]
    assert decide(agent_facts(agent=idle), said, 2).agents[0].hold is None


@pytest.mark.parametrize(
    ("before", "word", "wakes"),
    [(OLD, "idle", True), (None, "idle", False), (None, "napping", False), (OLD, "napping", False)],
)
def test_the_dispatcher_is_woken_when_an_agent_becomes_free(
    before: Hold | None, word: str, wakes: bool
) -> None:
    assert decide(agent_facts(agent=agent(hold=before)), report(word)).may_ready is wakes


# --- coming back ------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["idle", "active", "napping", "offline"])
def test_a_lost_agent_returns_with_any_word(word: str) -> None:
    lost = agent(standing=Standing.LOST, standing_since=at(-9), standing_reason="silence")
    change = decide(agent_facts(agent=lost), report(word), 2)
    after = change.agents[0]
    assert after.standing is Standing.REGISTERED
    assert (after.standing_since, after.standing_reason) == (at(2), None)
    assert types(change.events) == ["agent.returned", "agent.state"]
    assert change.events[0].agent_id == AGENT


@pytest.mark.parametrize("standing", [Standing.DRAINING, Standing.DEREGISTERED])
def test_F59_a_report_does_not_bring_back_what_was_sent_away(standing: Standing) -> None:
    gone = agent(standing=standing, standing_since=at(-9))
    change = decide(agent_facts(agent=gone), report("idle"))
    assert (change.agents[0].standing, change.agents[0].standing_since) == (standing, at(-9))
    assert types(change.events) == ["agent.state"]


def test_F62_a_deregistered_agent_may_still_finish() -> None:
    gone = agent(standing=Standing.DEREGISTERED)
    change = decide(naming(running(), agent=gone), report("finished", taskId=ID))
    assert "task.completed" in types(change.events)


@given(st.text())
def test_every_word_is_taken(word: str) -> None:
    change = decide(agent_facts(), report(word))
    state = change.agents[0].state
    assert state is not None
    assert (state.state, state.word) == (word, normalise_state(word))
