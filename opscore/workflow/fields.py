"""Reading the fields of one object by their types, with every fault noted and none raised."""

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from opscore.durations import parse_duration
from opscore.suggestions import closest
from opscore.workflow.faults import Faults, is_shown, point
from opscore.workflow.free_values import note_repeats
from opscore.workflow.values import Plain, kind, number_problem, text_problem, typed

ID_LENGTH = 128

_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._:-]{{0,{ID_LENGTH - 1}}}")
_ID_RULE = (
    f"An id has 1 to {ID_LENGTH} characters: letters, digits, '.', '_', ':' and '-',"
    " beginning with a letter or a digit."
)

Value = TypeVar("Value")
Choice = TypeVar("Choice", bound=StrEnum)


class _Wrong(Exception):
    """A value is not what its field wants."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class Fields:
    """One object of a document. A field that is null, or wrong, reads as None."""

    def __init__(
        self, document: Mapping[str, Any], pointer: str, faults: Faults, known: tuple[str, ...]
    ) -> None:
        self.pointer = pointer
        self._document = document
        self._faults = faults
        note_repeats(document, pointer, faults)
        for name in document:
            if name not in known:
                self._note_unknown(name, known)

    def __contains__(self, name: str) -> bool:
        """Whether the field stands there at all, be it null."""
        return name in self._document

    def place(self, name: str) -> str:
        return f"{self.pointer}/{name}"

    def fault(self, name: str, message: str, code: str) -> None:
        self._faults.add(self.place(name), message, code)

    def raw(self, name: str) -> Any:
        value = self._document.get(name)
        return None if isinstance(value, Plain) and typed(value) is None else value

    def text(self, name: str, longest: int) -> str | None:
        """One line, not empty."""
        return self._read(name, lambda value: _line(value, longest))

    def prose(self, name: str, longest: int) -> str | None:
        """Any number of lines."""
        return self._read(name, lambda value: _prose(value, longest))

    def text_or_number(self, name: str, longest: int) -> str | None:
        return self._read(name, lambda value: _line(_number_as_text(value), longest))

    def identifier(self, name: str, default: str | None = None) -> str | None:
        return self._read(name, _identifier, default)

    def integer(self, name: str, least: int, most: int) -> int | None:
        return self._read(name, lambda value: _integer(value, least, most))

    def flag(self, name: str) -> bool | None:
        return self._read(name, _flag)

    def choice(self, name: str, choices: type[Choice]) -> Choice | None:
        return self._read(name, lambda value: _choice(value, choices))

    def duration(self, name: str, *, zero: bool = False) -> timedelta | None:
        return self._read(name, lambda value: _duration(value, zero))

    def mapping(self, name: str) -> Mapping[str, Any] | None:
        return self._read(name, _mapping)

    def items(self, name: str) -> list[Any] | tuple[Any, ...] | None:
        return self._read(name, _items)

    def _read(
        self, name: str, reader: Callable[[Any], Value], default: object = None
    ) -> Value | None:
        value = self.raw(name)
        value = default if value is None else value
        if value is None:
            return None
        try:
            return reader(value)
        except _Wrong as wrong:
            self.fault(name, wrong.message, wrong.code)
            return None

    def _note_unknown(self, name: Any, known: tuple[str, ...]) -> None:
        place = point(self.pointer, name)
        self._faults.add(place, lambda: _unknown(name, known), "unknown_field")


def _line(value: Any, longest: int) -> str:
    text = _sound_text(value, longest)
    if not text.strip():
        raise _Wrong("It must not be empty.", "bad_text")
    return _without_controls(text, text)


def _prose(value: Any, longest: int) -> str:
    text = _sound_text(value, longest)
    return _without_controls(text, re.sub("[\n\r\t]", "", text))


def _sound_text(value: Any, longest: int) -> str:
    if not isinstance(value, str):
        raise _wrong_type("a text", value)
    if problem := text_problem(value):
        raise _Wrong(problem, "bad_text")
    if len(value) > longest:
        raise _Wrong(f"It must have at most {longest} characters.", "bad_text")
    return str(value)


def _without_controls(text: str, looked_at: str) -> str:
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in looked_at):
        raise _Wrong("It must not contain control characters.", "bad_text")
    return text


def _number_as_text(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if problem := number_problem(value):
        raise _Wrong(problem, "bad_value")
    return str(value)


def _identifier(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong_type("a text", value)
    if not _ID.fullmatch(value):
        raise _Wrong(_ID_RULE, "bad_id")
    return str(value)


def _integer(value: Any, least: int, most: int) -> int:
    number = typed(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise _wrong_type("a whole number", value)
    if not least <= number <= most:
        raise _Wrong(f"It must lie between {least} and {most}.", "out_of_range")
    if not isinstance(number, int):
        raise _Wrong("It must be a whole number.", "wrong_type")
    return number


def _flag(value: Any) -> bool:
    flag = typed(value)
    if not isinstance(flag, bool):
        raise _wrong_type("true or false", value)
    return flag


def _choice(value: Any, choices: type[Choice]) -> Choice:
    if not isinstance(value, str):
        raise _wrong_type("a text", value)
    for choice in choices:
        if choice.value == value:
            return choice
    raise _Wrong(f"It must be one of: {', '.join(choices)}.", "bad_choice")


def _duration(value: Any, zero: bool) -> timedelta:
    try:
        duration = parse_duration(value)
    except ValueError as problem:
        raise _Wrong(str(problem), "bad_duration") from problem
    if not duration and not zero:
        raise _Wrong("It must be longer than zero.", "bad_duration")
    return duration


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong_type("an object", value)
    return value


def _items(value: Any) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _wrong_type("a list", value)
    return value


def _wrong_type(wanted: str, value: Any) -> _Wrong:
    return _Wrong(f"It must be {wanted}, not {kind(typed(value))}.", "wrong_type")


def _unknown(name: Any, known: tuple[str, ...]) -> str:
    if guess := _suggestion(name, known):
        return f"This field is not known. Did you mean {guess}?"
    return f"This field is not known. The fields here are: {', '.join(known)}."


def _suggestion(name: Any, known: tuple[str, ...]) -> str | None:
    if not isinstance(name, str) or not is_shown(name):
        return None
    return closest(name, known)
