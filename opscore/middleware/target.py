"""What a request may name: paths and queries without control characters or hidden slashes."""

import re

from starlette.types import Scope

from opscore.exceptions import BadRequestError, Fault, ValidationError

MAX_PATH = 2048
MAX_SEGMENT = 255
MAX_QUERY = 8192

_HIDDEN = re.compile(rb"%(?:2[ef]|5c|[01][0-9a-f]|7f)", re.IGNORECASE)
_CONTROL = re.compile(rb"%(?:[01][0-9a-f]|7f)", re.IGNORECASE)
_RAW_CONTROL = re.compile(rb"[\x00-\x20\x7f]")
_PARENT = re.compile(r"/\.{1,2}(?:/|$)")


def check_target(scope: Scope) -> None:
    """Raise ValidationError for a path or query that only an attack or a mistake would send."""
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if len(path) > MAX_SEGMENT or not (path.isascii() and path.isprintable()):
        _check_length_and_letters(path)
    if "/." in path and _PARENT.search(path):
        raise _refused("Send the path without '.' and '..' segments.")
    if raw is not None and b"%" in raw and _HIDDEN.search(raw):
        raise _refused("The path holds encoded dots, slashes or control characters; remove them.")
    query: bytes = scope.get("query_string", b"")
    if query:
        _check_query(query)


def _check_length_and_letters(path: str) -> None:
    if len(path) > MAX_PATH or any(len(part) > MAX_SEGMENT for part in path.split("/")):
        raise _refused(f"A segment of the path may have at most {MAX_SEGMENT} characters.")
    # Isprintable is false for separators, direction marks and whatever cannot be seen.
    if not path.isprintable():
        raise _refused("The path holds characters that cannot be seen; remove them.")


def _check_query(query: bytes) -> None:
    if len(query) > MAX_QUERY:
        raise BadRequestError(f"The query may have at most {MAX_QUERY} bytes.")
    if _RAW_CONTROL.search(query) or (b"%" in query and _CONTROL.search(query)):
        raise _refused("The query holds control characters; remove them.")


def _refused(message: str) -> ValidationError:
    return ValidationError(message, faults=[Fault("", message, "bad_target")])
