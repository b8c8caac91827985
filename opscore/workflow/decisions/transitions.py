"""The transitions that tasks and sessions may make; everything else is a bug."""

from opscore.models import SessionStatus, TaskStatus

_TASK_ENDS = frozenset(
    {
        TaskStatus.COMPLETED,
        TaskStatus.FAILED,
        TaskStatus.TIMED_OUT,
        TaskStatus.CANCELLED,
    }
)

TASK_TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    TaskStatus.DELAYED: frozenset({TaskStatus.QUEUED}) | _TASK_ENDS,
    TaskStatus.QUEUED: frozenset({TaskStatus.DISPATCHED, TaskStatus.QUEUED}) | _TASK_ENDS,
    TaskStatus.DISPATCHED: frozenset({TaskStatus.RUNNING, TaskStatus.QUEUED, TaskStatus.DELAYED})
    | _TASK_ENDS,
    # Back to dispatched: the sign of life turned out to be of the agent's task before.
    TaskStatus.RUNNING: frozenset({TaskStatus.DISPATCHED, TaskStatus.QUEUED, TaskStatus.DELAYED})
    | _TASK_ENDS,
    **{status: frozenset[TaskStatus]() for status in TaskStatus if status.ended},
}

_SESSION_ENDS = frozenset(status for status in SessionStatus if status.ended)
_SESSION_LIVES = frozenset({SessionStatus.RUNNING, SessionStatus.WAITING})

SESSION_TRANSITIONS: dict[SessionStatus, frozenset[SessionStatus]] = {
    SessionStatus.PENDING: _SESSION_LIVES | _SESSION_ENDS,
    SessionStatus.RUNNING: frozenset({SessionStatus.WAITING}) | _SESSION_ENDS,
    SessionStatus.WAITING: frozenset({SessionStatus.RUNNING}) | _SESSION_ENDS,
    **{status: frozenset[SessionStatus]() for status in _SESSION_ENDS},
}


# Only an operator's retry makes these: it opens a failed session and the task it failed at again.
REOPENED_TASKS: dict[TaskStatus, TaskStatus] = {
    TaskStatus.FAILED: TaskStatus.QUEUED,
    TaskStatus.TIMED_OUT: TaskStatus.QUEUED,
    TaskStatus.CANCELLED: TaskStatus.QUEUED,
}
REOPENED_SESSIONS: dict[SessionStatus, SessionStatus] = {
    SessionStatus.FAILED: SessionStatus.WAITING,
    SessionStatus.TIMED_OUT: SessionStatus.WAITING,
}


class IllegalTransitionError(AssertionError):
    """A decision wanted a transition that the table does not have."""


def check_task(before: TaskStatus, after: TaskStatus, reopens: bool = False) -> None:
    if before is after or after in TASK_TRANSITIONS[before]:
        return
    if not (reopens and REOPENED_TASKS.get(before) is after):
        raise IllegalTransitionError(f"task: {before} to {after}")


def check_session(before: SessionStatus, after: SessionStatus, reopens: bool = False) -> None:
    if before is after or after in SESSION_TRANSITIONS[before]:
        return
    if not (reopens and REOPENED_SESSIONS.get(before) is after):
        raise IllegalTransitionError(f"session: {before} to {after}")
