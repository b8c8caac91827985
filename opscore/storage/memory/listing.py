"""Lists: records in the order of their making, read by cursor while others write."""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from typing import TypeVar

from opscore.models import SessionFilter, Task, TaskFilter, WorkflowSession
from opscore.storage.cursors import time_place
from opscore.storage.matching import contains

T = TypeVar("T")
Key = tuple[datetime, str]


class NewestFirst:
    """The keys of records, sorted. Keys of forgotten records are swept out now and then."""

    def __init__(self, alive: Collection[str]) -> None:
        self._alive = alive
        self._keys: list[Key] = []

    def add(self, created_at: datetime, record_id: str) -> None:
        insort(self._keys, (created_at, record_id))

    def before(self, cursor: str | None) -> Iterator[str]:
        end = len(self._keys) if cursor is None else bisect_left(self._keys, time_place(cursor))
        for position in range(end - 1, -1, -1):
            record_id = self._keys[position][1]
            if record_id in self._alive:
                yield record_id

    def sweep(self) -> None:
        if len(self._keys) > 2 * len(self._alive) + 1000:
            self._keys = [key for key in self._keys if key[1] in self._alive]


def newest_first(tasks: Iterable[Task], cursor: str | None) -> list[Task]:
    """A few tasks sorted on the spot, those before the cursor."""
    end = None if cursor is None else time_place(cursor)
    before = (task for task in tasks if end is None or (task.created_at, task.id) < end)
    return sorted(before, key=lambda task: (task.created_at, task.id), reverse=True)


def session_matches(where: SessionFilter, session: WorkflowSession) -> bool:
    return (
        (not where.statuses or session.status in where.statuses)
        and (where.workflow_id is None or session.workflow_id == where.workflow_id)
        and (where.agent_id is None or session.agent_id == where.agent_id)
        and contains(where.search, session.id, session.workflow_id, session.definition.name or "")
    )


def task_matches(where: TaskFilter, task: Task) -> bool:
    return (
        (not where.statuses or task.status in where.statuses)
        and (where.session_id is None or task.session_id == where.session_id)
        and (where.agent_id is None or task.agent_id == where.agent_id)
        and (where.workflow_id is None or task.workflow_id == where.workflow_id)
    )
