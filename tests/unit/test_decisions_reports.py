"""Which task a state report speaks of, and what it does to it."""

from typing import Any

import pytest

from opscore.models import (
    AgentFacts,
    Change,
    SessionStatus,
    StateReport,
    Task,
    TaskStatus,
)
from opscore.workflow.decisions import on_state_report
from opscore.workflow.decisions.report_contents import UNREADABLE_ATTEMPT, named_attempt, named_task
from tests.builders import (
    AGENT,
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

KEYS = ["opscore_task_id", "taskId", "task_id"]
ID = task().id
MOVING = {"active": "running", "finished": "completed", "idle": "completed", "error": "delayed"}


def decide(facts: AgentFacts, said: StateReport, after: float = 0, **changes: Any) -> Change:
    return on_state_report(facts, said, context(after, **changes))


# --- by id ------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(("word", "becomes"), MOVING.items())
def test_a_task_is_named_by_each_of_the_three_keys(key: str, word: str, becomes: str) -> None:
    change = decide(naming(accepted()), report(word, **{key: ID}))
    assert [one.id for one in change.tasks] == [ID]
    assert became(change) == becomes


@pytest.mark.parametrize(
    ("details", "task_id"),
    [
        ({}, None),
        ({"opscore_task_id": "a", "taskId": "b", "task_id": "c"}, "a"),
        ({"taskId": "b", "task_id": "c"}, "b"),
        ({"opscore_task_id": "", "task_id": "c"}, "c"),
        ({"opscore_task_id": None, "taskId": 7, "task_id": ["c"]}, None),
    ],
)
def test_the_first_key_that_holds_a_text_counts(
    details: dict[str, Any], task_id: str | None
) -> None:
    assert named_task(details) == task_id


@pytest.mark.parametrize(
    ("details", "attempt"),
    [
        ({}, None),
        ({"opscore_attempt": 2, "attempt": 3}, 2),
        ({"attempt": 3}, 3),
        ({"attempt": "3"}, 3),
        ({"attempt": None}, None),
        ({"attempt": True}, UNREADABLE_ATTEMPT),
        ({"attempt": "three"}, UNREADABLE_ATTEMPT),
        ({"attempt": "٣"}, UNREADABLE_ATTEMPT),
        ({"attempt": "9" * 400}, UNREADABLE_ATTEMPT),
        ({"opscore_attempt": 2.0, "attempt": 1}, UNREADABLE_ATTEMPT),
    ],
)
def test_attempt_is_whole_number_also_as_text(details: dict[str, Any], attempt: int | None) -> None:
    assert named_attempt(details) == attempt


@pytest.mark.parametrize("key", ["opscore_attempt", "attempt"])
@pytest.mark.parametrize("word", MOVING)
def test_F42_an_answer_of_an_earlier_attempt_is_late(word: str, key: str) -> None:
    second = running(attempt=2)
    details: dict[str, Any] = {"task_id": ID, key: 1}
    change = decide(naming(second), report(word, **details))
    assert not moves(change)
    assert types(change.events) == ["agent.state", "task.late"]
    late = change.events[1]
    assert (late.agent_id, late.task_id, late.session_id) == (AGENT, ID, second.session_id)
    assert late.data == {"stepId": "one", "attempt": 2, "said": word, "status": "running"}


@pytest.mark.parametrize(("word", "becomes"), MOVING.items())
def test_an_answer_of_the_present_attempt_counts(word: str, becomes: str) -> None:
    change = decide(naming(accepted(attempt=2)), report(word, task_id=ID, attempt=2))
    assert became(change) == becomes


@pytest.mark.parametrize("word", MOVING)
def test_what_another_agent_says_of_a_task_is_late(word: str) -> None:
    others = running(agent_id="a2")
    change = decide(naming(others), report(word, task_id=ID))
    assert change.tasks == ()
    assert types(change.events) == ["agent.state", "task.late"]
    assert [event.agent_id for event in change.events] == [AGENT, AGENT]
    assert change.events[0].task_id is None


@pytest.mark.parametrize("word", MOVING)
@pytest.mark.parametrize(
    "ended", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.TIMED_OUT, TaskStatus.CANCELLED]
)
def test_F43_a_report_after_the_end_changes_nothing(word: str, ended: TaskStatus) -> None:
    one = task(status=ended, attempt=1, agent_id=AGENT)
    change = decide(
        naming(one, session=session(status=SessionStatus.FAILED)), report(word, taskId=ID)
    )
    assert not moves(change)
    assert types(change.events) == ["agent.state", "task.late"]
    assert change.events[1].data["status"] == ended.value


@pytest.mark.parametrize("word", [*MOVING, "unknown"])
def test_an_unknown_id_leaves_the_task_in_flight_alone(word: str) -> None:
    change = decide(agent_facts(running()), report(word, task_id="no such task"))
    assert change.tasks == ()
    assert types(change.events) == ["agent.state"]


def test_an_id_picks_one_of_several_in_flight() -> None:
    first, second = running(), running(step_id="two")
    steps = session(step("one"), step("two"), step("three"))
    facts = agent_facts(first, second, named=second, session=steps, agent=agent(concurrency=2))
    change = decide(facts, report("finished", task_id=second.id))
    assert change.tasks[0].id == second.id
    assert change.tasks[0].status is TaskStatus.COMPLETED


@pytest.mark.parametrize("word", [*MOVING, "unknown"])
def test_without_an_id_several_in_flight_are_left_alone(word: str) -> None:
    facts = agent_facts(running(), running(step_id="two"))
    change = decide(facts, report(word))
    assert change.tasks == ()
    assert types(change.events) == ["agent.state"]


@pytest.mark.parametrize("word", ["initializing", "offline", "unknown", "napping"])
@pytest.mark.parametrize("by_id", [True, False])
def test_F50_other_words_move_no_task(word: str, by_id: bool) -> None:
    facts = naming(running()) if by_id else agent_facts(running())
    change = decide(facts, report(word, **({"taskId": ID} if by_id else {})))
    assert not moves(change)
    assert types(change.events) == ["agent.state"]


# --- without an id ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "becomes"), [("active", "running"), ("finished", "completed"), ("error", "delayed")]
)
@pytest.mark.parametrize("one", [accepted(), running()])
def test_without_an_id_the_one_task_in_flight_is_meant(one: Task, word: str, becomes: str) -> None:
    change = decide(agent_facts(one), report(word))
    assert became(change) == becomes
    assert change.events[0].task_id == ID
    assert change.events[0].session_id == one.session_id


TAKEN, ACTIVE = {"accepted_at": at(-5)}, {"active_at": at(-3)}


@pytest.mark.parametrize(
    ("one", "becomes"),
    [
        (dispatched(), None),
        (dispatched(**TAKEN), None),
        (running(active_at=at(-3), accepted_at=at(-5)), "completed"),
        # The acceptance was only written down after the agent had begun.
        (running(active_at=at(-5), accepted_at=at(-3)), "completed"),
    ],
)
@pytest.mark.parametrize("word", ["idle", "IDLE", " Idle "])
def test_F45_idle_without_an_id(one: Task, becomes: str | None, word: str) -> None:
    change = decide(agent_facts(one), report(word))
    assert became(change) == becomes
    assert ("task.completed" in types(change.events)) is (becomes == "completed")


@pytest.mark.parametrize("one", [dispatched(), accepted(), running()])
def test_F45_idle_with_an_id_completes_without_more_ado(one: Task) -> None:
    assert became(decide(naming(one), report("idle", taskId=ID))) == "completed"


def test_F45_idle_with_nothing_in_flight_is_history() -> None:
    change = decide(agent_facts(), report("idle"))
    assert change.tasks == ()
    assert types(change.events) == ["agent.state"]


# --- what completes, what fails ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("details", "result"),
    [
        ({"result": {"n": 1}}, {"n": 1}),
        ({"result": None, "more": 2}, None),
        ({"last_task_result": "ok"}, {"last_task_result": "ok"}),
        ({}, {}),
        ({"task_id": "", "attempt": 1}, {}),
        ({"taskId": ID, "attempt": 1, "n": 2}, {"n": 2}),
        ({"opscore_task_id": ID, "task_id": "x", "opscore_attempt": 1}, {}),
    ],
)
def test_the_result_is_in_the_details(details: dict[str, Any], result: Any) -> None:
    change = decide(naming(running()), report("finished", **{"taskId": ID, **details}))
    assert change.tasks[0].result == result
    assert change.sessions[0].results == {"one": result}


def test_without_an_id_the_details_are_all_the_agents_own() -> None:
    change = decide(agent_facts(running(attempt=2)), report("finished", attempt=1, n=2))
    assert (became(change), change.tasks[0].result) == ("completed", {"attempt": 1, "n": 2})


@pytest.mark.parametrize(
    ("details", "message", "error"),
    [
        ({"error": "boom"}, "boom", "boom"),
        ({"message": "boom"}, "boom", "boom"),
        ({"error": "first", "message": "second"}, "first", "first"),
        ({"error": {"message": "boom", "n": 1}}, "boom", {"message": "boom", "n": 1}),
        ({"error": {"n": 1}}, "The agent reported an error.", {"n": 1}),
        ({"error": {"message": 7}}, "The agent reported an error.", {"message": 7}),
        ({}, "The agent reported an error.", None),
        ({"error": "x" * 5000}, "x" * 4096, "x" * 5000),
    ],
)
def test_the_error_is_in_the_details(details: dict[str, Any], message: str, error: Any) -> None:
    change = decide(naming(running()), report("error", taskId=ID, **details))
    said = {"code": "agent_error", "message": message}
    assert change.tasks[0].error == (said if error is None else {**said, "error": error})


def test_active_marks_the_task_and_its_session_running() -> None:
    facts = naming(accepted(), session=session(status=SessionStatus.WAITING, started_at=None))
    change = decide(facts, report("active", taskId=ID), 3)
    one, where = change.tasks[0], change.sessions[0]
    assert (one.status, one.active_at, one.heartbeat_at) == (TaskStatus.RUNNING, at(3), at(3))
    assert one.start_deadline is None
    assert one.run_deadline == at(290)
    assert (where.status, where.started_at) == (SessionStatus.RUNNING, at(3))
    assert types(change.events) == ["agent.state", "task.running"]


@pytest.mark.parametrize("status", [SessionStatus.PENDING, SessionStatus.WAITING])
def test_a_session_that_has_started_keeps_its_start(status: SessionStatus) -> None:
    facts = naming(accepted(), session=session(status=status))
    assert decide(facts, report("active", taskId=ID)).sessions[0].started_at == at(-30)


def test_active_again_is_a_heartbeat() -> None:
    change = decide(naming(running()), report("active", taskId=ID), 3)
    one = change.tasks[0]
    assert (one.active_at, one.heartbeat_at, one.run_deadline) == (at(-8), at(3), at(290))
    assert change.sessions == ()
    assert types(change.events) == ["agent.state"]


def test_F37_heartbeats_never_move_the_run_deadline() -> None:
    one = running()
    for moment in range(0, 280, 20):
        one = decide(naming(one), report("active", taskId=ID), moment).tasks[0]
    assert one.run_deadline == one.due_at == at(290)
