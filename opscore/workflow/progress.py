"""Explains tasks that do not wait, and lists the actions of an operator on any task. Pure."""

from opscore.models import Delivery, SessionStatus, Task, TaskFacts, TaskStatus
from opscore.workflow.queue import (
    Deadline,
    DeadlineKind,
    Explanation,
    PendingReason,
    Reason,
    Work,
)

_CONSEQUENCES = {
    DeadlineKind.LEASE: "Unless its dispatcher renews its lease by then, the task is queued again.",
    DeadlineKind.START: "Without a sign of life by then, the start of the attempt times out.",
    DeadlineKind.RUN: "Unless the attempt has ended by then, it times out.",
    DeadlineKind.SESSION: "Unless the session has ended by then, it times out and the task is "
    "cancelled.",
}


def explain_progress(facts: TaskFacts) -> Explanation:
    """Explain a task that does not wait: which agent has it, or that it has ended."""
    task = facts.task
    if task.status.ended:
        message = f"The task does not wait: it is {task.status.value}."
        return Explanation(
            PendingReason(Reason.NOT_WAITING, message, task.ended_at or task.waiting_since)
        )
    work = _work(facts)
    unblocked_by = [_ending(facts, work)]
    if work.next_deadline is not None:
        unblocked_by.append(
            f"Time passes until {work.next_deadline.at:%Y-%m-%dT%H:%M:%SZ}. "
            f"{work.next_deadline.message}"
        )
    return Explanation(_reason(task, work), unblocked_by=tuple(unblocked_by), work=work)


def _ending(facts: TaskFacts, work: Work) -> str:
    """Say which report ends the task, so that an operator sees why one without its id did not."""
    if facts.task.needs_agentkit:
        return "AgentKit answers for the tool."
    agent, report = facts.agent, f"Agent {work.agent_name} reports the end of the task"
    if facts.task.is_probe:
        return f"{report} and names it, since the task tests whether AgentKit delivers."
    if agent is not None and agent.concurrency > 1 and agent.names_tasks is not True:
        return (
            f"{report}. It has named no task so far, and while it has several only a report that "
            "names the task counts."
        )
    return f"{report}."


def _work(facts: TaskFacts) -> Work:
    task, agent = facts.task, facts.agent
    return Work(
        agent_id=task.agent_id,
        agent_name=agent.name if agent else task.agent_id,
        attempt=task.attempt,
        since=task.dispatched_at or task.waiting_since,
        last_sign_of_life=task.heartbeat_at or task.active_at,
        agent_last_seen_at=agent.last_seen_at if agent else None,
        next_deadline=_next_deadline(facts),
    )


def _next_deadline(facts: TaskFacts) -> Deadline | None:
    """Return the earliest deadline; a lease is renewed all the time, so it comes last."""
    task = facts.task
    moments = {
        DeadlineKind.START: task.start_deadline,
        DeadlineKind.RUN: task.run_deadline,
        DeadlineKind.SESSION: facts.session.deadline_at,
    }
    known = [(at, kind) for kind, at in moments.items() if at is not None]
    if not known and task.lease_until is not None:
        known = [(task.lease_until, DeadlineKind.LEASE)]
    if not known:
        return None
    at, kind = min(known)
    return Deadline(kind, at, _CONSEQUENCES[kind])


def _reason(task: Task, work: Work) -> PendingReason:
    until = work.next_deadline.at if work.next_deadline else None
    name, attempt = work.agent_name, f"attempt {task.attempt}"
    if task.needs_agentkit:
        message = f"AgentKit runs the tool {task.tool_name} for {attempt} of the task."
        return PendingReason(Reason.AT_WORK, message, work.since, until)
    if task.active_at is not None:
        message = f"Agent {name} works on {attempt} of the task."
        return PendingReason(Reason.AT_WORK, message, task.active_at, until)
    if task.accepted_at is None:
        message = f"The message of {attempt} is on its way to agent {name}; no answer has come yet."
        return PendingReason(Reason.SENDING, message, work.since, until)
    taker = f"Agent {name}" if task.via is Delivery.DIRECT else f"AgentKit, for agent {name},"
    message = f"{taker} accepted {attempt}; no sign of life has come from the agent yet."
    return PendingReason(Reason.ACCEPTED, message, task.accepted_at, until)


def possible_actions(facts: TaskFacts) -> tuple[str, ...]:
    """Return the calls by which an operator can move the task now, each in a sentence."""
    task, session = facts.task, facts.session
    retry, cancel = f"POST task/{task.id}/retry", f"POST task/{task.id}/cancel"
    end = f"{cancel} ends it as failed; its fallback or the end of its session follows."
    match task.status:
        case TaskStatus.QUEUED:
            return (end,)
        case TaskStatus.DELAYED:
            return (f"{retry} ends its delay now.", end)
        case TaskStatus.DISPATCHED | TaskStatus.RUNNING:
            return (f"{retry} takes it back and tries it again.", end)
    if task.status is TaskStatus.COMPLETED or session.status not in _REOPENABLE:
        return ()
    return (f"POST session/{session.id}/retry goes on from the task that the session failed at.",)


_REOPENABLE = frozenset({SessionStatus.FAILED, SessionStatus.TIMED_OUT})
