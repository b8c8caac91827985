"""The checker of a chaos run finds each violation in a record that was tampered with."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from opscore.models import FallbackTask
from opscore.workflow.templates import parse_definition
from tests.load import chaos_checker
from tests.load.chaos_checker import RULES, violations
from tests.load.chaos_record import Ack, Post, Record, Work, load_record
from tests.load.chaos_workflows import FIXED, WORKFLOWS, definition, first, stand_in, successor

Item = dict[str, Any]


class Story:
    """Writes the record of a run, event by event."""

    def __init__(self) -> None:
        self.record = Record(answers={"202": 3, "503": 7, "409": 1, "ConnectError": 9})

    def session(self, workflow: str, status: str, number: int = 1) -> str:
        session_id, key = f"s{number}", f"trigger-{number}"
        self.record.sent.append(key)
        self.record.acks.append(Ack(key, session_id))
        self.record.sessions.append(
            {
                "sessionId": session_id,
                "workflowId": workflow,
                "status": status,
                "input": {"key": key},
            }
        )
        self.event("session.started", session_id)
        return session_id

    def task(self, session_id: str, step: str, status: str = "completed", **fields: Any) -> str:
        task_id = f"{session_id}-{step}"
        session = next(one for one in self.record.sessions if one["sessionId"] == session_id)
        task = {
            "taskId": task_id,
            "sessionId": session_id,
            "workflowId": session["workflowId"],
            "stepId": step,
            "standsFor": None,
            "status": status,
            "messageType": "workflow_task",
            "attempt": 0,
            "agentId": "a1",
            "parameters": {"step": step},
            "result": {"echo": {"step": step}} if status == "completed" else None,
        }
        self.record.tasks.append(task | fields)
        self.event("task.queued", session_id, task_id)
        return task_id

    def attempt(self, task_id: str) -> None:
        task = self.find(task_id)
        task["attempt"] += 1
        data = {"attempt": task["attempt"], "via": "agentkit"}
        post = Post("a1", task["messageType"], task["sessionId"], task_id, task["attempt"])
        self.record.posts.append(post)
        self.event("task.dispatched", task["sessionId"], task_id, agentId="a1", data=data)
        self.event("task.accepted", task["sessionId"], task_id, agentId="a1", data=data)

    def event(self, type_: str, session_id: str, task_id: str | None = None, **more: Any) -> None:
        self.record.events.append(
            {
                "seq": len(self.record.events) + 1,
                "type": type_,
                "sessionId": session_id,
                "taskId": task_id,
                "agentId": None,
                "data": {},
                **more,
            }
        )

    def complete(self, task_id: str) -> None:
        task = self.find(task_id)
        self.record.worked.append(Work("a1", task_id, task["attempt"], True))
        self.event("task.completed", self.find(task_id)["sessionId"], task_id)

    def find(self, task_id: str) -> Item:
        return next(task for task in self.record.tasks if task["taskId"] == task_id)


def told() -> Story:
    """Two sessions: one that fell back to another task, and one that was cancelled."""
    story = Story()
    session = story.session("stand-in", "completed")
    one = story.task(session, "one", "failed")
    story.attempt(one)
    story.event("task.fallback", session, one)
    spare = story.task(session, "spare", standsFor="one")
    story.attempt(spare)
    story.attempt(spare)
    story.complete(spare)
    story.record.counted.append(spare)
    two = story.task(session, "two")
    story.attempt(two)
    story.complete(two)
    story.event("session.completed", session)
    other = story.session("tool", "cancelled", 2)
    tool = story.task(other, "one", messageType="tool_invocation", result=3)
    story.attempt(tool)
    story.complete(tool)
    story.task(other, "two", "cancelled")
    story.record.cancelled.append(other)
    story.event("session.cancelled", other)
    return story


def test_tool_step_that_is_sent_in_the_name_of_any_agent_is_no_violation() -> None:
    story = told()
    story.record.received.append(Post("a2", "tool_invocation", "s2", "s2-one", 1))
    assert violations(story.record) == []


def test_a_sound_record_has_no_violations() -> None:
    assert violations(told().record) == []


def without_event(type_: str, task_id: str | None = None) -> Callable[[Story], object]:
    def drop(story: Story) -> None:
        events = story.record.events
        [found] = [
            event
            for event in events
            if event["type"] == type_ and task_id in (None, event["taskId"])
        ][-1:]
        events.remove(found)

    return drop


def without_task(task_id: str) -> Callable[[Story], object]:
    def drop(story: Story) -> None:
        story.record.tasks.remove(story.find(task_id))

    return drop


def changed(task_id: str, **fields: Any) -> Callable[[Story], object]:
    return lambda story: story.find(task_id).update(fields)


def session_changed(index: int, **fields: Any) -> Callable[[Story], object]:
    return lambda story: story.record.sessions[index].update(fields)


def early_successor(story: Story) -> None:
    story.record.events.sort(key=lambda event: event["taskId"] != "s1-two")
    for number, event in enumerate(story.record.events, start=1):
        event["seq"] = number


def another_session(story: Story) -> None:
    story.session("tool", "cancelled", 3)
    story.record.sessions[-1]["input"] = {"key": "trigger-1"}
    story.event("session.cancelled", "s3")
    story.task("s3", "one", "cancelled")


TAMPERED: dict[str, tuple[Callable[[Story], object], str]] = {
    "a trigger without an answer": (
        lambda story: story.record.acks.pop(),
        "The trigger trigger-2 was never acknowledged",
    ),
    "an acked session is gone": (
        lambda story: story.record.acks.append(Ack("trigger-1", "s9")),
        "The session s9 of the acknowledged trigger trigger-1 is lost",
    ),
    "one key, two answers": (
        lambda story: story.record.acks.append(Ack("trigger-1", "s2")),
        "The trigger trigger-1 was given several sessions: s1, s2",
    ),
    "one key, two sessions": (another_session, "The trigger trigger-1 made several sessions"),
    "a session nobody asked for": (
        session_changed(1, input={"key": "trigger-9"}),
        "Nobody asked for the session s2",
    ),
    "a session that never ends": (
        session_changed(0, status="waiting"),
        "The session s1 has not ended; it is waiting",
    ),
    "an end that the log does not know": (
        without_event("session.completed"),
        r"The session s1 is completed, its events say \[\]",
    ),
    "two ends": (
        lambda story: story.event("session.failed", "s1"),
        r"The session s1 is completed, its events say \['completed', 'failed'\]",
    ),
    "two beginnings": (
        lambda story: story.event("session.started", "s1"),
        "The session s1 was started 2 times",
    ),
    "a cancel that was taken back": (
        lambda story: story.record.cancelled.append("s1"),
        "The session s1 was cancelled, and is completed",
    ),
    "a task that outlives its session": (
        changed("s2-two", status="queued"),
        "The task s2-two of an ended session is queued",
    ),
    "a task without a session": (
        changed("s2-two", sessionId="s9"),
        "The task s2-two belongs to no session",
    ),
    "two completions": (
        lambda story: story.complete("s1-two"),
        "The task s1-two was completed 2 times",
    ),
    "a completion without its event": (
        without_event("task.completed", "s1-two"),
        "The task s1-two is completed with 0 completions",
    ),
    "a completion that the task forgot": (
        changed("s1-two", status="failed"),
        "The task s1-two is failed with 1 completions",
    ),
    "a result that counted twice": (
        lambda story: story.record.counted.append("s1-spare"),
        "The result of the task s1-spare was said to count 2 times",
    ),
    "a result that counted and is gone": (
        lambda story: story.record.counted.append("s1-one"),
        "The result of the task s1-one was said to count, and is lost",
    ),
    "somebody else's result": (
        changed("s1-two", result={"echo": {"step": "one"}}),
        "The task s1-two has a result that is not its own",
    ),
    "a fixed result without a fallback": (
        changed("s1-two", result=FIXED),
        "The task s1-two has a result that is not its own",
    ),
    "another tool's result": (
        changed("s2-one", result=4),
        "The task s2-one has a result that is not its own: 4",
    ),
    "no successor": (without_task("s1-two"), "The task two of the session s1 is missing"),
    "no stand-in": (without_task("s1-spare"), "The task spare of the session s1 is missing"),
    "a session without a task": (
        without_task("s2-one"),
        "The task one of the session s2 is missing",
    ),
    "a successor of nothing": (
        without_event("task.completed", "s1-spare"),
        "Nothing led to the task two of the session s1",
    ),
    "a stand-in for nothing": (
        without_event("task.fallback"),
        "Nothing led to the task spare of the session s1",
    ),
    "a successor before its turn": (
        early_successor,
        "The task s1-two of the session s1 began before its turn",
    ),
    "a session that completed too early": (
        without_event("task.completed", "s1-two"),
        "The session s1 is completed; last tasks done: 0",
    ),
    "a session that was never told": (
        session_changed(0, status="failed"),
        "The session s1 is failed; last tasks done: 1",
    ),
    "an attempt that was skipped": (
        without_event("task.dispatched", "s1-spare"),
        r"The task s1-spare has attempt 2, its events say \[1\]",
    ),
    "an attempt that came twice": (
        lambda story: story.record.events.append(
            {**story.record.events[2], "seq": len(story.record.events) + 1}
        ),
        r"The task s1-one has attempt 1, its events say \[1, 1\]",
    ),
    "a result of work on another task": (
        lambda story: story.record.worked.pop(1),
        "The task s1-two is completed, and no agent has worked on it",
    ),
    "an error of work on another task": (
        lambda story: story.event(
            "task.attempt_failed", "s1", "s1-two", data={"code": "agent_error"}
        ),
        "The task s1-two failed with an error that no agent had with it",
    ),
    "a message of no task": (
        lambda story: story.record.posts.append(Post("a1", "workflow_task", "s1", "t9", 1)),
        "The task t9 was sent and is not stored",
    ),
    "a message of another session": (
        lambda story: story.record.posts.append(Post("a1", "task_cancel", "s2", "s1-two", 1)),
        "The task s1-two was sent with the session s2",
    ),
    "a message of an attempt to come": (
        lambda story: story.record.posts.append(Post("a1", "workflow_task", "s1", "s1-two", 2)),
        "For the agent a1 attempt 2 of the task s1-two was sent, which is not stored",
    ),
    "a message of a tool's attempt to come": (
        lambda story: story.record.posts.append(Post("a2", "tool_invocation", "s2", "s2-one", 2)),
        "attempt 2 of the task s2-one was sent, which is not stored",
    ),
    "a message to another agent": (
        lambda story: story.record.received.append(Post("a2", "task_cancel", "s1", "s1-two", 1)),
        "For the agent a2 attempt 1 of the task s1-two was sent",
    ),
    "an attempt sent twice": (
        lambda story: story.record.posts.append(Post("a1", "workflow_task", "s1", "s1-two", 1)),
        "Attempt 1 of the task s1-two was sent 2 times",
    ),
    "an attempt never sent": (
        lambda story: story.record.posts.pop(),
        "Attempt 1 of the task s2-one was accepted and never sent",
    ),
    "a log that goes back": (
        lambda story: story.record.events[-1].update(seq=3),
        "The numbers of the event log do not rise",
    ),
    "a repair": (
        lambda story: story.event("storage.repaired", "s1", data={"found": "lease_lost"}),
        "The service had to repair what it had stored: .*lease_lost",
    ),
    "a death of its own": (
        lambda story: story.record.deaths.append("replica-1, status 1"),
        "A replica ended that nobody had killed: replica-1, status 1",
    ),
    "an error of the service": (
        lambda story: story.record.answers.update({"500": 2}),
        "2 requests were answered with 500",
    ),
    "a refusal of good input": (
        lambda story: story.record.answers.update({"422": 1}),
        "1 requests were answered with 422",
    ),
}


@pytest.mark.parametrize(("tamper", "sentence"), TAMPERED.values(), ids=TAMPERED)
def test_a_violation_is_found(tamper: Callable[[Story], object], sentence: str) -> None:
    story = told()
    tamper(story)
    found = violations(story.record)
    assert [one for one in found if re.search(sentence, one)], found


def test_each_rule_is_broken_once() -> None:
    """A rule that no tampered record breaks is one that nobody has seen at work."""
    broken = set()
    for tamper, _ in TAMPERED.values():
        story = told()
        tamper(story)
        look = chaos_checker._Look(story.record)
        broken |= {rule for rule in RULES if list(rule(look))}
    assert broken == set(RULES)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_workflows_are_valid_and_followed_as_the_checker_thinks(name: str) -> None:
    parsed = parse_definition(definition(name))
    assert first(name) == parsed.first().task_id
    for step in parsed.tasks:
        following = parsed.successor(step.task_id)
        expected = following.task_id if following else None
        assert successor(name, step.task_id, None) == expected
        spare = step.fallback.task_id if isinstance(step.fallback, FallbackTask) else None
        assert stand_in(name, step.task_id) == spare


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = told().record
    record.save(tmp_path / "record.json")
    assert load_record(tmp_path / "record.json") == record


def test_the_cancel_of_a_stored_attempt_is_no_second_message() -> None:
    story = told()
    story.record.posts.append(Post("a1", "task_cancel", "s1", "s1-one", 1))
    assert violations(story.record) == []


def test_heartbeat_completes_only_a_task_that_was_worked_on() -> None:
    story = told()
    two = story.find("s1-two")
    story.record.worked = [work for work in story.record.worked if work.task_id != "s1-two"]
    unworked = ["The task s1-two is completed, and no agent has worked on it to its end."]
    two["result"] = chaos_checker.HEARTBEAT
    assert violations(story.record) == unworked
    story.record.worked.append(Work("a1", "s1-two", 1, succeeded=False))
    assert violations(story.record) == []
    two["result"] = {"echo": two["parameters"]}
    assert violations(story.record) == unworked
