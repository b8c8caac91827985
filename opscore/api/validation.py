"""Translates pydantic's errors into sentences that say what to send instead."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from opscore.exceptions import MAX_FAULTS, Fault, ValidationError
from opscore.json_rules import MAX_POINTER, pointer_token
from opscore.suggestions import closest

Found = Mapping[str, Any]
"""One error as pydantic lists it."""


def validation_error(
    errors: Sequence[Found], model: type[BaseModel] | None = None
) -> ValidationError:
    """Pydantic's errors as ours: where, and what to do; never what was sent.

    `model` is what the body was read as; its fields are suggested for one that is not known.
    """
    faults = [_fault(error, model) for error in errors[:MAX_FAULTS]]
    if len(errors) == 1:
        return ValidationError(_detail(errors[0], faults[0]), faults=faults)
    more = len(errors) - len(faults)
    tail = f" {more} more are not listed." if more > 0 else ""
    return ValidationError(f"The request is not valid; see errors.{tail}", faults=faults)


def model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation names, perhaps as one of several alternatives."""
    candidates = (annotation, *get_args(annotation))
    return next((one for one in candidates if _is_model(one)), None)


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _fault(error: Found, model: type[BaseModel] | None) -> Fault:
    kind = str(error["type"])
    message = _unknown_field(error, model) if kind == "extra_forbidden" else _sentence(error)
    return Fault(_pointer(error["loc"]), message, kind)


def _detail(error: Found, fault: Fault) -> str:
    """The only fault, with the name of its field where the sentence does not speak of a name."""
    place = fault.pointer.removeprefix("/query/").removeprefix("/header/").removeprefix("/")
    if not place or error["type"] == "extra_forbidden":
        return fault.message
    return f"{place}: {fault.message}"


def _pointer(loc: Sequence[str | int]) -> str:
    """A JSON pointer into the body; for the rest of the request, its part comes first."""
    parts = loc[1:] if loc and loc[0] == "body" else loc
    if loc and loc[0] == "query":
        # Which of a parameter's values it is says nothing.
        parts = loc[:2]
    return "".join(f"/{pointer_token(str(part))}" for part in parts)[:MAX_POINTER]


# --- fields that are not known ----------------------------------------------------------------


def _unknown_field(error: Found, model: type[BaseModel] | None) -> str:
    known = _fields(model)
    if guess := closest(str(error["loc"][-1]), known):
        return f"This field is not known. Did you mean {guess}?"
    if known:
        return f"This field is not known. The fields here are: {', '.join(known)}."
    return "This field is not known; /docs lists those that are."


def _fields(model: type[BaseModel] | None) -> list[str]:
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


# --- values -----------------------------------------------------------------------------------

_TEXTS = {
    "missing": "This is required.",
    "string_type": "It must be a text.",
    "bool_type": "It must be true or false.",
    "bool_parsing": "It must be true or false.",
    "int_type": "It must be a whole number.",
    "int_parsing": "It must be a whole number.",
    "int_parsing_size": "It must be a whole number, and a smaller one.",
    "int_from_float": "It must be a whole number.",
    "float_type": "It must be a number.",
    "float_parsing": "It must be a number.",
    "finite_number": "It must be a number, not NaN or infinite.",
    "dict_type": "It must be an object.",
    "mapping_type": "It must be an object.",
    "model_type": "It must be an object.",
    "model_attributes_type": "It must be an object.",
    "list_type": "It must be a list.",
    "tuple_type": "It must be a list.",
    "json_invalid": "It must be valid JSON.",
}
_BOUNDS: dict[str, Callable[[Any], str]] = {
    "greater_than_equal": lambda ctx: f"It must be at least {_number(ctx['ge'])}.",
    "greater_than": lambda ctx: f"It must be more than {_number(ctx['gt'])}.",
    "less_than_equal": lambda ctx: f"It must be at most {_number(ctx['le'])}.",
    "less_than": lambda ctx: f"It must be less than {_number(ctx['lt'])}.",
    "string_too_short": lambda ctx: _at_least(ctx["min_length"], "character"),
    "string_too_long": lambda ctx: _at_most(ctx["max_length"], "character"),
    "too_short": lambda ctx: _at_least(ctx["min_length"], "entry"),
    "too_long": lambda ctx: _at_most(ctx["max_length"], "entry"),
}
_MOMENT = "It must be a time: ISO 8601 such as 2026-01-01T12:00:00Z, or unix seconds."
_ELSE = "It is not valid here; /docs says what is expected."

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
VISIBLE_PATTERN = r"^[\x21-\x7e]+$"
_PATTERNS = {
    ID_PATTERN: "It must begin with a letter or a digit, and have at most 128 letters, digits, "
    "'.', '_', ':' and '-'.",
    VISIBLE_PATTERN: "It must have visible ASCII characters only, and no spaces.",
}


def _sentence(error: Found) -> str:
    kind, ctx = str(error["type"]), error.get("ctx") or {}
    if kind in _TEXTS:
        return _TEXTS[kind]
    if kind in _BOUNDS:
        return _BOUNDS[kind](ctx)
    if kind.startswith(("datetime_", "date_", "timezone_")):
        return _MOMENT
    match kind:
        case "string_pattern_mismatch":
            return _PATTERNS.get(ctx["pattern"], _ELSE)
        case "enum" | "literal_error":
            return _one_of(error.get("input"), re.findall("'([^']*)'", ctx["expected"]))
        case "value_error":
            # Raised by a validator of ours, so its words are ours.
            return _capitalised(str(ctx["error"]))
    return _ELSE


def _one_of(given: Any, words: list[str]) -> str:
    guess = closest(given, words) if isinstance(given, str) else None
    hint = f" Did you mean {guess}?" if guess else ""
    return f"It must be one of: {', '.join(words)}.{hint}"


def _capitalised(message: str) -> str:
    return f"{message[:1].upper()}{message[1:].rstrip('.')}."


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _at_least(count: int, what: str) -> str:
    return (
        "It must not be empty." if count == 1 else f"It must have at least {count} {_many(what)}."
    )


def _at_most(count: int, what: str) -> str:
    return f"It may have at most {count} {what if count == 1 else _many(what)}."


def _many(what: str) -> str:
    return {"character": "characters", "entry": "entries"}[what]
