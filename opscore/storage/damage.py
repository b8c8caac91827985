"""Records that cannot be read. Each is told of once, and whoever looks through many goes on."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

R = TypeVar("R")

logger = logging.getLogger(__name__)

UNREADABLE = (ValueError, TypeError)
"""What decoding raises."""


def readable(
    table: str, rows: Sequence[Sequence[Any]], read: Callable[[Sequence[Any]], R], id_at: int = 0
) -> Iterator[tuple[Sequence[Any], R]]:
    """Those rows of which something can be read, with it."""
    for row in rows:
        try:
            record = read(row)
        except UNREADABLE:
            tell_once(table, row[id_at])
        else:
            yield row, record


def read_or_none(table: str, record_id: str, read: Callable[[], R]) -> R | None:
    try:
        return read()
    except UNREADABLE:
        tell_once(table, record_id)
        return None


async def await_or_none(table: str, record_id: str, reading: Awaitable[R | None]) -> R | None:
    try:
        return await reading
    except UNREADABLE:
        tell_once(table, record_id)
        return None


@lru_cache(maxsize=10_000)
def tell_once(table: str, record_id: str) -> None:
    logger.warning(
        "Record %s in %s cannot be read and is passed over; "
        "restore it from a backup, or delete it while the service is stopped.",
        record_id,
        table,
    )
