"""JSON as requests may carry it: stricter than the standard, and the same on every storage.

`parse_json` refuses what the standard leaves open or what a storage could not keep: NaN,
infinities, lone surrogates, NUL characters, nesting over 64, integers that lose digits elsewhere,
duplicate keys. It also refuses more values than a request needs. A fast parser does the work; cheap
counts prove most bodies clean, and only the rest is looked at closely.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn

import orjson

from opscore.exceptions import MAX_FAULTS, BadRequestError, Fault, ValidationError
from opscore.json_rules import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_MEMBERS,
    MAX_POINTER,
    STRING,
    has_too_many_members,
    pointer_token,
)

LOCATE_LIMIT = 64 * 1024

_ONE_SHAPE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_DIGITS_ALIKE = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 16
_SPACED_COLON = re.compile(rb"[ \t\r\n]:")
_INTEGER = re.compile(rb"(?<![0-9.eE+\-])-?([0-9]{16,}+)(?![.eE])")
_NUL_ESCAPE = re.compile(rb"(?<!\\)(?:\\\\)*+\\u0000")
_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def parse_json(
    raw: bytes, max_depth: int = MAX_DEPTH, max_members: int | None = MAX_MEMBERS
) -> Any:
    """Return the value of a JSON text; raise BadRequestError or ValidationError, never echo it."""
    if max_members is not None and has_too_many_members(raw, max_members):
        message = f"Send at most {max_members} values; split the body, or send values as one text."
        raise _refused(Fault("", message, "too_many_members"))
    if raw.count(b"[") + raw.count(b"{") > max_depth and _too_deep(_bare(raw), max_depth):
        raise _refused(Fault("", f"Nest at most {max_depth} levels deep.", "too_deep"))
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        _refuse_broken(raw, error)
    if _suspicious(raw, value):
        _check_closely(raw, value)
    return value


def check_utf8(raw: bytes) -> None:
    """Raise BadRequestError unless the text is UTF-8 without a byte order mark."""
    if raw.startswith(_BYTE_ORDER_MARKS) or 0 in raw[:4]:
        raise BadRequestError("Send the body as UTF-8 without a byte order mark.")
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise BadRequestError("The body is not valid UTF-8; encode it as UTF-8.") from error


def _refused(*faults: Fault) -> ValidationError:
    return ValidationError("The body is not acceptable JSON; see errors.", faults=faults)


def _refuse_broken(raw: bytes, error: orjson.JSONDecodeError) -> NoReturn:
    check_utf8(raw)
    place = f"line {error.lineno}, column {error.colno}"
    fault = Fault("", f"At {place}: {error.msg}.", "syntax")
    raise ValidationError(f"The body is not valid JSON at {place}.", faults=[fault]) from error


def _bare(raw: bytes) -> bytes:
    """The text with every string taken out: what is left is structure and numbers."""
    return STRING.sub(b"", raw)


def _too_deep(bare: bytes, max_depth: int) -> bool:
    brackets = bare.translate(_ONE_SHAPE, _NOT_BRACKETS)
    # Each round takes away the innermost level. Brackets without a partner stay, for the parser.
    for _ in range(max_depth):
        if b"[]" not in brackets:
            break
        brackets = brackets.replace(b"[]", b"")
    return b"[]" in brackets or brackets.count(b"[") > max_depth


def _suspicious(raw: bytes, value: Any) -> bool:
    """Whether the text might break a rule. May be wrong in one direction only: by saying yes."""
    if b"\\u0000" in raw or _LONG_NUMBER in raw.translate(_DIGITS_ALIKE):
        return True
    # Without space before a colon, every key ends in `":`; the same inside a string only adds.
    return raw.count(b'":') != _count_members(value) or _SPACED_COLON.search(raw) is not None


def _count_members(value: Any) -> int:
    total = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            total += len(item)
            waiting += item.values()
        elif type(item) is list:
            waiting += item
    return total


def _check_closely(raw: bytes, value: Any) -> None:
    bare = _bare(raw)
    if (
        _NUL_ESCAPE.search(raw)
        or any(_out_of_range(match[1]) for match in _INTEGER.finditer(bare))
        or bare.count(b":") != _count_members(value)
    ):
        raise _refused(*_locate(raw))


def _out_of_range(digits: bytes) -> bool:
    return len(digits) > 16 or int(digits) > MAX_INTEGER


class _Members(list[tuple[str, Any]]):
    """The members of an object as they stand in the text, duplicates included."""


def _locate(raw: bytes) -> list[Fault]:
    if len(raw) > LOCATE_LIMIT:
        message = "A key is there twice, an integer is beyond ±2^53, or a string holds \\u0000."
        return [Fault("", message, "unacceptable")]
    value = json.loads(raw, object_pairs_hook=_Members, parse_int=_bounded_int)
    return list(islice(_faults(value, ""), MAX_FAULTS))


def _bounded_int(text: str) -> int:
    return int(text) if len(text) <= 17 else MAX_INTEGER + 1


def _faults(value: Any, pointer: str) -> Iterator[Fault]:
    if isinstance(value, _Members):
        yield from _member_faults(value, pointer)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{pointer}/{index}")
    elif isinstance(value, str) and "\0" in value:
        yield Fault(pointer[:MAX_POINTER], "Remove the NUL character.", "nul_character")
    elif isinstance(value, int) and abs(value) > MAX_INTEGER:
        message = "Integers go up to ±2^53; send a longer one as a string."
        yield Fault(pointer[:MAX_POINTER], message, "integer_out_of_range")


def _member_faults(members: _Members, pointer: str) -> Iterator[Fault]:
    seen = set()
    for key, item in members:
        if "\0" in key:
            yield Fault(pointer[:MAX_POINTER], "A key holds a NUL character.", "nul_character")
            continue
        place = f"{pointer}/{pointer_token(key)}"
        if key in seen:
            yield Fault(place[:MAX_POINTER], "This key is there twice.", "duplicate_key")
        seen.add(key)
        yield from _faults(item, place)
