"""Looking through what is unfinished, a stretch of all records at a time."""

from itertools import islice

from opscore.models import Page, TaskFacts
from opscore.storage.cursors import time_cursor
from opscore.storage.memory.records import Records


def idle_sessions(records: Records, cursor: str | None, limit: int) -> Page[str]:
    def is_idle(session_id: str) -> bool:
        is_over = records.sessions[session_id].status.ended
        return not is_over and all(task.status.ended for task in records.tasks_of(session_id))

    found = list(islice(records.sessions_by_age.before(cursor), limit))
    last = records.sessions[found[-1]] if len(found) == limit else None
    next_cursor = time_cursor(last.created_at, last.id) if last else None
    return Page(tuple(one for one in found if is_idle(one)), next_cursor)


def unfinished_tasks(records: Records, cursor: str | None, limit: int) -> Page[TaskFacts]:
    found = [records.tasks[one] for one in islice(records.tasks_by_age.before(cursor), limit)]
    next_cursor = time_cursor(found[-1].created_at, found[-1].id) if len(found) == limit else None
    unfinished = (task for task in found if not task.status.ended)
    facts = (TaskFacts(task, records.sessions[task.session_id]) for task in unfinished)
    return Page(tuple(facts), next_cursor)
