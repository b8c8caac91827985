"""YAML text as a document: the part of YAML that JSON has too, and no surprises.

The text is read as a stream of events, and a document that is refused is refused at the event
that shows why, before anything is built from the rest. Plain scalars stay as they are written:
the schema gives them their types, not the guesses of YAML.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from opscore.exceptions import Fault, InvalidWorkflowError
from opscore.json_rules import MAX_DEPTH, MAX_MEMBERS
from opscore.workflow.values import Plain

MOST_NODES = MAX_MEMBERS

# The parser written in C is several times faster, but not every build of PyYAML has it.
FASTEST_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_FORBIDDEN = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Position = tuple[int, int]
_Container = dict[str | None, Any] | list[Any]


@dataclass(frozen=True, slots=True)
class YamlDocument:
    """The document, and where each of its members stands in the text."""

    value: Any
    positions: dict[tuple[int, str | None], Position]

    def locate(self, pointer: str) -> Position | None:
        """Line and column of what a JSON pointer leads to, or of the nearest thing above it."""
        found, value = None, self.value
        for token in pointer.split("/")[1:]:
            name = token.replace("~1", "/").replace("~0", "~")
            position = self.positions.get((id(value), name))
            if position is None:
                return found
            found = position
            value = value[name] if isinstance(value, dict) else value[int(name)]
        return found


def parse_yaml(text: str, loader: Any = FASTEST_LOADER) -> YamlDocument:
    """Read the text or raise InvalidWorkflowError with the line and column of what is wrong."""
    if found := _FORBIDDEN.search(text):
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - text.rfind("\n", 0, found.start())
        raise _refused("The text has a character that YAML does not allow", (line, column))
    try:
        return _Builder().build(yaml.parse(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        where = _position(error.problem_mark)
        raise _refused(f"The text is not YAML: {error.problem}", where) from error


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end was not seen yet; `key` waits for its value."""

    value: _Container
    key: str | None = None
    key_position: Position = (0, 0)


@dataclass(slots=True)
class _Builder:
    open: list[_Open] = field(default_factory=list)
    positions: dict[tuple[int, str | None], Position] = field(default_factory=dict)
    nodes: int = 0
    documents: int = 0
    root: Any = None

    def build(self, events: Iterator[Any]) -> YamlDocument:
        for event in events:
            self._take(event)
        return YamlDocument(self.root, self.positions)

    def _take(self, event: Any) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise _refused("There is more than one document", _position(event.start_mark))
            case yaml.AliasEvent():
                raise _refused("Anchors and aliases are not allowed", _position(event.start_mark))
            case yaml.NodeEvent():
                self._take_node(event)
            case yaml.CollectionEndEvent():
                self.open.pop()
            case _:
                pass

    def _take_node(self, event: Any) -> None:
        if event.anchor is not None:
            raise _refused("Anchors and aliases are not allowed", _position(event.start_mark))
        if event.tag is not None:
            raise _refused("Tags are not allowed", _position(event.start_mark))
        if self.open and isinstance(self.open[-1].value, dict) and self.open[-1].key is None:
            self._take_key(self.open[-1], event)
            return
        self.nodes += 1
        if self.nodes > MOST_NODES:
            message = f"The document has more than {MOST_NODES} values"
            raise _refused(message, _position(event.start_mark), "too_many_values")
        self._take_value(event)

    def _take_key(self, parent: _Open, event: Any) -> None:
        position = _position(event.start_mark)
        if not isinstance(event, yaml.ScalarEvent):
            raise _refused("A name must be a text, not a list or a mapping", position)
        plain = event.implicit[0]
        if plain and event.value == "<<":
            raise _refused("Merge keys are not allowed", position)
        if plain and not event.value:
            raise _refused("A name is missing before the colon", position)
        if event.value in parent.value:
            raise _refused("A name stands twice in its mapping", position, "repeated_name")
        parent.key, parent.key_position = event.value, position

    def _take_value(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._add(Plain(event.value) if event.implicit[0] else event.value, event)
            return
        if len(self.open) >= MAX_DEPTH:
            message = f"Values may be nested at most {MAX_DEPTH} deep"
            raise _refused(message, _position(event.start_mark), "too_deep")
        value: _Container = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._add(value, event)
        self.open.append(_Open(value))

    def _add(self, value: Any, event: Any) -> None:
        if not self.open:
            self.root = value
            return
        parent = self.open[-1]
        if isinstance(parent.value, list):
            self.positions[id(parent.value), str(len(parent.value))] = _position(event.start_mark)
            parent.value.append(value)
        else:
            self.positions[id(parent.value), parent.key] = parent.key_position
            parent.value[parent.key] = value
            parent.key = None


def _position(mark: Any) -> Position:
    return mark.line + 1, mark.column + 1


def _refused(message: str, position: Position, code: str = "bad_yaml") -> InvalidWorkflowError:
    placed = f"{message} (line {position[0]}, column {position[1]})."
    return InvalidWorkflowError(placed, faults=[Fault("", placed, code)])
