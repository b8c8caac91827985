"""References in parameters: `${input.topic}`, `${tasks.gather.result.urls[0]}`, `${session.id}`.

A string that is one reference takes the value as it is; within text the value is written out.
`$${` stands for a plain `${`. A name with special characters is written `["in quotes"]`.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opscore.workflow.faults import point

RESULT_LIMIT = 1024 * 1024
REFERENCE_LIMIT = 512
MOST_REFERENCES = 1000
# The least size that a reference counts: even a null costs time and memory.
LEAST_SIZE = 16

_OPEN = "${"
_CONTAINERS = (dict, list, tuple, Mapping)
_NAME = re.compile(r"""[^ .\[\]{}$"'\\]+""")
# A reference without brackets, which most are: read at once instead of name by name.
_PLAIN = re.compile(rf"\$\{{({_NAME.pattern}(?:\.{_NAME.pattern})*)\}}")
_NAMES_SHOWN = 10
_NAME_LENGTH_SHOWN = 64


class UnresolvedReferenceError(ValueError):
    """A reference names something that is not there, or cannot be read at all."""


class ParametersTooLargeError(UnresolvedReferenceError):
    """The references of one task bring in more than `RESULT_LIMIT` bytes."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference as it is written, and the names on its way: `("tasks", "gather", "result")`."""

    text: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FoundReference:
    """Where in the parameters a reference stands (a JSON pointer); `problem` if it is malformed."""

    pointer: str
    reference: Reference | None = None
    problem: str | None = None


def resolve(parameters: Mapping[str, Any], scope: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the parameters with every reference replaced by its value in the scope.

    The scope has the keys `input`, `tasks` (step id to `{"result": …}`) and `session`.
    """
    resolver = _Resolver(scope)
    return {key: resolver.walk(value) for key, value in parameters.items()}


def find_references(parameters: Mapping[str, Any], pointer: str = "") -> Iterator[FoundReference]:
    """Every reference in the parameters, for validation; nothing is raised."""
    for place, text in _strings(parameters, pointer):
        try:
            parts = split(text)
        except UnresolvedReferenceError as problem:
            yield FoundReference(place, problem=str(problem))
        else:
            yield from (FoundReference(place, part) for part in parts if not isinstance(part, str))


def count_references(parameters: Mapping[str, Any]) -> int:
    """Return how many references the parameters hold, at most `MOST_REFERENCES` + 1.

    A `$${` counts too: reading it costs as much.
    """
    count = 0
    for _, text in _strings(parameters, ""):
        count += text.count(_OPEN)
        if count > MOST_REFERENCES:
            return MOST_REFERENCES + 1
    return count


def split(text: str) -> list[str | Reference]:
    """The text cut into plain pieces and references, in order."""
    parts: list[str | Reference] = []
    position = 0
    while (start := text.find(_OPEN, position)) >= 0:
        if start > position and text[start - 1] == "$":
            parts.append(text[position : start - 1] + _OPEN)
            position = start + len(_OPEN)
            continue
        if start > position:
            parts.append(text[position:start])
        reference = _parse(text, start)
        parts.append(reference)
        position = start + len(reference.text)
    if position < len(text):
        parts.append(text[position:])
    return parts


def _parse(text: str, start: int) -> Reference:
    """Read the reference that begins at `start`, never further than `REFERENCE_LIMIT`."""
    plain = _PLAIN.match(text, start, start + REFERENCE_LIMIT)
    if plain is not None and plain[1].isprintable():
        return Reference(plain[0], tuple(plain[1].split(".")))
    window = text[start : start + REFERENCE_LIMIT]
    name, position = _name(window, len(_OPEN))
    path = [name]
    while window[position : position + 1] != "}":
        name, position = _step(window, position)
        path.append(name)
    return Reference(window[: position + 1], tuple(path))


def _step(window: str, position: int) -> tuple[str, int]:
    match window[position : position + 1]:
        case ".":
            return _name(window, position + 1)
        case "[":
            return _bracket(window, position + 1)
        case _:
            raise _malformed()


def _name(window: str, start: int) -> tuple[str, int]:
    found = _NAME.match(window, start)
    if found is None or not found[0].isprintable():
        raise _malformed()
    return found[0], found.end()


def _bracket(window: str, start: int) -> tuple[str, int]:
    quote = window[start : start + 1]
    if quote and quote in "\"'":
        end = window.find(quote, start + 1)
        name, close = window[start + 1 : end], end + 1
    else:
        close = end = window.find("]", start)
        name = window[start:end]
        if not _is_index(name):
            raise _malformed()
    if end < 0 or window[close : close + 1] != "]" or not name.isprintable():
        raise _malformed()
    return name, close + 1


def _malformed() -> UnresolvedReferenceError:
    return UnresolvedReferenceError(
        "A reference is malformed. Write ${input.name}, ${tasks.id.result.name} or ${session.id},"
        " and $${ for a plain ${."
    )


def _is_index(name: str) -> bool:
    return 0 < len(name) <= 9 and name.isascii() and name.isdigit()


@dataclass(slots=True)
class _Resolver:
    """Looks each reference up once and counts what all of them bring in."""

    scope: Mapping[str, Any]
    size: int = 0
    known: dict[str, tuple[Any, str, int]] = field(default_factory=dict)

    def walk(self, value: Any) -> Any:
        match value:
            case str():
                return self._fill(value)
            case dict() | Mapping():
                return {key: self.walk(item) for key, item in value.items()}
            case list() | tuple():
                return [self.walk(item) for item in value]
            case _:
                return value

    def _fill(self, text: str) -> Any:
        if _OPEN not in text:
            return text
        parts = split(text)
        if len(parts) == 1 and isinstance(parts[0], Reference):
            return self._value(parts[0])[0]
        return "".join(part if isinstance(part, str) else self._value(part)[1] for part in parts)

    def _value(self, reference: Reference) -> tuple[Any, str]:
        if reference.text not in self.known:
            value = _look_up(reference, self.scope)
            text = _as_text(value)
            size = max(LEAST_SIZE, len(text.encode("utf-8", "surrogatepass")))
            self.known[reference.text] = (value, text, size)
        value, text, size = self.known[reference.text]
        self.size += size
        if self.size > RESULT_LIMIT:
            raise ParametersTooLargeError(
                f"The references of this task bring in more than {RESULT_LIMIT // 1024} KiB."
                " Refer to a smaller part of the results."
            )
        return value, text


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _look_up(reference: Reference, scope: Mapping[str, Any]) -> Any:
    value: Any = scope
    for depth, name in enumerate(reference.path):
        match value:
            case dict() | Mapping() if name in value:
                value = value[name]
            case list() | tuple() if _is_index(name) and int(name) < len(value):
                value = value[int(name)]
            case _:
                raise UnresolvedReferenceError(_missing(reference, depth, value))
    return value


def _missing(reference: Reference, depth: int, value: Any) -> str:
    where = ".".join(reference.path[:depth]) or "the scope"
    return (
        f"The reference {reference.text} cannot be resolved: {where} has no"
        f" {json.dumps(reference.path[depth], ensure_ascii=False)}; {_inventory(value)}."
    )


def _inventory(value: Any) -> str:
    match value:
        case Mapping() if value:
            names = [str(name)[:_NAME_LENGTH_SHOWN] for name in list(value)[:_NAMES_SHOWN]]
            more = f" and {len(value) - _NAMES_SHOWN} more" if len(value) > _NAMES_SHOWN else ""
            return f"it has {', '.join(names)}{more}"
        case list() | tuple() if value:
            return f"it is a list of {len(value)}"
        case Mapping() | list() | tuple():
            return "it is empty"
        case None:
            return "it is null"
        case str():
            return "it is a text"
        case bool():
            return "it is true or false"
        case _:
            return "it is a number"


def _strings(value: Mapping[str, Any] | Sequence[Any], pointer: str) -> Iterator[tuple[str, str]]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, item in items:
        if isinstance(item, str):
            if _OPEN in item:
                yield point(pointer, str(key)), item
        elif isinstance(item, _CONTAINERS):
            yield from _strings(item, point(pointer, str(key)))
