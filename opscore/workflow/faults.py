"""Collecting what is wrong with a document, so that all of it can be told at once."""

import re
from collections.abc import Callable
from typing import Any

from opscore.exceptions import Fault
from opscore.json_rules import pointer_token

MOST_FAULTS = 100

_SHOWN_NAME = re.compile(r"[A-Za-z0-9 ._:/~-]{1,64}")


class TooManyFaultsError(Exception):
    """More than `MOST_FAULTS` were noted: the rest of the document is not looked at."""


class Faults:
    """The faults of one document. The one after `MOST_FAULTS` ends the check."""

    def __init__(self) -> None:
        self._noted: list[Fault] = []
        self._is_cut = False

    def add(self, pointer: str, message: str | Callable[[], str], code: str) -> None:
        """Note a fault; raise TooManyFaultsError if there are enough.

        A message that is costly to make comes as a function.
        """
        if len(self._noted) >= MOST_FAULTS:
            self._is_cut = True
            raise TooManyFaultsError
        text = message if isinstance(message, str) else message()
        self._noted.append(Fault(pointer, text, code))

    def __bool__(self) -> bool:
        return bool(self._noted)

    def all(self) -> tuple[Fault, ...]:
        """Return at most `MOST_FAULTS`; the last one says so if there are more."""
        if not self._is_cut:
            return tuple(self._noted)
        more = "There are more faults; mend these first."
        return (*self._noted[:-1], Fault("", more, "too_many_faults"))


def point(pointer: str, name: Any) -> str:
    """The pointer to a named member; a name that is unfit to be shown leads to its object."""
    if isinstance(name, str) and is_shown(name):
        return f"{pointer}/{pointer_token(name)}"
    return pointer


def is_shown(name: str) -> bool:
    """Whether a name from a document may stand in a message."""
    return _SHOWN_NAME.fullmatch(name) is not None
