"""Looking through sessions and tasks, a stretch of all records at a time."""

from itertools import islice

from opscore.models import Page, TaskFacts, TaskStatus
from opscore.storage.cursors import time_cursor
from opscore.storage.memory.records import Records


def odd_sessions(records: Records, cursor: str | None, limit: int) -> Page[str]:
    def is_odd(session_id: str) -> bool:
        is_over = records.sessions[session_id].status.ended
        return is_over is not all(task.status.ended for task in records.tasks_of(session_id))

    found = list(islice(records.sessions_by_age.before(cursor), limit))
    last = records.sessions[found[-1]] if len(found) == limit else None
    next_cursor = time_cursor(last.created_at, last.id) if last else None
    return Page(tuple(one for one in found if is_odd(one)), next_cursor)


def timed_tasks(records: Records, cursor: str | None, limit: int) -> Page[TaskFacts]:
    found = [records.tasks[one] for one in islice(records.tasks_by_age.before(cursor), limit)]
    next_cursor = time_cursor(found[-1].created_at, found[-1].id) if len(found) == limit else None
    timed = (task for task in found if task.status in _TIMED)
    facts = (TaskFacts(task, records.sessions[task.session_id]) for task in timed)
    return Page(tuple(facts), next_cursor)


_TIMED = (TaskStatus.DISPATCHED, TaskStatus.RUNNING, TaskStatus.DELAYED)
