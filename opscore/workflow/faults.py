"""Collecting what is wrong with a document, so that all of it can be told at once."""

import re
from collections.abc import Callable
from typing import Any

from opscore.exceptions import Fault

MOST_FAULTS = 100

_SHOWN_NAME = re.compile(r"[A-Za-z0-9 ._:/~-]{1,64}")


class Faults:
    """The faults of one document; beyond `MOST_FAULTS` they are only counted."""

    def __init__(self) -> None:
        self._noted: list[Fault] = []
        self._unnoted = 0

    def add(self, pointer: str, message: str | Callable[[], str], code: str) -> None:
        """Note a fault. A message that is costly to make comes as a function."""
        if len(self._noted) >= MOST_FAULTS:
            self._unnoted += 1
            return
        text = message if isinstance(message, str) else message()
        self._noted.append(Fault(pointer, text, code))

    def __bool__(self) -> bool:
        return bool(self._noted)

    def all(self) -> tuple[Fault, ...]:
        """At most `MOST_FAULTS`, the last of which says how many were left out."""
        if not self._unnoted:
            return tuple(self._noted)
        more = f"{self._unnoted + 1} more faults are not listed; mend these first."
        return (*self._noted[:-1], Fault("", more, "too_many_faults"))


def point(pointer: str, name: Any) -> str:
    """The pointer to a named member; a name that is unfit to be shown leads to its object."""
    if isinstance(name, str) and is_shown(name):
        return f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
    return pointer


def is_shown(name: str) -> bool:
    """Whether a name from a document may stand in a message."""
    return _SHOWN_NAME.fullmatch(name) is not None
