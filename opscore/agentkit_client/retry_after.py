"""The Retry-After header: how long the other side asks to be left alone."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

DEFAULT_WAIT = timedelta(seconds=5)
# A wait costs no retry, so one of nothing at all would be a loop without an end.
SHORTEST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=10)

_SECONDS = re.compile(r"[0-9]{1,9}", re.ASCII)


def read_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """The wait asked for, within bounds; None for no header and for one that makes no sense."""
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return _within_bounds(timedelta(seconds=int(text)))
    moment = _read_date(text)
    return None if moment is None or moment < now else _within_bounds(moment - now)


def _within_bounds(wait: timedelta) -> timedelta:
    return min(max(wait, SHORTEST_WAIT), LONGEST_WAIT)


def _read_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError, IndexError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
