"""Cursors: places in a list, told to clients as opaque words. Pure."""

import base64
import binascii
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from opscore.exceptions import BadRequestError
from opscore.models import Page

T = TypeVar("T")


def page(items: Iterable[T], limit: int, cursor_of: Callable[[T], str]) -> Page[T]:
    """The first `limit` items, and a cursor if there are more."""
    taken: list[T] = []
    for item in items:
        if len(taken) == limit:
            return Page(tuple(taken), cursor_of(taken[-1]))
        taken.append(item)
    return Page(tuple(taken))


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        text = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise _bad_cursor() from error
    # No name has it, and PostgreSQL takes no text that does.
    if "\0" in text:
        raise _bad_cursor()
    return text


def time_cursor(created_at: datetime, record_id: str) -> str:
    """The place of a record in the order of making."""
    return encode(f"{created_at.isoformat()} {record_id}")


def time_place(cursor: str) -> tuple[datetime, str]:
    moment, _, record_id = decode(cursor).partition(" ")
    try:
        created_at = datetime.fromisoformat(moment)
    except ValueError as error:
        raise _bad_cursor() from error
    if created_at.tzinfo is None:
        raise _bad_cursor()
    return created_at, record_id


def sequence(cursor: str | None) -> int | None:
    """The sequence number that a cursor stands for."""
    if cursor is None:
        return None
    text = decode(cursor)
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _bad_cursor()
    return int(text)


def _bad_cursor() -> BadRequestError:
    return BadRequestError(
        "The cursor is not one this service gave out; start again without a cursor."
    )
