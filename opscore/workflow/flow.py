"""The order of the tasks: which follows which, and what is wrong with it.

A task is a step of the main flow or stands in for exactly one other task, never both: so each
runs at most once in a session. Everything here is linear in the number of tasks and links.
"""

from collections.abc import Sequence
from itertools import pairwise

from opscore.models.definition import FallbackTask, TaskDefinition
from opscore.suggestions import closest
from opscore.workflow.faults import Faults
from opscore.workflow.references import (
    MOST_REFERENCES,
    FoundReference,
    count_references,
    find_references,
)

# Looking for a name that is alike costs more than all other checks together.
_MOST_CANDIDATES = 100
_NAMES_SHOWN = 10
_SESSION_FIELDS = ("id", "metadata")


def check_flow(tasks: Sequence[TaskDefinition], faults: Faults) -> None:
    """Note every fault of the links between tasks. Ids that are empty were noted before."""
    flow = _Flow(tasks, faults)
    flow.check_ids()
    flow.check_links()
    flow.check_stand_ins()
    if flow.sound and flow.check_cycles():
        flow.check_reached()
        flow.note_earlier()
    flow.check_references()


class _Flow:
    """The tasks by their place in the list; `sound` while the links can be followed."""

    def __init__(self, tasks: Sequence[TaskDefinition], faults: Faults) -> None:
        self._tasks = tasks
        self._faults = faults
        self._places: dict[str, int] = {}
        for place, task in enumerate(tasks):
            self._places.setdefault(task.task_id, place)
        self._linked = any(task.next_task_id is not None for task in tasks)
        self._owners: dict[int, int] = {}
        self._steps: list[int | None] = []
        self._roots: list[int] = []
        self._earlier: list[int] | None = None
        self.sound = bool(tasks) and "" not in self._places

    def check_ids(self) -> None:
        for place, task in enumerate(self._tasks):
            first = self._places[task.task_id]
            if first != place and task.task_id:
                message = f"The taskId {task.task_id} is already used by /tasks/{first}."
                self._break(f"/tasks/{place}/taskId", message, "duplicate_task")

    def check_links(self) -> None:
        for place, task in enumerate(self._tasks):
            self._check_link(f"/tasks/{place}/nextTaskId", task.next_task_id)
            target = _fallback_of(task)
            if target and target == task.task_id:
                message = "A task cannot be its own fallback."
                self._break(f"/tasks/{place}/fallback/taskId", message, "bad_fallback")
            else:
                self._check_link(f"/tasks/{place}/fallback/taskId", target)

    def check_stand_ins(self) -> None:
        following = {task.next_task_id for task in self._tasks}
        for place, task in enumerate(self._tasks):
            target = _fallback_of(task)
            if not target or target not in self._places:
                continue
            pointer = f"/tasks/{place}/fallback/taskId"
            owner = self._owners.setdefault(self._places[target], place)
            if owner != place:
                message = f"{target} is already the fallback of /tasks/{owner}. A task stands in"
                self._break(pointer, f"{message} for one other task only.", "bad_fallback")
            elif target in following:
                message = f"{target} is already the nextTaskId of a task. A fallback needs a"
                self._break(pointer, f"{message} task of its own.", "bad_fallback")

    def check_cycles(self) -> bool:
        """Walk all links, each once; True if no walk comes back to a task it left."""
        self._steps = self._find_steps()
        done: set[int] = set()
        found = False
        for start in range(len(self._tasks)):
            found |= start not in done and self._walk(start, done)
        return not found

    def check_reached(self) -> None:
        reached = {next(place for place in range(len(self._tasks)) if place not in self._owners)}
        waiting = list(reached)
        while waiting:
            new = [place for _, place in self._links(waiting.pop()) if place not in reached]
            reached.update(new)
            waiting.extend(new)
        for place in range(len(self._tasks)):
            if place not in reached:
                message = "The task is never reached: no nextTaskId or fallback leads to it."
                self._faults.add(f"/tasks/{place}", message, "unreachable_task")

    def note_earlier(self) -> None:
        """For each task the set, as bits, of those that may have a result before it begins.

        The result of a stand-in is also that of the task it stands in for.
        """
        self._roots = self._find_roots()
        earlier = [0] * len(self._tasks)
        for place in self._in_order():
            if (stand_in := self._stand_in(place)) is not None:
                earlier[stand_in] |= earlier[place]
            if (following := self._continuation(place)) is not None:
                earlier[following] |= earlier[place] | 1 << place | 1 << self._roots[place]
        self._earlier = earlier

    def check_references(self) -> None:
        count = 0
        for task in self._tasks:
            count += count_references(task.parameters)
            if count > MOST_REFERENCES:
                message = f"A definition may hold at most {MOST_REFERENCES} references."
                self._faults.add("/tasks", message, "too_many_references")
                return
        for place, task in enumerate(self._tasks):
            for found in find_references(task.parameters, f"/tasks/{place}/parameters"):
                problem = self._reference_problem(place, found)
                if problem is not None:
                    self._faults.add(found.pointer, problem, "bad_reference")

    def _break(self, pointer: str, message: str, code: str) -> None:
        self.sound = False
        self._faults.add(pointer, message, code)

    def _check_link(self, pointer: str, target: str | None) -> None:
        if target == "":
            self.sound = False
        elif target is not None and target not in self._places:
            self.sound = False
            self._faults.add(pointer, lambda: self._unknown(target), "unknown_task")

    def _unknown(self, target: str) -> str:
        ids = list(self._places) if len(self._places) <= _MOST_CANDIDATES else []
        guess = closest(target, ids)
        hint = f" Did you mean {guess}?" if guess else ""
        return f"There is no task {target} in this definition.{hint}"

    def _find_steps(self) -> list[int | None]:
        """The task that follows each task when it completes, if it names or has one."""
        if self._linked:
            ids = (task.next_task_id for task in self._tasks)
            return [None if name is None else self._places[name] for name in ids]
        steps: list[int | None] = [None] * len(self._tasks)
        line = [place for place in range(len(self._tasks)) if place not in self._owners]
        for place, following in pairwise(line):
            steps[place] = following
        return steps

    def _stand_in(self, place: int) -> int | None:
        target = _fallback_of(self._tasks[place])
        return None if target is None else self._places[target]

    def _links(self, place: int) -> list[tuple[str, int]]:
        named = (("nextTaskId", self._steps[place]), ("fallback/taskId", self._stand_in(place)))
        return [(name, target) for name, target in named if target is not None]

    def _find_roots(self) -> list[int]:
        """For each task the one in whose place it runs: itself, or for a stand-in its first."""
        roots = list(range(len(self._tasks)))
        for place in self._from_the_top():
            if place in self._owners:
                roots[place] = roots[self._owners[place]]
        return roots

    def _from_the_top(self) -> list[int]:
        """Every task, stand-ins after the task they stand in for."""
        order = [place for place in range(len(self._tasks)) if place not in self._owners]
        for place in order:
            stand_in = self._stand_in(place)
            if stand_in is not None:
                order.append(stand_in)
        return order

    def _continuation(self, place: int) -> int | None:
        """A stand-in goes on where it says, or else where its first task would have."""
        own = self._steps[place]
        return self._steps[self._roots[place]] if own is None else own

    def _walk(self, start: int, done: set[int]) -> bool:
        path, links, found = [start], [iter(self._links(start))], False
        on_path = {start}
        while path:
            name, target = next(links[-1], ("", -1))
            if target < 0:
                links.pop()
                on_path.remove(path[-1])
                done.add(path.pop())
            elif target in on_path:
                self._note_cycle(path, name, target)
                found = True
            elif target not in done:
                path.append(target)
                links.append(iter(self._links(target)))
                on_path.add(target)
        return found

    def _note_cycle(self, path: list[int], name: str, target: int) -> None:
        ring = [self._tasks[place].task_id for place in path[path.index(target) :]]
        shown = ring if len(ring) <= _NAMES_SHOWN else [*ring[: _NAMES_SHOWN - 1], "…", ring[-1]]
        message = f"The tasks form a cycle: {' → '.join([*shown, ring[0]])}."
        self._faults.add(f"/tasks/{path[-1]}/{name}", message, "cycle")

    def _in_order(self) -> list[int]:
        """Every task after all that lead to it."""
        leads = [self._leads_to(place) for place in range(len(self._tasks))]
        waiting_for = [0] * len(self._tasks)
        for targets in leads:
            for target in targets:
                waiting_for[target] += 1
        order = [place for place, count in enumerate(waiting_for) if not count]
        for place in order:
            for target in leads[place]:
                waiting_for[target] -= 1
                if not waiting_for[target]:
                    order.append(target)
        return order

    def _leads_to(self, place: int) -> list[int]:
        targets = (self._continuation(place), self._stand_in(place))
        return [target for target in targets if target is not None]

    def _reference_problem(self, place: int, found: FoundReference) -> str | None:
        if found.reference is None:
            return found.problem
        match found.reference.path:
            case ("input", *_):
                return None
            case ("session", name, *_) if name in _SESSION_FIELDS:
                return None
            case ("session", *_):
                return f"A reference to the session names one of: {', '.join(_SESSION_FIELDS)}."
            case ("tasks", task_id, "result", *_):
                return self._task_problem(place, task_id)
            case ("tasks", *_):
                return "A reference to a task is written ${tasks.id.result}, with names after it."
            case _:
                return "A reference begins with input, tasks or session; $${ is a plain ${."

    def _task_problem(self, place: int, task_id: str) -> str | None:
        if task_id not in self._places:
            return "The reference names a task that is not in this definition."
        if self._earlier is not None and not self._earlier[place] >> self._places[task_id] & 1:
            return f"The reference names {task_id}, which cannot have completed before this task."
        return None


def _fallback_of(task: TaskDefinition) -> str | None:
    return task.fallback.task_id if isinstance(task.fallback, FallbackTask) else None
