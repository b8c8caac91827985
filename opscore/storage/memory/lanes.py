"""Lanes: the queues of waiting tasks, and the agents that are free to serve them.

A lane with a task and a free agent is offered: its most urgent task stands on a board beside
those of other lanes. A claim looks at the top of the board only, so that a million tasks
waiting for busy agents cost it nothing, and ten thousand lanes little. There is one board for
each kind of task and of agent that a scope may ask for, made when it is asked for first.
"""

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import takewhile

from opscore.models import Agent, ClaimScope, Task, TaskStatus
from opscore.storage.memory.lazy_heap import LazyHeap
from opscore.storage.ordering import FairTurns, lanes_of, urgency

Place = tuple[int, int]
TaskEntry = tuple[int, int, str]
FreeEntry = tuple[int, str]
LevelKey = tuple[bool, int]
Head = tuple[datetime, TaskEntry, LevelKey]

_COUNTED_TO = 10_000
_COMPACT_ABOVE = 64

# Two flags: the tasks need AgentKit, and the agents must have an endpoint.
_BOARDS: dict[ClaimScope, tuple[tuple[bool, bool], ...]] = {
    ClaimScope.ALL: ((False, False), (True, False)),
    ClaimScope.WITHOUT_TOOLS: ((False, False),),
    ClaimScope.DIRECT: ((False, True),),
    ClaimScope.DIRECT_AND_TOOLS: ((False, True), (True, False)),
}


class Board:
    """The lanes whose tasks of one kind can go to agents of one kind, most urgent first."""

    def __init__(self, *, needs_agentkit: bool, reachable: bool) -> None:
        self.needs_agentkit = needs_agentkit
        self.reachable = reachable
        self._offered: dict[str, Head] = {}
        self._tops: list[tuple[Head, str]] = []

    def offer(self, key: str, head: Head | None) -> None:
        """Put the lane on the board, unless it stands there as urgent already."""
        known = self._offered.get(key)
        if head is None or (known is not None and known <= head):
            return
        self._offered[key] = head
        heapq.heappush(self._tops, (head, key))
        if len(self._tops) > _COMPACT_ABOVE + 2 * len(self._offered):
            self._tops = [(head, key) for key, head in self._offered.items()]
            heapq.heapify(self._tops)

    def withdraw(self, key: str) -> None:
        self._offered.pop(key, None)

    def top(self, head_of: Callable[[str, "Board"], Head | None]) -> tuple[Head, str] | None:
        """Bring the most urgent offer up to date, and return it."""
        while self._tops:
            head, key = self._tops[0]
            if self._offered.get(key) != head:
                heapq.heappop(self._tops)
                continue
            fresh = head_of(key, self)
            if fresh == head:
                return head, key
            if fresh is None:
                heapq.heappop(self._tops)
                del self._offered[key]
            else:
                heapq.heapreplace(self._tops, (fresh, key))
                self._offered[key] = fresh
        return None


class Level:
    """The tasks of one lane that have the same priority and are all tool steps, or none."""

    def __init__(self, holds: Callable[[TaskEntry], bool]) -> None:
        self.queue: LazyHeap[TaskEntry] = LazyHeap(holds)
        self.turns = FairTurns()
        self.waiting = 0


class Lane:
    """`reachable` are those of its `free` agents that have an endpoint."""

    def __init__(self, holds: Callable[[FreeEntry, bool], bool]) -> None:
        self.levels: dict[LevelKey, Level] = {}
        self.free: LazyHeap[FreeEntry] = LazyHeap(lambda entry: holds(entry, False))
        self.reachable: LazyHeap[FreeEntry] = LazyHeap(lambda entry: holds(entry, True))

    def agents(self, board: Board) -> "LazyHeap[FreeEntry]":
        return self.reachable if board.reachable else self.free

    def is_served(self, board: Board) -> bool:
        """Return whether the board's tasks of this lane can go now; tool steps need no agent."""
        return board.needs_agentkit or self.agents(board).peek() is not None

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
        self._boards: dict[tuple[bool, bool], Board] = {}
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
        for board in self._boards.values():
            if board.needs_agentkit is task.needs_agentkit:
                board.offer(task.lane, self._head(task.lane, board))

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
        if listed is None or _terms(listed) != _terms(agent):
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
            for board in self._boards.values():
                board.withdraw(key)

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

    def take(
        self, limit: int, scope: ClaimScope, assign: Callable[[Task, str | None], None]
    ) -> None:
        """Hand the most urgent ready tasks to free agents, and tool steps to none.

        `assign` stores each pair.
        """
        boards = [self._board(*kind) for kind in _BOARDS[scope]]
        while limit and (top := self._top(boards)) is not None:
            head, key, board = top
            self._assign(key, head, board, assign)
            limit -= 1

    def _board(self, needs_agentkit: bool, reachable: bool) -> Board:
        board = self._boards.get((needs_agentkit, reachable))
        if board is None:
            board = Board(needs_agentkit=needs_agentkit, reachable=reachable)
            self._boards[needs_agentkit, reachable] = board
            for key in self._lanes:
                board.offer(key, self._head(key, board))
        return board

    def _top(self, boards: list[Board]) -> tuple[Head, str, Board] | None:
        """The most urgent offer of all that still stands."""
        tops = [(*top, board) for board in boards if (top := board.top(self._head)) is not None]
        return min(tops, key=lambda top: top[:2], default=None)

    def _assign(
        self, key: str, head: Head, board: Board, assign: Callable[[Task, str | None], None]
    ) -> None:
        _, (turn, _, task_id), level_key = head
        lane = self._lanes[key]
        task = self._task_of(task_id)
        if task is None:
            raise AssertionError("the head of an open lane has no task")
        agent_id = None if board.needs_agentkit else self._choose(lane, board, task)
        level = lane.levels[level_key]
        # A task that comes back must not find its old place and overtake those behind it.
        level.queue.pop()
        level.turns.served(turn)
        if agent_id is not None:
            self._uses += 1
            self._last_used[agent_id] = self._uses
            self._listed.pop(agent_id, None)
        assign(task, agent_id)

    def _choose(self, lane: Lane, board: Board, task: Task) -> str:
        if task.preferred_agent is not None:
            agent = self._free_agent(task.preferred_agent)
            if agent is not None and _fits(agent, task.lane, board.reachable):
                return agent.id
        entry = lane.agents(board).peek()
        if entry is None:
            raise AssertionError("an open lane has no agent")
        return entry[1]

    def _head(self, key: str, board: Board) -> Head | None:
        """The lane's most urgent task of the board's kind, if it can go now."""
        lane = self._lanes.get(key)
        if lane is None or not lane.is_served(board):
            return None
        heads = [
            (urgency(level_key[1], task.waiting_since), entry, level_key)
            for level_key, level in lane.levels.items()
            if level_key[0] is board.needs_agentkit
            and (entry := level.queue.peek()) is not None
            and (task := self._task_of(entry[2])) is not None
        ]
        return min(heads, default=None)

    def _list(self, agent: Agent) -> None:
        entry = (self._last_used.get(agent.id, 0), agent.id)
        for key in lanes_of(agent):
            lane = self._lane(key)
            lane.free.push(entry)
            if agent.contact_endpoint is not None:
                lane.reachable.push(entry)
            if lane.levels:
                for board in self._boards.values():
                    board.offer(key, self._head(key, board))

    def _lane(self, key: str) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(
                lambda entry, reachable: self._is_free(key, entry, reachable)
            )
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

    def _is_free(self, lane_key: str, entry: FreeEntry, reachable: bool) -> bool:
        used, agent_id = entry
        agent = self._free_agent(agent_id)
        return (
            agent is not None
            and self._last_used.get(agent_id, 0) == used
            and _fits(agent, lane_key, reachable)
        )


def _level_key(task: Task) -> LevelKey:
    return task.needs_agentkit, task.priority


def _terms(agent: Agent) -> tuple[tuple[str, ...], bool]:
    """Return the facts that decide which tasks the agent may have."""
    return lanes_of(agent), agent.contact_endpoint is not None


def _fits(agent: Agent, lane_key: str, reachable: bool) -> bool:
    is_reachable = agent.contact_endpoint is not None or not reachable
    return is_reachable and lane_key in lanes_of(agent)
