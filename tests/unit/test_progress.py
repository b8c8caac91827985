"""Explanations of tasks at work and ended ones, and the actions of an operator on them."""

from typing import Any

import pytest

from opscore.models import Delivery, SessionStatus, Task, TaskFacts, TaskStatus
from opscore.workflow.progress import explain_progress, possible_actions
from opscore.workflow.queue import DeadlineKind, Reason
from tests.builders import (
    accepted,
    agent,
    at,
    dispatched,
    running,
    session,
    task,
    task_facts,
)

ADA = agent(name="Ada", last_seen_at=at(-2))


def about(one: Task, **changes: Any) -> TaskFacts:
    return task_facts(one, agent=ADA, **changes)


@pytest.mark.parametrize(
    ("one", "reason", "since", "kind", "until"),
    [
        (dispatched(), Reason.SENDING, at(-10), DeadlineKind.LEASE, at(15)),
        (accepted(), Reason.ACCEPTED, at(-9), DeadlineKind.START, at(1)),
        (running(), Reason.AT_WORK, at(-8), DeadlineKind.RUN, at(290)),
    ],
)
def test_task_at_work_names_agent_since_and_next_deadline(
    one: Task, reason: Reason, since: object, kind: DeadlineKind, until: object
) -> None:
    said = explain_progress(about(one))
    assert (said.reason.code, said.reason.since, said.reason.until) == (reason, since, until)
    assert "Ada" in said.reason.message
    assert said.work is not None
    assert (said.work.agent_id, said.work.agent_name, said.work.attempt) == ("a1", "Ada", 1)
    assert (said.work.since, said.work.agent_last_seen_at) == (at(-10), at(-2))
    assert said.work.next_deadline is not None
    assert (said.work.next_deadline.kind, said.work.next_deadline.at) == (kind, until)
    assert said.work.next_deadline.message.endswith(".")
    assert len(said.unblocked_by) == 2


@pytest.mark.parametrize(
    ("one", "who", "words"),
    [
        (running(), {"concurrency": 2}, "while it has several only a report that names the task"),
        (running(), {"concurrency": 2, "names_tasks": True}, "reports the end of the task."),
        (running(), {}, "reports the end of the task."),
        (accepted(is_probe=True), {}, "names it, since the task tests whether AgentKit delivers"),
    ],
)
def test_report_that_ends_the_task_is_described(one: Task, who: dict[str, Any], words: str) -> None:
    said = explain_progress(task_facts(one, agent=agent(**who)))
    assert words in said.unblocked_by[0]


def test_task_at_work_shows_its_last_sign_of_life() -> None:
    said = explain_progress(about(running(heartbeat_at=at(-1))))
    assert said.work is not None
    assert said.work.last_sign_of_life == at(-1)
    before = explain_progress(about(accepted())).work
    assert before is not None
    assert before.last_sign_of_life is None


def test_session_deadline_is_named_where_it_comes_first() -> None:
    said = explain_progress(about(running(), session=session(deadline_at=at(5))))
    assert said.work is not None
    assert said.work.next_deadline is not None
    assert said.work.next_deadline.kind is DeadlineKind.SESSION


def test_acceptance_says_who_took_the_task() -> None:
    by_agent = explain_progress(about(accepted(via=Delivery.DIRECT))).reason.message
    by_agentkit = explain_progress(about(accepted())).reason.message
    assert by_agent.startswith("Agent Ada accepted")
    assert by_agentkit.startswith("AgentKit, for agent Ada, accepted")


def test_task_of_forgotten_agent_shows_its_id() -> None:
    said = explain_progress(task_facts(running(), agent=None))
    assert said.work is not None
    assert said.work.agent_name == "a1"


def test_ended_task_does_not_wait() -> None:
    one = task(status=TaskStatus.FAILED, ended_at=at(-1))
    said = explain_progress(about(one))
    assert (said.reason.code, said.reason.since) == (Reason.NOT_WAITING, at(-1))
    assert said.reason.message == "The task does not wait: it is failed."
    assert (said.work, said.unblocked_by) == (None, ())


FAILED = session(status=SessionStatus.FAILED)


@pytest.mark.parametrize(
    ("one", "where", "calls"),
    [
        (task(), session(), ["/cancel"]),
        (task(status=TaskStatus.DELAYED), session(), ["/retry", "/cancel"]),
        (dispatched(), session(), ["/retry", "/cancel"]),
        (running(), session(), ["/retry", "/cancel"]),
        (task(status=TaskStatus.COMPLETED), FAILED, []),
        (task(status=TaskStatus.FAILED), FAILED, ["/retry"]),
        (task(status=TaskStatus.FAILED), session(), []),
    ],
)
def test_actions_are_those_that_an_operator_has_now(
    one: Task, where: Any, calls: list[str]
) -> None:
    actions = possible_actions(TaskFacts(one, where))
    assert len(actions) == len(calls)
    assert all(call in action for call, action in zip(calls, actions, strict=True))
