"""Cursors as clients see them: bound to the list, and the filters, that they were given out with.

Without that a cursor of another list would be read as some place of this one, and the client would
miss records without a word.
"""

import hashlib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import orjson

from opscore.exceptions import Fault, ValidationError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_BINDING_LENGTH = 8


class ListCursor:
    """The cursors of one list. `name` and `where` tell it from all others."""

    def __init__(self, name: str, where: "DataclassInstance | str | None" = None) -> None:
        identity = orjson.dumps([name, where], default=_plain)
        self._binding = hashlib.blake2b(identity, digest_size=_BINDING_LENGTH // 2).hexdigest()

    def open(self, given: str | None) -> str | None:
        """Return the storage's cursor in what a client sent."""
        if given is None:
            return None
        if not given.startswith(self._binding):
            message = (
                "This cursor belongs to another list or to other filters. Send it with the "
                "filters that it was given out with, or start again without a cursor."
            )
            fault = Fault("/query/cursor", message, "foreign_cursor")
            raise ValidationError(message, faults=[fault])
        return given[_BINDING_LENGTH:]

    def seal(self, cursor: str | None) -> str | None:
        """Return what a client is given for the storage's cursor."""
        return None if cursor is None else self._binding + cursor


def _plain(value: Any) -> Any:
    # A set has no order, and its members' differs between processes.
    if isinstance(value, frozenset):
        return sorted(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"cannot identify a list: {type(value).__name__}")
