"""Lanes: the queues of waiting tasks, and the agents that are free to serve them.

A lane with a task and a free agent is offered: its most urgent task stands on a board beside
those of other lanes. A claim looks at the top of the board only, so that a million tasks
waiting for busy agents cost it nothing, and ten thousand lanes little.
"""

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import takewhile

from opscore.models import Agent, Task, TaskStatus
from opscore.storage.memory.lazy_heap import LazyHeap
from opscore.storage.ordering import FairTurns, lanes_of, urgency

Place = tuple[int, int]
TaskEntry = tuple[int, int, str]
FreeEntry = tuple[int, str]
LevelKey = tuple[bool, int]
Head = tuple[datetime, TaskEntry, LevelKey]


_COUNTED_TO = 10_000


class Level:
    """The tasks of one lane that have the same priority and the same choice of routes."""

    def __init__(self, holds: Callable[[TaskEntry], bool]) -> None:
        self.queue: LazyHeap[TaskEntry] = LazyHeap(holds)
        self.turns = FairTurns()
        self.waiting = 0


class Lane:
    def __init__(self, holds: Callable[[FreeEntry], bool]) -> None:
        self.levels: dict[LevelKey, Level] = {}
        self.free: LazyHeap[FreeEntry] = LazyHeap(holds)

    @property
    def waiting(self) -> int:
        return sum(level.waiting for level in self.levels.values())


class Lanes:
    """Keeps only ids; `task_of` and `free_agent` look into the store."""

    def __init__(
        self, task_of: Callable[[str], Task | None], free_agent: Callable[[str], Agent | None]
    ) -> None:
        self._task_of = task_of
        self._free_agent = free_agent
        self._lanes: dict[str, Lane] = {}
        self._boards: dict[bool, list[tuple[Head, str]]] = {False: [], True: []}
        self._offered: dict[tuple[str, bool], Head] = {}
        self._listed: dict[str, Agent] = {}
        self._last_used: dict[str, int] = {}
        self._uses = 0
        self._arrivals = 0

    def task_queued(self, task: Task, place: Place | None = None) -> None:
        """The task takes the next place, or the one that it had elsewhere."""
        lane = self._lane(task.lane)
        level = self._level(lane, task.lane, _level_key(task))
        if place is None:
            self._arrivals += 1
            place = level.turns.next(task.workflow_id), self._arrivals
        else:
            level.turns.took(task.workflow_id, place[0])
            self._arrivals = max(self._arrivals, place[1])
        level.queue.push((*place, task.id))
        level.waiting += 1
        if len(lane.free):
            self._offer(task.lane, task.prefer_direct)

    def task_left(self, task: Task) -> None:
        """The task, as it was while queued, is queued no more."""
        lane = self._lanes[task.lane]
        lane.levels[_level_key(task)].waiting -= 1
        self._drop_if_idle(task.lane, lane)

    def agent_changed(self, agent: Agent, has_free_slot: bool) -> None:
        if not has_free_slot:
            self._listed.pop(agent.id, None)
            return
        listed = self._listed.get(agent.id)
        if listed is None or lanes_of(listed) != lanes_of(agent):
            self._listed[agent.id] = agent
            self._list(agent)

    def forget_agent(self, agent: Agent) -> None:
        self._listed.pop(agent.id, None)
        self._last_used.pop(agent.id, None)
        for key in lanes_of(agent):
            if key in self._lanes:
                self._drop_if_idle(key, self._lanes[key])

    def _drop_if_idle(self, key: str, lane: Lane) -> None:
        if not lane.waiting and lane.free.peek() is None:
            del self._lanes[key]

    def waiting(self, lane_key: str) -> int:
        lane = self._lanes.get(lane_key)
        return lane.waiting if lane else 0

    def ahead(self, task: Task) -> int | None:
        """How many tasks of the lane stand before a queued one; None when it has very many."""
        lane = self._lanes.get(task.lane)
        if lane is None or lane.waiting > _COUNTED_TO:
            return None
        higher = sum(one.waiting for key, one in lane.levels.items() if key[1] > task.priority)
        entries = sorted(
            entry
            for key, level in lane.levels.items()
            if key[1] == task.priority
            for entry in level.queue
        )
        before = takewhile(lambda entry: entry[2] != task.id, entries)
        return higher + sum(1 for _ in before)

    # --- moving ---------------------------------------------------------------------------

    def places(self) -> dict[str, Place]:
        """The turns and arrivals of all queued tasks."""
        found: dict[str, Place] = {}
        for lane in self._lanes.values():
            for level in lane.levels.values():
                for turn, arrival, task_id in level.queue:
                    found[task_id] = min((turn, arrival), found.get(task_id, (turn, arrival)))
        return found

    def served_turns(self) -> Iterator[tuple[str, LevelKey, int]]:
        """The lanes and levels of which a task was served, with its turn."""
        for key, lane in self._lanes.items():
            for level_key, level in lane.levels.items():
                if level.turns.last_served:
                    yield key, level_key, level.turns.last_served

    def last_used(self, agent_id: str) -> int:
        return self._last_used.get(agent_id, 0)

    def restore_use(self, agent_id: str, use: int) -> None:
        """To be told before the agent itself is put."""
        if use:
            self._last_used[agent_id] = use
            self._uses = max(self._uses, use)

    def restore_turn(self, lane_key: str, level_key: LevelKey, turn: int) -> None:
        self._level(self._lane(lane_key), lane_key, level_key).turns.served(turn)

    def take(self, limit: int, only_direct: bool, assign: Callable[[Task, str], None]) -> None:
        """Hand the most urgent ready tasks to free agents; `assign` stores each pair."""
        routes = (True,) if only_direct else (False, True)
        while limit and (top := self._top(routes)) is not None:
            head, key = top
            self._assign(key, head, assign)
            limit -= 1

    def _top(self, routes: tuple[bool, ...]) -> tuple[Head, str] | None:
        """The most urgent offer of all that still stands."""
        tops = (self._settle(route) for route in routes)
        return min((top for top in tops if top is not None), default=None)

    def _settle(self, direct: bool) -> tuple[Head, str] | None:
        """Bring the top of a board up to date."""
        board = self._boards[direct]
        while board:
            head, key = board[0]
            if self._offered.get((key, direct)) != head:
                heapq.heappop(board)
                continue
            fresh = self._head(key, direct)
            if fresh == head:
                return head, key
            if fresh is None:
                heapq.heappop(board)
                del self._offered[key, direct]
            else:
                heapq.heapreplace(board, (fresh, key))
                self._offered[key, direct] = fresh
        return None

    def _offer(self, key: str, direct: bool) -> None:
        """Put the lane on the board, unless it stands there as urgent already."""
        head, known = self._head(key, direct), self._offered.get((key, direct))
        if head is not None and (known is None or head < known):
            self._offered[key, direct] = head
            heapq.heappush(self._boards[direct], (head, key))

    def _assign(self, key: str, head: Head, assign: Callable[[Task, str], None]) -> None:
        _, (turn, _, task_id), level_key = head
        lane = self._lanes[key]
        task = self._task_of(task_id)
        agent_id = self._choose(lane, task) if task else None
        if task is None or agent_id is None:
            raise AssertionError("the head of an open lane has neither a task nor an agent")
        level = lane.levels[level_key]
        # A task that comes back must not find its old place and overtake those behind it.
        level.queue.pop()
        level.turns.served(turn)
        self._uses += 1
        self._last_used[agent_id] = self._uses
        self._listed.pop(agent_id, None)
        assign(task, agent_id)

    def _choose(self, lane: Lane, task: Task) -> str | None:
        if task.preferred_agent is not None:
            agent = self._free_agent(task.preferred_agent)
            if agent is not None and task.lane in lanes_of(agent):
                return agent.id
        entry = lane.free.peek()
        return entry[1] if entry else None

    def _head(self, key: str, direct: bool) -> Head | None:
        """The lane's most urgent task, of those with the same choice of routes."""
        lane = self._lanes.get(key)
        if lane is None or lane.free.peek() is None:
            return None
        heads = [
            (urgency(level_key[1], task.waiting_since), entry, level_key)
            for level_key, level in lane.levels.items()
            if level_key[0] is direct
            and (entry := level.queue.peek()) is not None
            and (task := self._task_of(entry[2])) is not None
        ]
        return min(heads, default=None)

    def _list(self, agent: Agent) -> None:
        entry = (self._last_used.get(agent.id, 0), agent.id)
        for key in lanes_of(agent):
            lane = self._lane(key)
            lane.free.push(entry)
            for direct in {level_key[0] for level_key in lane.levels}:
                self._offer(key, direct)

    def _lane(self, key: str) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(lambda entry: self._is_free(key, entry))
        return lane

    def _level(self, lane: Lane, lane_key: str, key: LevelKey) -> Level:
        level = lane.levels.get(key)
        if level is None:
            level = lane.levels[key] = Level(lambda entry: self._is_queued(lane_key, key, entry))
        return level

    def _is_queued(self, lane_key: str, level_key: LevelKey, entry: TaskEntry) -> bool:
        task = self._task_of(entry[2])
        return (
            task is not None
            and task.status is TaskStatus.QUEUED
            and task.lane == lane_key
            and _level_key(task) == level_key
        )

    def _is_free(self, lane_key: str, entry: FreeEntry) -> bool:
        used, agent_id = entry
        agent = self._free_agent(agent_id)
        return (
            agent is not None
            and self._last_used.get(agent_id, 0) == used
            and lane_key in lanes_of(agent)
        )


def _level_key(task: Task) -> LevelKey:
    return task.prefer_direct, task.priority
