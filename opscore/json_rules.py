"""Rules for JSON that hold everywhere: depth, integers, the number of values, and pointers.

The values of a text are counted before anything is built from it: a text of 1 MiB can hold half a
million; reading, checking and storing them keeps every other request waiting.
"""

import re

MAX_DEPTH = 64
MAX_INTEGER = 2**53
MAX_MEMBERS = 20_000
MAX_POINTER = 200
"""The most characters of a pointer that an answer shows."""

# The closing quote is optional, so that an open string is passed once and not tried again.
STRING = re.compile(rb'"(?>[^"\\]+|\\.)*+"?', re.DOTALL)

_BLANKS = b" \t\r\n"


def has_too_many_members(raw: bytes, limit: int = MAX_MEMBERS) -> bool:
    """Tell whether the objects and lists of a text have more than `limit` members in all."""
    # Each member needs a byte, and a comma or the bracket before it: most texts end here.
    if len(raw) <= limit or _separators(raw) <= limit:
        return False
    return count_members(raw) > limit


def count_members(raw: bytes) -> int:
    """Return how many members the objects and lists of a sound text have in all."""
    bare = STRING.sub(b"0", raw).translate(None, _BLANKS)
    return _separators(bare) - bare.count(b"[]") - bare.count(b"{}")


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def pointer_token(name: str) -> str:
    """Return a member's name as it stands in a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")
