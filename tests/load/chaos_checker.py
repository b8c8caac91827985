"""The checker of a chaos run: what must hold of its record. Pure; each violation is a sentence."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tests.load.chaos_record import Post, Record
from tests.load.chaos_workflows import FIXED, TOOL_SUM, first, stand_in, successor

Item = dict[str, Any]

ENDINGS = {
    "session.completed": "completed",
    "session.failed": "failed",
    "session.cancelled": "cancelled",
    "session.timed_out": "timed_out",
}
ENDED = frozenset(ENDINGS.values())
# What an idle agent says from time to time; it may end a task whose last report was lost.
HEARTBEAT = {"heartbeat": True}


def violations(record: Record) -> list[str]:
    """Every rule that is broken, with the ids that show it; empty when all is well."""
    return [sentence for look in (_Look(record),) for rule in RULES for sentence in rule(look)]


class _Look:
    """The record, by the ids that the rules ask for."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.sessions = {item["sessionId"]: item for item in record.sessions}
        self.tasks = {item["taskId"]: item for item in record.tasks}
        self.session_tasks: dict[str, list[Item]] = defaultdict(list)
        for task in record.tasks:
            self.session_tasks[task["sessionId"]].append(task)
        self._of_session: dict[str, list[Item]] = defaultdict(list)
        self._of_task: dict[str, list[Item]] = defaultdict(list)
        for event in sorted(record.events, key=lambda event: int(event["seq"])):
            self._of_session[event["sessionId"]].append(event)
            self._of_task[event["taskId"]].append(event)

    def session_events(self, session_id: str, *types: str) -> list[Item]:
        return [event for event in self._of_session[session_id] if event["type"] in types]

    def task_events(self, task_id: str, *types: str) -> list[Item]:
        return [event for event in self._of_task[task_id] if event["type"] in types]

    def completed(self, task: Item) -> bool:
        return bool(self.task_events(task["taskId"], "task.completed"))

    def attempts(self, task_id: str) -> dict[int, str]:
        """Which agent was given which attempt."""
        dispatched = self.task_events(task_id, "task.dispatched")
        return {event["data"]["attempt"]: event["agentId"] for event in dispatched}


# --- triggers and sessions --------------------------------------------------------------------


def nothing_acked_is_lost(look: _Look) -> Iterator[str]:
    acked: dict[str, set[str]] = defaultdict(set)
    for ack in look.record.acks:
        acked[ack.key].add(ack.session_id)
    for key in look.record.sent:
        if key not in acked:
            yield f"The trigger {key} was never acknowledged."
    for key, session_ids in acked.items():
        if len(session_ids) > 1:
            yield f"The trigger {key} was given several sessions: {_ids(session_ids)}."
        for session_id in session_ids - look.sessions.keys():
            yield f"The session {session_id} of the acknowledged trigger {key} is lost."


def each_trigger_has_one_session(look: _Look) -> Iterator[str]:
    made: dict[str, list[str]] = defaultdict(list)
    for session in look.record.sessions:
        made[str(session["input"].get("key"))].append(session["sessionId"])
    for key, session_ids in made.items():
        if len(session_ids) > 1:
            yield f"The trigger {key} made several sessions: {_ids(session_ids)}."
        if key not in look.record.sent:
            yield f"Nobody asked for the session {_ids(session_ids)} of the trigger {key}."


def each_session_ends_once(look: _Look) -> Iterator[str]:
    for session_id, session in look.sessions.items():
        status = session["status"]
        if status not in ENDED:
            yield f"The session {session_id} has not ended; it is {status}."
        endings = [ENDINGS[event["type"]] for event in look.session_events(session_id, *ENDINGS)]
        if status in ENDED and endings != [status]:
            yield f"The session {session_id} is {status}, its events say {endings}."
        begun = look.session_events(session_id, "session.started")
        if len(begun) != 1:
            yield f"The session {session_id} was started {len(begun)} times."


def what_is_said_to_be_cancelled_is(look: _Look) -> Iterator[str]:
    for session_id in look.record.cancelled:
        session = look.sessions.get(session_id)
        if session is not None and session["status"] != "cancelled":
            yield f"The session {session_id} was cancelled, and is {session['status']}."


def ended_sessions_have_no_open_task(look: _Look) -> Iterator[str]:
    for task in look.record.tasks:
        session = look.sessions.get(task["sessionId"])
        if session is None:
            yield f"The task {task['taskId']} belongs to no session."
        elif session["status"] in ENDED and task["status"] not in (*ENDED, "timed_out"):
            yield f"The task {task['taskId']} of an ended session is {task['status']}."


# --- completions and what follows -------------------------------------------------------------


def a_completion_counts_once(look: _Look) -> Iterator[str]:
    told = Counter(look.record.counted)
    for task_id, task in look.tasks.items():
        count = len(look.task_events(task_id, "task.completed"))
        if count > 1:
            yield f"The task {task_id} was completed {count} times."
        if (task["status"] == "completed") != (count > 0):
            yield f"The task {task_id} is {task['status']} with {count} completions."
        if told[task_id] > 1:
            yield f"The result of the task {task_id} was said to count {told[task_id]} times."
    for task_id in told:
        if task_id not in look.tasks or not look.completed(look.tasks[task_id]):
            yield f"The result of the task {task_id} was said to count, and is lost."


def a_result_is_its_own_tasks(look: _Look) -> Iterator[str]:
    for task_id, task in look.tasks.items():
        if task["status"] != "completed":
            continue
        expected: list[Any] = [{"echo": task["parameters"]}, HEARTBEAT]
        if task["messageType"] == "tool_invocation":
            expected = [TOOL_SUM]
        if look.task_events(task_id, "task.fallback"):
            expected.append(FIXED)
        if task["agentId"] in look.record.nameless:
            # Such an agent reports the end of its work without a result.
            expected.append({})
        if task["result"] not in expected:
            yield f"The task {task_id} has a result that is not its own: {task['result']}."


def a_result_was_worked_for(look: _Look) -> Iterator[str]:
    """The ledgers of the agents have the work for each completion and each reported error.

    A heartbeat says that work has ended, not how: some agents say nothing of a failure.
    """
    worked = {(work.task_id, work.succeeded) for work in look.record.worked}
    ended = {work.task_id for work in look.record.worked}
    for task_id, task in look.tasks.items():
        if task["messageType"] == "tool_invocation":
            continue
        fell_back = look.task_events(task_id, "task.fallback")
        by_heartbeat = task["result"] == HEARTBEAT and task_id in ended
        worked_for = fell_back or by_heartbeat or (task_id, True) in worked
        if task["status"] == "completed" and not worked_for:
            yield f"The task {task_id} is completed, and no agent has worked on it to its end."
        for event in look.task_events(task_id, "task.attempt_failed"):
            if event["data"]["code"] == "agent_error" and (task_id, False) not in worked:
                yield f"The task {task_id} failed with an error that no agent had with it."


def a_successor_follows_a_completion(look: _Look) -> Iterator[str]:
    """Both ways: each task that another leads to is there exactly when the other one ended so."""
    for session_id, session in look.sessions.items():
        tasks = look.session_tasks[session_id]
        workflow = session["workflowId"]
        expected = Counter([(first(workflow), None), *_led_to(look, workflow, tasks)])
        there = Counter((task["stepId"], task["standsFor"]) for task in tasks)
        for step_id, _ in expected - there:
            yield f"The task {step_id} of the session {session_id} is missing."
        for step_id, _ in there - expected:
            yield f"Nothing led to the task {step_id} of the session {session_id}."


def _led_to(look: _Look, workflow: str, tasks: list[Item]) -> Iterator[tuple[str, str | None]]:
    for task in tasks:
        step_id, stands_for = task["stepId"], task["standsFor"]
        following = successor(workflow, step_id, stands_for)
        if look.completed(task) and following is not None:
            yield following, None
        spare = stand_in(workflow, step_id)
        fallen_back = look.task_events(task["taskId"], "task.fallback")
        if spare is not None and fallen_back:
            yield spare, stands_for or step_id


def a_successor_comes_later(look: _Look) -> Iterator[str]:
    for session_id, tasks in look.session_tasks.items():
        by_step = {task["stepId"]: task["taskId"] for task in tasks}
        for task in tasks:
            following = successor(task["workflowId"], task["stepId"], task["standsFor"])
            after = by_step.get(following or "", "")
            ended = look.task_events(task["taskId"], "task.completed")
            begun = look.task_events(after, "task.queued", "task.delayed")
            if ended and begun and begun[0]["seq"] < ended[0]["seq"]:
                yield f"The task {after} of the session {session_id} began before its turn."


def a_session_completes_with_its_last_task(look: _Look) -> Iterator[str]:
    for session_id, session in look.sessions.items():
        workflow = session["workflowId"]
        last = [
            task
            for task in look.session_tasks[session_id]
            if look.completed(task)
            and successor(workflow, task["stepId"], task["standsFor"]) is None
        ]
        if (session["status"] == "completed") != bool(last):
            yield f"The session {session_id} is {session['status']}; last tasks done: {len(last)}."


# --- attempts and messages --------------------------------------------------------------------


def attempts_rise(look: _Look) -> Iterator[str]:
    for task_id, task in look.tasks.items():
        dispatched = look.task_events(task_id, "task.dispatched")
        attempts = [event["data"]["attempt"] for event in dispatched]
        if attempts != list(range(1, task["attempt"] + 1)):
            yield f"The task {task_id} has attempt {task['attempt']}, its events say {attempts}."


def each_message_is_stored(look: _Look) -> Iterator[str]:
    for post in (*look.record.posts, *look.record.received):
        task = look.tasks.get(post.task_id)
        if task is None:
            yield f"The task {post.task_id} was sent and is not stored."
        elif task["sessionId"] != post.session_id:
            yield f"The task {post.task_id} was sent with the session {post.session_id}."
        elif not _is_stored(look, task, post):
            which = f"attempt {post.attempt} of the task {post.task_id}"
            yield f"For the agent {post.agent_id} {which} was sent, which is not stored."


def _is_stored(look: _Look, task: Item, post: Post) -> bool:
    """A tool step is claimed without an agent; its message names one for AgentKit's sake."""
    attempts = look.attempts(post.task_id)
    if task["messageType"] == "tool_invocation":
        return post.attempt in attempts
    return attempts.get(post.attempt) == post.agent_id


def each_attempt_is_sent_once(look: _Look) -> Iterator[str]:
    sent = Counter(
        (post.task_id, post.attempt)
        for post in look.record.posts
        if post.message_type != "task_cancel"
    )
    for (task_id, attempt), count in sent.items():
        if count > 1:
            yield f"Attempt {attempt} of the task {task_id} was sent {count} times."
    for task_id in look.tasks:
        for event in look.task_events(task_id, "task.accepted"):
            attempt = event["data"]["attempt"]
            if event["data"].get("via") == "agentkit" and not sent[task_id, attempt]:
                yield f"Attempt {attempt} of the task {task_id} was accepted and never sent."


# --- the log and the answers ------------------------------------------------------------------


def the_log_is_in_order(look: _Look) -> Iterator[str]:
    numbers = [int(event["seq"]) for event in look.record.events]
    if any(later <= earlier for earlier, later in pairwise(numbers)):
        yield "The numbers of the event log do not rise."


def nothing_had_to_be_repaired(look: _Look) -> Iterator[str]:
    for event in look.record.events:
        if event["type"] == "storage.repaired":
            yield f"The service had to repair what it had stored: {event['data']}."


def no_answer_is_an_accident(look: _Look) -> Iterator[str]:
    """Nobody sent bad input: an error that is no 'try again' is one of the service."""
    for status, count in look.record.answers.items():
        if status.isdigit() and int(status) >= 400 and status not in ("409", "429", "503"):
            yield f"{count} requests were answered with {status}."


def no_replica_ends_by_itself(look: _Look) -> Iterator[str]:
    for death in look.record.deaths:
        yield f"A replica ended that nobody had killed: {death}."


def _ids(session_ids: set[str] | list[str]) -> str:
    return ", ".join(sorted(session_ids))


RULES = (
    nothing_acked_is_lost,
    each_trigger_has_one_session,
    each_session_ends_once,
    what_is_said_to_be_cancelled_is,
    ended_sessions_have_no_open_task,
    a_completion_counts_once,
    a_result_is_its_own_tasks,
    a_result_was_worked_for,
    a_successor_follows_a_completion,
    a_successor_comes_later,
    a_session_completes_with_its_last_task,
    attempts_rise,
    each_message_is_stored,
    each_attempt_is_sent_once,
    the_log_is_in_order,
    nothing_had_to_be_repaired,
    no_answer_is_an_accident,
    no_replica_ends_by_itself,
)
