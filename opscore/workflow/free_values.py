"""Values without a schema, such as parameters: any JSON, checked and copied."""

from collections.abc import Mapping
from typing import Any

from opscore.json_rules import MAX_DEPTH
from opscore.workflow.faults import Faults, point
from opscore.workflow.values import (
    ObjectWithRepeats,
    number_problem,
    text_problem,
    typed,
)

MOST_VALUES = 20_000


class FreeValues:
    """Copies values for one document and counts them; each fault is noted, none raised."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._count = 0

    def copy(self, value: Any, pointer: str, depth: int) -> Any:
        """A plain copy of any JSON value that stands `depth` levels below the document."""
        self._count += 1
        if self._count > MOST_VALUES:
            self._note_too_many(pointer)
            return None
        value = typed(value)
        match value:
            case None | bool():
                return value
            case int() | float():
                return self._checked(value, number_problem(value), pointer)
            case str():
                return self._checked(value, text_problem(value), pointer)
            case Mapping() | list() | tuple() if depth > MAX_DEPTH:
                message = f"Values may be nested at most {MAX_DEPTH} deep."
                self._faults.add(pointer, message, "too_deep")
            case Mapping():
                return self._copy_object(value, pointer, depth)
            case list() | tuple():
                return self._copy_list(value, pointer, depth)
            case _:
                self._faults.add(pointer, "It must be a JSON value.", "wrong_type")
        return None

    def _copy_list(self, value: list[Any] | tuple[Any, ...], pointer: str, depth: int) -> list[Any]:
        items = []
        for position, item in enumerate(value):
            if self._count > MOST_VALUES:
                break
            items.append(self.copy(item, f"{pointer}/{position}", depth + 1))
        return items

    def _copy_object(self, value: Mapping[Any, Any], pointer: str, depth: int) -> dict[str, Any]:
        note_repeats(value, pointer, self._faults)
        copy: dict[str, Any] = {}
        for name, item in value.items():
            if self._count > MOST_VALUES:
                break
            if not isinstance(name, str):
                self._faults.add(pointer, "The names in an object must be texts.", "wrong_type")
                continue
            place = point(pointer, name)
            self._checked(name, text_problem(name), place)
            copy[str(name)] = self.copy(item, place, depth + 1)
        return copy

    def _checked(self, value: Any, problem: str | None, pointer: str) -> Any:
        if problem is not None:
            self._faults.add(pointer, problem, "bad_value")
        return value

    def _note_too_many(self, pointer: str) -> None:
        if self._count == MOST_VALUES + 1:
            message = f"The parameters of a definition may hold at most {MOST_VALUES} values."
            self._faults.add(pointer, message, "too_many_values")


def note_repeats(value: Mapping[Any, Any], pointer: str, faults: Faults) -> None:
    if isinstance(value, ObjectWithRepeats):
        for name in value.repeated:
            place = point(pointer, name)
            faults.add(place, "This name stands twice in its object.", "repeated_name")
