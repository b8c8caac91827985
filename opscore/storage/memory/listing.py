"""Lists: records in the order of their making, read by cursor while others write."""

import base64
import binascii
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from typing import TypeVar

from opscore.exceptions import BadRequestError
from opscore.models import Page, Task

T = TypeVar("T")
Key = tuple[datetime, str]


class NewestFirst:
    """The keys of records, sorted. Keys of forgotten records are swept out now and then."""

    def __init__(self, alive: Collection[str]) -> None:
        self._alive = alive
        self._keys: list[Key] = []

    def add(self, created_at: datetime, record_id: str) -> None:
        insort(self._keys, (created_at, record_id))

    def before(self, cursor: str | None) -> Iterator[str]:
        end = len(self._keys) if cursor is None else bisect_left(self._keys, _decode(cursor))
        for position in range(end - 1, -1, -1):
            record_id = self._keys[position][1]
            if record_id in self._alive:
                yield record_id

    def sweep(self) -> None:
        if len(self._keys) > 2 * len(self._alive) + 1000:
            self._keys = [key for key in self._keys if key[1] in self._alive]


def newest_first(tasks: Iterable[Task], cursor: str | None) -> list[Task]:
    """A few tasks sorted on the spot, those before the cursor."""
    end = None if cursor is None else _decode(cursor)
    before = (task for task in tasks if end is None or (task.created_at, task.id) < end)
    return sorted(before, key=lambda task: (task.created_at, task.id), reverse=True)


def page(items: Iterable[T], limit: int, cursor_of: Callable[[T], str]) -> Page[T]:
    """The first `limit` items, and a cursor if there are more."""
    taken: list[T] = []
    for item in items:
        if len(taken) == limit:
            return Page(tuple(taken), cursor_of(taken[-1]))
        taken.append(item)
    return Page(tuple(taken))


def time_cursor(created_at: datetime, record_id: str) -> str:
    return encode(f"{created_at.isoformat()} {record_id}")


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str) -> str:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        return base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise bad_cursor() from error


def bad_cursor() -> BadRequestError:
    return BadRequestError(
        "The cursor is not one this service gave out; start again without a cursor."
    )


def _decode(cursor: str) -> Key:
    moment, _, record_id = decode(cursor).partition(" ")
    try:
        created_at = datetime.fromisoformat(moment)
    except ValueError as error:
        raise bad_cursor() from error
    if created_at.tzinfo is None:
        raise bad_cursor()
    return created_at, record_id
