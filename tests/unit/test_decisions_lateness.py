"""Reports that come late, twice, out of order, or after an attempt that ended in doubt."""

from dataclasses import replace
from typing import Any

import pytest

from opscore.models import (
    AgentFacts,
    AgentState,
    Change,
    Delivery,
    FallbackResult,
    SessionStatus,
    StateReport,
    StateWord,
    Task,
    TaskStatus,
)
from opscore.workflow.decisions import on_state_report
from tests.builders import (
    AGENT,
    NOW,
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
    session,
    step,
    task,
    types,
)

ID = task().id
MOVING = {"active": "running", "finished": "completed", "idle": "completed", "error": "delayed"}


def decide(facts: AgentFacts, said: StateReport, after: float = 0, **changes: Any) -> Change:
    return on_state_report(facts, said, context(after, **changes))


# --- after an end in doubt ---------------------------------------------------------------------


def given_up(code: str, **changes: Any) -> Task:
    values = {"status": TaskStatus.DELAYED, "delayed_until": at(5), "attempt": 1}
    return task(**{**values, "agent_id": AGENT, "error": {"code": code}, **changes})


@pytest.mark.parametrize("code", ["start_timeout", "run_timeout", "outcome_unknown", "lease_lost"])
@pytest.mark.parametrize("waiting", [TaskStatus.DELAYED, TaskStatus.QUEUED])
@pytest.mark.parametrize("word", ["finished", "idle"])
def test_a_success_counts_until_the_next_attempt_begins(
    code: str, waiting: TaskStatus, word: str
) -> None:
    change = decide(naming(given_up(code, status=waiting)), report(word, taskId=ID))
    assert became(change) == "completed"
    assert change.tasks[0].error is None
    assert change.sessions[0].status is SessionStatus.COMPLETED


@pytest.mark.parametrize("word", ["active", "error"])
def test_after_doubt_anything_but_a_success_is_late(word: str) -> None:
    change = decide(naming(given_up("run_timeout")), report(word, taskId=ID))
    assert not moves(change)
    assert types(change.events) == ["agent.state", "task.late"]
    assert change.events[1].data["said"] == word


@pytest.mark.parametrize(
    "one",
    [
        given_up("agent_error"),
        given_up("upstream_error"),
        given_up("run_timeout", agent_id="a2"),
        given_up("run_timeout", attempt=2),
        task(),
    ],
)
def test_a_success_that_nobody_waits_for_is_late(one: Task) -> None:
    change = decide(naming(one), report("finished", taskId=ID, attempt=1))
    assert not moves(change)
    assert types(change.events) == ["agent.state", "task.late"]


# --- error, then idle --------------------------------------------------------------------------


def test_error_then_idle_of_one_task_is_no_completion() -> None:
    facts = naming(running())
    failed = decide(facts, report("error", taskId=ID)).tasks[0]
    assert failed.status is TaskStatus.DELAYED
    change = decide(naming(failed), report("idle", taskId=ID))
    assert change.tasks == ()
    assert types(change.events) == ["agent.state"]


SECOND = {"attempt": 2, "error": {"code": "agent_error"}}


@pytest.mark.parametrize(
    ("one", "details", "becomes"),
    [
        (dispatched(**SECOND), {}, None),
        (accepted(**SECOND), {}, None),
        (running(**SECOND), {}, "completed"),
        (accepted(**SECOND), {"attempt": 2}, "completed"),
        (accepted(**SECOND), {"attempt": 1}, None),
        (accepted(attempt=2, error={"code": "run_timeout"}), {}, "completed"),
    ],
)
def test_idle_after_an_error_counts_once_it_is_clear_that_it_is_of_the_new_attempt(
    one: Task, details: dict[str, Any], becomes: str | None
) -> None:
    assert became(decide(naming(one), report("idle", taskId=ID, **details))) == becomes


def test_finished_after_an_error_needs_no_more() -> None:
    assert became(decide(naming(accepted(**SECOND)), report("finished", taskId=ID))) == "completed"


# --- twice -------------------------------------------------------------------------------------


def told(facts: AgentFacts, change: Change) -> AgentFacts:
    """The facts after the change, the next step of the session being in flight."""
    return replace(facts, agent=change.agents[0])


@pytest.mark.parametrize("word", ["finished", "error", "active", "idle"])
@pytest.mark.parametrize("by_id", [True, False])
def test_F40_a_report_that_comes_twice_moves_nothing_more(word: str, by_id: bool) -> None:
    steps = session(step("one"), step("two"))
    details = {"taskId": ID} if by_id else {}
    said = report(word, when=-1, **details)
    first = decide(agent_facts(running(), session=steps, named=running()), said)
    following = accepted(step_id="two", session_id=steps.id)
    again = naming(running(attempt=2)) if by_id else agent_facts(following, session=steps)
    second = decide(told(again, first), said, 1)
    assert not moves(second)
    assert types(second.events) == ["agent.state"]
    assert second.events[0].data["repeated"] is True
    assert second.agents[0].state == first.agents[0].state
    assert second.agents[0].hold == first.agents[0].hold


@pytest.mark.parametrize(
    "other",
    [
        report("finished", when=-1, n=2),
        report("FINISHED", when=-1, n=1),
        report("finished", when=0, n=1),
        report("finished", n=1),
    ],
)
def test_a_report_that_differs_is_no_repetition(other: StateReport) -> None:
    newest = AgentState("finished", StateWord.FINISHED, {"n": 1}, at(-1), NOW)
    change = decide(agent_facts(running(), agent=agent(state=newest)), other)
    assert became(change) == "completed"


def test_F40_a_doubled_error_of_a_task_does_not_put_the_agent_aside() -> None:
    failed = decide(naming(running()), report("error", taskId=ID)).tasks[0]
    change = decide(naming(failed), report("error", taskId=ID))
    assert change.tasks == ()
    assert types(change.events) == ["agent.state", "task.late"]
    assert change.agents[0].hold is None


# --- out of order ------------------------------------------------------------------------------

NEWEST = AgentState("active", StateWord.ACTIVE, {}, at(-1), at(-1))


@pytest.mark.parametrize(("word", "becomes"), MOVING.items())
def test_F41_what_an_old_report_says_of_a_task_by_id_still_counts(word: str, becomes: str) -> None:
    change = decide(
        naming(accepted(), agent=agent(state=NEWEST)), report(word, when=-61, taskId=ID)
    )
    assert became(change) == becomes
    assert change.agents[0].state == NEWEST
    assert change.events[0].data["outOfOrder"] is True


@pytest.mark.parametrize("word", MOVING)
def test_F41_without_an_id_an_old_report_moves_nothing(word: str) -> None:
    change = decide(agent_facts(running(), agent=agent(state=NEWEST)), report(word, when=-2))
    assert change.tasks == ()
    assert types(change.events) == ["agent.state"]


# --- what is learned of AgentKit's forwards ----------------------------------------------------


@pytest.mark.parametrize(
    ("one", "said", "proved"),
    [
        (accepted(), report("active", taskId=ID), True),
        (accepted(), report("finished", taskId=ID), True),
        (accepted(), report("error", taskId=ID), True),
        (accepted(), report("initializing", taskId=ID), True),
        (accepted(), report("active"), True),
        (running(), report("idle"), True),
        (accepted(), report("idle"), None),
        (accepted(), report("napping"), None),
        (accepted(via=Delivery.DIRECT), report("active", taskId=ID), None),
        (dispatched(via=Delivery.AGENTKIT), report("active", taskId=ID), None),
        (accepted(attempt=2), report("active", taskId=ID, attempt=1), None),
        (accepted(agent_id="a2"), report("active", taskId=ID), None),
    ],
)
def test_a_sign_of_life_after_an_accepted_forward_proves_forwards(
    one: Task, said: StateReport, proved: bool | None
) -> None:
    assert (decide(naming(one), said).observation is not None) is bool(proved)


def test_F31_a_failure_that_exhausts_its_task_falls_back() -> None:
    steps = session(step("one", fallback=FallbackResult("spare")))
    change = decide(naming(running(retries=3), session=steps), report("error", taskId=ID))
    assert (change.tasks[0].result, change.sessions[0].output) == ("spare", "spare")
