"""How agents of each style speak: which words they report, and whether they name the task."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from opscore.simulators.behaviour import AgentBehaviour
from opscore.simulators.words import Style


@dataclass(frozen=True, slots=True)
class Dialect:
    """A style without `error` says nothing when it fails; `result_key` None sends no result.

    A `precise` agent reports on its task by the task's own routes instead of by its state. An
    agent that `reports_first` answers after its reports. One that `echoes` knows tasks alone:
    it answers `ignored` to any other message, and reports the end of work for that as well.
    """

    idle: str = "idle"
    active: str = "active"
    done: str = "idle"
    error: str | None = "error"
    result_key: str | None = "result"
    names_task: bool = True
    works_first: bool = False
    reports_first: bool = False
    echoes: bool = False
    precise: bool = False

    def details(self, task_id: str | None, **more: Any) -> dict[str, Any]:
        named = {"opscore_task_id": task_id} if self.names_task and task_id is not None else {}
        return {**named, **more}

    def result_details(self, task_id: str | None, result: Any) -> dict[str, Any]:
        told = {} if self.result_key is None else {self.result_key: result}
        return self.details(task_id, **told)


DIALECTS: Mapping[Style, Dialect] = {
    "reports": Dialect(),
    "example": Dialect(
        error=None, result_key=None, names_task=False, works_first=True, echoes=True
    ),
    "capitals": Dialect(
        idle="IDLE",
        active="BUSY",
        done="IDLE",
        error="ERROR",
        result_key="last_task_result",
        names_task=False,
        reports_first=True,
    ),
    "finished": Dialect(done="finished"),
    "precise": Dialect(precise=True),
}


def dialect_of(behaviour: AgentBehaviour) -> Dialect:
    by_style = DIALECTS[behaviour.style]
    return replace(
        by_style,
        names_task=_chosen(behaviour.task_ids, by_style.names_task),
        works_first=_chosen(behaviour.works_first, by_style.works_first),
        reports_first=_chosen(behaviour.reports_first, by_style.reports_first),
    )


def _chosen(choice: bool | None, default: bool) -> bool:
    return default if choice is None else choice
