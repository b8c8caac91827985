"""What other services answer, read with the same care as what clients send."""

import re
from collections.abc import Iterable
from typing import Any

import orjson

from opscore.json_rules import MAX_DEPTH, MAX_INTEGER, has_too_many_members
from opscore.models import RESULT_LIMIT

# Each value takes two bytes at least: what holds more is larger than any result may be.
MAX_MEMBERS = RESULT_LIMIT // 2

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class UnacceptableBodyError(ValueError):
    """The body is no JSON, or JSON that could not be stored and shown everywhere alike."""


class TooManyMembersError(UnacceptableBodyError):
    """The body holds so many values that checking them would keep everything else waiting."""


def read_json(body: bytes) -> Any:
    """The value of a JSON body. Raise UnacceptableBodyError with the reason as a clause."""
    if has_too_many_members(body, MAX_MEMBERS):
        raise TooManyMembersError(f"it holds more than {MAX_MEMBERS} values")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise UnacceptableBodyError("it is not valid JSON") from error
    _check(value, MAX_DEPTH)
    return value


def read_text(body: bytes, limit: int) -> str:
    """The beginning of a body as text of at most `limit` bytes; what is not text is replaced."""
    text = _CONTROL.sub("\ufffd", body[:limit].decode("utf-8", "replace"))
    return text.encode()[:limit].decode("utf-8", "ignore")


def _check(value: Any, levels: int) -> None:
    if isinstance(value, str):
        if "\0" in value:
            raise UnacceptableBodyError("it holds a NUL character")
    elif isinstance(value, dict):
        _check_all(value, levels)
        _check_all(value.values(), levels)
    elif isinstance(value, list):
        _check_all(value, levels)
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise UnacceptableBodyError("it holds an integer beyond ±2^53")


def _check_all(values: Iterable[Any], levels: int) -> None:
    if levels == 0:
        raise UnacceptableBodyError(f"it is nested more than {MAX_DEPTH} levels deep")
    for value in values:
        _check(value, levels - 1)
