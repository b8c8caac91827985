"""Which task a report speaks of while messages, answers and attempts are open with its agent."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opscore.models import (
    Accepted,
    Agent,
    AgentFacts,
    Answered,
    Change,
    Delivery,
    DispatchMode,
    EntryKind,
    Failure,
    FailureCode,
    Forwards,
    HoldReason,
    OpenEntry,
    Outcome,
    StateReport,
    StateWord,
    Task,
    TaskResult,
    TaskStatus,
    current_hold,
    slots,
)
from opscore.storage.claimed import claimed_task
from opscore.workflow.decisions import (
    cancel_session,
    on_agent_due,
    on_outcome,
    on_state_report,
    on_task_due,
    on_task_result,
)
from opscore.workflow.decisions.open_entries import settle
from opscore.workflow.decisions.report_contents import is_remembered, remember
from tests.builders import (
    OWNER,
    accepted,
    agent,
    agent_facts,
    at,
    became,
    context,
    dispatched,
    moves,
    naming,
    report,
    running,
    seconds,
    session,
    session_facts,
    step,
    task,
    task_facts,
    types,
)

OTHER = "01939d3a-0000-7000-8000-000000000002"
"""Another session: the task in flight belongs to it."""


def entry(kind: str = "unsettled", **changes: Any) -> OpenEntry:
    lasts = 30 if kind == "unsettled" else 5
    values: dict[str, Any] = {
        "task_id": "t0",
        "session_id": "s0",
        "step_id": "one",
        "attempt": 1,
        "since": at(0),
        "until": at(lasts),
        "holds": kind == "unsettled",
    }
    return OpenEntry(EntryKind(kind), **values | changes)


def begun(kind: str = "unsettled", **changes: Any) -> OpenEntry:
    return entry(kind, active=True, **changes)


def having(*entries: OpenEntry, **changes: Any) -> Agent:
    return agent(open_entries=entries, **changes)


def decide(facts: AgentFacts, said: StateReport, after: float = 1, **changes: Any) -> Change:
    return on_state_report(facts, said, context(after, **changes))


def left(change: Change) -> tuple[OpenEntry, ...]:
    return change.agents[0].open_entries


# --- the table: entries that are open, a word, and what becomes of both ---------------------------


@pytest.mark.parametrize(
    ("entries", "word", "taken", "stay"),
    [
        # `active` begins the entry that ends first.
        ([entry()], "active", 0, [begun()]),
        ([entry("answered")], "active", 0, [begun("answered")]),
        ([entry(), entry("cancelled")], "active", 1, [entry(), begun("cancelled")]),
        # An ending settles the entry that has begun.
        ([begun()], "idle", 0, []),
        ([begun()], "finished", 0, []),
        ([begun()], "error", 0, []),
        ([begun("answered")], "idle", 0, []),
        ([begun(), begun("cancelled")], "idle", 1, [begun()]),
        ([begun(), entry("cancelled")], "finished", 0, [entry("cancelled")]),
        # `idle` of an agent that has not begun is a heartbeat.
        ([entry()], "idle", None, [entry()]),
        ([entry("answered")], "idle", None, [entry("answered")]),
        # `finished` and `error` say of themselves that there was work: the attempt's.
        ([entry()], "finished", 0, []),
        ([entry(), entry("cancelled")], "error", 0, [entry("cancelled")]),
        ([entry("cancelled")], "error", 0, []),
        # The oldest of several attempts.
        ([begun(until=at(10)), begun(until=at(20))], "idle", 0, [begun(until=at(20))]),
        # Other words are no matter of work.
        ([begun()], "offline", None, [begun()]),
        ([begun()], "initializing", None, [begun()]),
        ([begun()], "unknown", None, [begun()]),
    ],
)
def test_report_without_id_is_taken_for_open_entry(
    entries: list[OpenEntry], word: str, taken: int | None, stay: list[OpenEntry]
) -> None:
    chosen, kept = settle(tuple(entries), StateWord(word), context(0))
    assert chosen == (None if taken is None else entries[taken])
    assert kept == tuple(stay)


def test_active_renews_the_attempt_that_is_still_worked_on() -> None:
    (one,) = settle((begun(until=at(3)),), StateWord.ACTIVE, context(2))[1]
    assert one.until == at(32)


def test_active_does_not_renew_an_echo() -> None:
    (one,) = settle((begun("answered"),), StateWord.ACTIVE, context(2))[1]
    assert one.until == at(5)


# --- the task in flight is not touched ------------------------------------------------------------


@pytest.mark.fault("F100")
@pytest.mark.parametrize("one", [dispatched(), accepted(), running()])
@pytest.mark.parametrize("word", ["active", "idle", "finished", "error"])
@pytest.mark.parametrize("first", [entry(), begun(), begun("answered"), entry("cancelled")])
def test_open_entry_shields_the_next_task(one: Task, word: str, first: OpenEntry) -> None:
    facts = agent_facts(one, agent=having(first))
    change = decide(facts, report(word, result="foreign"))
    assert not moves(change)


@pytest.mark.fault("F100")
@pytest.mark.parametrize("word", ["idle", "finished", "error"])
def test_ending_of_an_attempt_that_was_taken_back_is_late(word: str) -> None:
    change = decide(agent_facts(running(), agent=having(begun())), report(word))
    assert types(change.events) == ["agent.state", "task.late"]
    late = change.events[1]
    assert (late.task_id, late.session_id) == ("t0", "s0")
    assert late.data == {"stepId": "one", "attempt": 1, "said": word, "status": "unsettled"}
    assert left(change) == ()
    assert change.uncounted is not None


@pytest.mark.parametrize("kind", ["answered", "cancelled"])
def test_echo_is_history_that_says_what_it_was_taken_for(kind: str) -> None:
    change = decide(agent_facts(running(), agent=having(begun(kind))), report("idle"))
    assert types(change.events) == ["agent.state"]
    assert change.events[0].data["takenFor"] == kind
    assert change.events[0].data["takenForTask"] == "t0"


@pytest.mark.parametrize("word", ["idle", "finished"])
def test_entry_that_has_ended_shields_no_more(word: str) -> None:
    facts = agent_facts(running(), agent=having(begun("answered")))
    assert became(decide(facts, report(word), after=5)) == "completed"


def test_entry_of_the_task_in_flight_does_not_stand_in_its_way() -> None:
    again = running(attempt=2)
    facts = agent_facts(again, agent=having(entry(task_id=again.id), names_tasks=False))
    change = decide(facts, report("idle", result="mine"))
    assert became(change) == "completed"
    assert left(change) == (entry(task_id=again.id),)


@pytest.mark.fault("F100")
@pytest.mark.parametrize("kind", ["answered", "cancelled"])
def test_echo_of_an_earlier_attempt_does_not_complete_the_next_attempt(kind: str) -> None:
    again = running(attempt=2)
    facts = agent_facts(again, agent=having(begun(kind, task_id=again.id), names_tasks=False))
    change = decide(facts, report("idle"))
    assert not moves(change)
    assert left(change) == ()


# --- what opens an entry --------------------------------------------------------------------------


def cancelled(one: Task, who: Agent | None = None) -> Change:
    facts = replace(session_facts(one), agents=(who or agent(),))
    return cancel_session(facts, "enough", context(0, forwards=Forwards.PROVED))


@pytest.mark.parametrize("one", [dispatched(), accepted(), running()])
def test_cancelled_task_leaves_its_attempt_and_the_echo_of_the_cancel_open(one: Task) -> None:
    attempt, echo = left(cancelled(one))
    assert (attempt.kind, attempt.task_id, attempt.until) == (EntryKind.UNSETTLED, one.id, at(30))
    assert attempt.active is (one.active_at is not None)
    assert (echo.kind, echo.until, echo.active) == (EntryKind.CANCELLED, at(5), False)


def test_message_that_agentkit_is_not_known_to_deliver_opens_no_attempt() -> None:
    facts = replace(session_facts(accepted()), agents=(agent(),))
    change = cancel_session(facts, "enough", context(0, forwards=Forwards.DISPROVED))
    assert [one.kind for one in left(change)] == [EntryKind.CANCELLED]


def test_missed_run_deadline_leaves_the_attempt_open() -> None:
    change = on_task_due(task_facts(running()), context(290))
    (attempt,) = left(change)
    assert (attempt.kind, attempt.attempt, attempt.holds) == (EntryKind.UNSETTLED, 1, True)


@pytest.mark.parametrize(("names", "holds"), [(None, False), (False, True), (True, False)])
def test_lost_lease_holds_only_an_agent_known_to_name_no_tasks(
    names: bool | None, holds: bool
) -> None:
    change = on_task_due(task_facts(dispatched(), agent=agent(names_tasks=names)), context(15))
    (attempt,) = left(change)
    assert attempt.holds is holds


@pytest.mark.fault("F100")
def test_message_sent_directly_after_a_silent_forward_leaves_its_attempt_open() -> None:
    """The channel of the attempt before must not tell what becomes of this one."""
    again = claimed_task(task(attempt=1, via=Delivery.AGENTKIT), "a1", OWNER, at(0), at(15))
    facts = replace(session_facts(again), agents=(agent(),))
    change = cancel_session(facts, "enough", context(0, forwards=Forwards.DISPROVED))
    assert [one.kind for one in left(change)] == [EntryKind.UNSETTLED, EntryKind.CANCELLED]


def outcome(one: Task, what: Any, who: Agent | None = None, via: Delivery | None = None) -> Change:
    facts = task_facts(one, agent=who or agent())
    return on_outcome(
        facts, one.attempt, one.owner or OWNER, via or Delivery.DIRECT, what, context(0)
    )


def test_direct_answer_expects_an_echo() -> None:
    (echo,) = left(outcome(dispatched(), Answered(1)))
    assert (echo.kind, echo.until, echo.holds) == (EntryKind.ANSWERED, at(5), False)


def test_answer_through_agentkit_is_a_tools_and_expects_no_echo() -> None:
    assert left(outcome(dispatched(), Answered(1), via=Delivery.AGENTKIT)) == ()


def test_answer_that_comes_after_the_completion_expects_an_echo_too() -> None:
    done = task(status=TaskStatus.COMPLETED, attempt=1, agent_id=agent().id, owner=None)
    facts = task_facts(done)
    change = on_outcome(facts, 1, OWNER, Delivery.DIRECT, Answered(1), context(0))
    assert [one.kind for one in left(change)] == [EntryKind.ANSWERED]


def test_direct_message_of_unknown_fate_leaves_the_attempt_open() -> None:
    unknown = Failure(FailureCode.OUTCOME_UNKNOWN, "The connection broke.")
    (attempt,) = left(outcome(dispatched(), unknown))
    assert (attempt.kind, attempt.holds) == (EntryKind.UNSETTLED, True)


@pytest.mark.parametrize("code", [FailureCode.UNREACHABLE, FailureCode.UPSTREAM_ERROR])
def test_failure_that_is_an_answer_or_was_never_sent_leaves_nothing_open(code: FailureCode) -> None:
    change = outcome(dispatched(), Failure(code, "no"))
    assert all(not one.open_entries for one in change.agents)


@pytest.mark.fault("F121")
@pytest.mark.parametrize("via", [Delivery.AGENTKIT, Delivery.DIRECT])
@pytest.mark.parametrize("status", [408, 500, 502, 504])
def test_gateway_error_leaves_the_attempt_open_and_holds_agents_without_ids(
    status: int, via: Delivery
) -> None:
    """The agent may have the message: its late report must not end the next task."""
    failed = Failure(FailureCode.UPSTREAM_ERROR, "no", status=status)
    for names_tasks in (False, None, True):
        facts = task_facts(dispatched(via=via), agent=agent(names_tasks=names_tasks))
        ctx = context(0, mode=DispatchMode.AGENTKIT, forwards=Forwards.PROVED)
        change = on_outcome(facts, 1, OWNER, via, failed, ctx)
        assert [one.kind for one in left(change)] == [EntryKind.UNSETTLED]
        assert [one.holds for one in left(change)] == [names_tasks is False]


@pytest.mark.parametrize("status", [404, 405, 503])
def test_refusal_by_the_receiver_leaves_nothing_open(status: int) -> None:
    change = outcome(dispatched(), Failure(FailureCode.UPSTREAM_ERROR, "no", status=status))
    assert all(not one.open_entries for one in change.agents)


TOO_LARGE = Failure(FailureCode.REJECTED, "The agent's result is too large.", terminal=True)


@pytest.mark.parametrize("what", [Failure(FailureCode.AGENT_ERROR, "It failed."), TOO_LARGE])
def test_direct_answer_that_the_work_failed_expects_an_echo(what: Failure) -> None:
    (echo,) = left(outcome(dispatched(), what))
    assert (echo.kind, echo.until, echo.holds) == (EntryKind.ANSWERED, at(5), False)


def test_operators_result_leaves_the_attempt_of_an_agent_without_ids_open() -> None:
    who = agent(names_tasks=False)
    change = on_task_result(task_facts(running(), agent=who), TaskResult(True), context(0))
    assert became(change) == "completed"
    assert [one.kind for one in left(change)] == [EntryKind.UNSETTLED]


def test_precise_result_of_an_agent_leaves_nothing_open() -> None:
    said = TaskResult(True, attempt=1)
    change = on_task_result(task_facts(running(), agent=agent(names_tasks=False)), said, context(0))
    assert (left(change), change.agents[0].names_tasks) == ((), True)


# --- the grace ------------------------------------------------------------------------------------


def test_unsettled_attempt_holds_its_agent_with_a_reason_of_its_own() -> None:
    who = cancelled(running()).agents[0]
    hold = current_hold(who)
    assert slots(who) == 0
    assert hold is not None
    assert (hold.reason, hold.until) == (HoldReason.UNSETTLED_ATTEMPT, at(30))
    assert who.due_at == at(30)


@pytest.mark.fault("F100")
def test_agent_that_reads_the_cancel_after_its_work_is_held_until_it_has_echoed_it() -> None:
    """One that does one thing at a time ends its work first, and echoes the cancel then."""
    who = cancelled(running()).agents[0]
    who = decide(agent_facts(agent=who), report("idle"), after=20).agents[0]
    assert ([one.kind for one in who.open_entries], slots(who)) == ([EntryKind.CANCELLED], 0)
    assert who.due_at == at(25)
    who = decide(agent_facts(agent=who), report("active"), after=21).agents[0]
    who = decide(agent_facts(agent=who), report("idle"), after=21).agents[0]
    assert (who.open_entries, slots(who)) == ((), 1)


def test_hold_for_the_echo_of_a_cancel_ends_by_itself() -> None:
    who = cancelled(running()).agents[0]
    who = decide(agent_facts(agent=who), report("idle"), after=20).agents[0]
    change = on_agent_due(who, context(25))
    assert (slots(change.agents[0]), left(change)) == (1, ())


def test_agent_that_has_echoed_the_cancel_is_released_by_the_end_of_its_work() -> None:
    who = cancelled(running()).agents[0]
    for word in ("active", "idle"):
        who = decide(agent_facts(agent=who), report(word), after=1).agents[0]
    who = decide(agent_facts(agent=who), report("idle"), after=20).agents[0]
    assert (who.open_entries, slots(who)) == ((), 1)


def test_agent_that_names_its_tasks_is_not_held() -> None:
    who = cancelled(running(), agent(names_tasks=True)).agents[0]
    assert (slots(who), who.due_at) == (1, None)


def test_ending_releases_the_agent_at_once() -> None:
    who = cancelled(running()).agents[0]
    who = decide(agent_facts(agent=who), report("active")).agents[0]
    who = decide(agent_facts(agent=who), report("idle")).agents[0]
    who = decide(agent_facts(agent=who), report("finished")).agents[0]
    assert (slots(who), who.open_entries) == (1, ())


def test_hold_ends_by_itself_after_the_grace() -> None:
    who = cancelled(running()).agents[0]
    assert on_agent_due(who, context(29)) == Change()
    change = on_agent_due(who, context(30))
    assert (slots(change.agents[0]), left(change)) == (1, ())
    assert [event.data["reason"] for event in change.events] == ["unsettled_attempt"]


def test_agent_that_begins_to_name_tasks_is_released() -> None:
    who = having(entry())
    change = decide(naming(running(), agent=who), report("active", taskId=running().id))
    assert slots(change.agents[0]) == 1


def test_grace_of_zero_holds_nobody() -> None:
    facts = replace(session_facts(running()), agents=(agent(),))
    change = cancel_session(facts, "enough", context(0, unsettled_grace=seconds(0)))
    assert slots(change.agents[0]) == 1


# --- before the acceptance ------------------------------------------------------------------------


def early(*said: str, what: Outcome | None = None) -> Change:
    """How a message was answered of whose task this had been said without an id before."""
    one, who = dispatched(), agent()
    for n, word in enumerate(said):
        change = decide(agent_facts(one, agent=who), report(word, when=n, result=word))
        who = change.agents[0]
        one = change.tasks[0] if change.tasks else one
        assert one.status is TaskStatus.DISPATCHED
    facts = task_facts(one, agent=who)
    answer = what or Accepted()
    return on_outcome(facts, one.attempt, OWNER, Delivery.AGENTKIT, answer, context(2))


LOST = Failure(FailureCode.OUTCOME_UNKNOWN, "The answer was lost.")


@pytest.mark.fault("F123")
@pytest.mark.parametrize(
    ("said", "becomes"),
    [
        (["active"], "running"),
        (["active", "idle"], "completed"),
        (["active", "finished"], "completed"),
        (["finished"], "completed"),
        (["active", "error"], "delayed"),
        (["active", "error", "idle"], "delayed"),
        (["active", "finished", "idle"], "completed"),
    ],
)
def test_acceptance_decides_what_was_reported_before_it(said: list[str], becomes: str) -> None:
    assert became(early(*said)) == becomes
    assert became(early(*said, what=LOST)) == becomes


@pytest.mark.fault("F123")
def test_first_ending_before_the_acceptance_gives_the_result() -> None:
    change = early("active", "finished", "idle")
    assert change.tasks[0].result == "finished"


def test_idle_alone_before_the_acceptance_is_a_heartbeat() -> None:
    assert became(early("idle")) == "dispatched"
    assert became(early("idle", what=LOST)) == "queued"


def test_early_reports_end_with_their_attempt() -> None:
    change = early("active", "finished", what=Failure(FailureCode.UPSTREAM_ERROR, "no"))
    assert (became(change), change.tasks[0].early) == ("queued", None)


# --- probes ---------------------------------------------------------------------------------------


@pytest.mark.fault("F121")
@pytest.mark.parametrize("word", ["active", "idle", "finished", "error"])
def test_probe_is_moved_by_no_report_without_its_id(word: str) -> None:
    change = decide(agent_facts(running(is_probe=True)), report(word))
    assert not moves(change)


@pytest.mark.parametrize(("word", "becomes"), [("active", "running"), ("idle", "completed")])
def test_probe_is_moved_by_a_report_that_names_it(word: str, becomes: str) -> None:
    one = accepted(is_probe=True)
    assert became(decide(naming(one), report(word, taskId=one.id))) == becomes


@pytest.mark.parametrize(("endpoint", "is_probe"), [("http://127.0.0.1:9/", True), (None, False)])
def test_task_of_an_agent_without_another_way_is_no_probe(
    endpoint: str | None, is_probe: bool
) -> None:
    facts = task_facts(dispatched(), agent=agent(contact_endpoint=endpoint, names_tasks=False))
    ctx = context(0, forwards=Forwards.DISPROVED)
    change = on_outcome(facts, 1, OWNER, Delivery.AGENTKIT, Accepted(), ctx)
    assert change.tasks[0].is_probe is is_probe


# --- repetitions ----------------------------------------------------------------------------------


@pytest.mark.fault("F101")
def test_report_repeated_by_the_network_moves_nothing_after_the_next_task_began() -> None:
    """`active`, `finished` and `idle` of one moment, and then the same `finished` again."""
    said = [report(word, when=0, n=1) for word in ("active", "finished", "idle")]
    steps = session(step("one"), step("two"))
    who, one = agent(), accepted(session_id=steps.id)
    change = decide(agent_facts(one, session=steps, agent=who), said[0])
    who, one = change.agents[0], change.tasks[0]
    change = decide(agent_facts(one, session=steps, agent=who), said[1])
    assert became(change) == "completed"
    who = decide(agent_facts(agent=change.agents[0], session=steps), said[2]).agents[0]
    following = running(step_id="two", session_id=steps.id)
    again = decide(agent_facts(following, session=steps, agent=who), said[1])
    assert not moves(again)
    assert again.events[0].data["repeated"] is True


def test_the_newest_fifty_reports_are_remembered() -> None:
    who = agent()
    said = [report("idle", when=n) for n in range(52)]
    for one in said:
        who = decide(agent_facts(agent=who), one, after=60).agents[0]
    repeated = [
        "repeated" in decide(agent_facts(agent=who), one, after=60).events[0].data for one in said
    ]
    assert repeated == [False] * 2 + [True] * 50


# --- any order, any delay -------------------------------------------------------------------------

kinds = st.sampled_from(["unsettled", "answered", "cancelled"])
words = st.sampled_from(["active", "idle", "finished", "error", "offline", "?"])


@given(
    opened=st.lists(st.tuples(kinds, st.integers(0, 20)), max_size=4),
    said=st.lists(st.tuples(words, st.integers(0, 30)), max_size=12),
)
def test_no_report_moves_the_task_in_flight_while_an_entry_is_open(
    opened: list[tuple[str, int]], said: list[tuple[str, int]]
) -> None:
    entries = [
        entry(kind, task_id=f"t{n}", until=at(since + (30 if kind == "unsettled" else 5)))
        for n, (kind, since) in enumerate(opened)
    ]
    who, one = having(*entries), accepted(session_id=OTHER)
    for word, after in sorted(said, key=lambda pair: pair[1]):
        is_open = any(left.until > at(after) for left in who.open_entries)
        change = decide(agent_facts(one, agent=who), report(word), after=after)
        assert len(change.agents[0].open_entries) <= len(who.open_entries)
        if is_open:
            assert not moves(change)
        elif change.tasks:
            return
        who = change.agents[0]


@given(st.lists(st.integers(0, 400), max_size=60), st.integers(0, 400))
def test_digest_is_found_exactly_among_the_newest_fifty(said: list[int], asked: int) -> None:
    """Digests are joined into one text; a match across two of them is none."""
    remembered = ""
    for number in said:
        remembered = remember(f"{number:012d}", remembered)
    assert is_remembered(f"{asked:012d}", remembered) is (asked in said[::-1][:50])
