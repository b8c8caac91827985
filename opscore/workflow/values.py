"""The values a template is made of, before a schema gives them types."""

import math
import re
from collections.abc import Mapping
from typing import Any

from opscore.json_rules import MAX_INTEGER

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORDS = {"true": True, "false": False, "null": None, "": None}
_MOST_DIGITS = 17


class Plain(str):
    """A YAML scalar without quotes: a text, or what JSON would read, as the schema wants it."""

    __slots__ = ()


class ObjectWithRepeats(dict[str, Any]):
    """A JSON object in which names stood more than once."""

    def __init__(self, items: Mapping[str, Any], repeated: tuple[str, ...]) -> None:
        super().__init__(items)
        self.repeated = repeated


def typed(value: Any) -> Any:
    """What JSON would make of a plain scalar; any other value as it is."""
    if not isinstance(value, Plain):
        return value
    if value in _WORDS:
        return _WORDS[value]
    return read_number(value) if _NUMBER.fullmatch(value) else str(value)


def read_number(text: str) -> int | float:
    """A JSON number. An integer of absurd length becomes infinite, which every check refuses."""
    found = _NUMBER.fullmatch(text)
    if found is not None and found.group(1) is None and found.group(2) is None:
        return int(text) if len(text) <= _MOST_DIGITS else math.copysign(math.inf, float(text))
    return float(text)


def text_problem(text: str) -> str | None:
    """Why a text cannot be stored, or None."""
    if "\0" in text:
        return "A text must not contain the character NUL."
    try:
        text.encode()
    except UnicodeEncodeError:
        return "A text must not contain half of a surrogate pair."
    return None


def number_problem(number: int | float) -> str | None:
    """Why a number cannot be stored, or None."""
    if isinstance(number, float) and not math.isfinite(number):
        return "A number must be finite and no integer may lie beyond ±2^53; write it as a text."
    if isinstance(number, int) and abs(number) > MAX_INTEGER:
        return "No integer may lie beyond ±2^53; write it as a text."
    return None


def kind(value: Any) -> str:
    """What a value is, in words for messages."""
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return "something that JSON does not know"
