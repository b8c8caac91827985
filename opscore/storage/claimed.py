"""What a claim makes of a task; the same in every store. Pure."""

from dataclasses import replace
from datetime import datetime

from opscore.models import Event, EventType, Task, TaskStatus


def claimed_task(
    task: Task, agent_id: str | None, owner: str, now: datetime, lease_until: datetime
) -> Task:
    return replace(
        task,
        status=TaskStatus.DISPATCHED,
        attempt=task.attempt + 1,
        agent_id=agent_id,
        owner=owner,
        lease_until=lease_until,
        # The channel of the attempt before says nothing of this one.
        via=None,
        # The claim may have begun before the task was queued, and waited for the storage.
        dispatched_at=max(now, task.waiting_since),
        rev=task.rev + 1,
    )


def dispatched_event(task: Task) -> Event:
    """Return the event of a task as its claim left it."""
    return Event(
        EventType.TASK_DISPATCHED,
        task.dispatched_at or task.waiting_since,
        agent_id=task.agent_id,
        session_id=task.session_id,
        task_id=task.id,
        data={"stepId": task.step_id, "attempt": task.attempt, "owner": task.owner},
    )
