"""Changing frozen values by copy."""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


def evolve(record: R, **changes: Any) -> R:
    """Like `dataclasses.replace` at two thirds of its price; every state report pays it."""
    values_of, places = _shape(type(record))
    values = list(values_of(record))
    for name, value in changes.items():
        values[places[name]] = value
    return type(record)(*values)


@cache
def _shape(
    kind: "type[DataclassInstance]",
) -> tuple[Callable[[Any], tuple[Any, ...]], dict[str, int]]:
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), {name: place for place, name in enumerate(names)}
