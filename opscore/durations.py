"""Durations as people write them: `10s`, `5m`, `1h30m`, `500ms`, `1d`, or a number of seconds."""

import math
import re
from datetime import timedelta

LONGEST = timedelta(days=30)

_UNITS = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}
_AMOUNT = r"[0-9]{1,20}(?:\.[0-9]{1,20})?"
_SECONDS = re.compile(_AMOUNT)
_PARTS = re.compile("".join(f"(?:({_AMOUNT}){unit})?" for unit in _UNITS))
_HINT = "Write a duration such as 10s, 5m, 1h30m, 500ms or 1d, or a number of seconds."


def parse_duration(value: object) -> timedelta:
    """Read a duration; raise ValueError with a sentence that says what is wrong with it.

    Units stand from large to small, each at most once; any of them may have decimals.
    """
    match value:
        case bool():
            raise ValueError(f"A duration cannot be true or false. {_HINT}")
        case int() | float():
            return _within_limits(value, _UNITS["s"])
        case str():
            return _parse_text(value.strip())
        case _:
            raise ValueError(_HINT)


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as the same duration."""
    text = ""
    *coarse, (_, millisecond) = _UNITS.items()
    for unit, size in coarse:
        count, duration = divmod(duration, size)
        text += f"{count}{unit}" if count else ""
    millis, micros = divmod(duration, millisecond)
    if micros:
        text += f"{millis}.{micros.microseconds:03}".rstrip("0") + "ms"
    elif millis:
        text += f"{millis}ms"
    return text or "0s"


def _parse_text(text: str) -> timedelta:
    if text.startswith("-"):
        raise ValueError("A duration cannot be negative.")
    if _SECONDS.fullmatch(text):
        return _within_limits(float(text), _UNITS["s"])
    found = _PARTS.fullmatch(text)
    if not text or found is None:
        raise ValueError(f"This is not a duration. {_HINT}")
    amounts = zip(found.groups(), _UNITS.values(), strict=True)
    parts = [_within_limits(float(amount), size) for amount, size in amounts if amount]
    return _checked(sum(parts, timedelta()))


def _within_limits(amount: float, size: timedelta) -> timedelta:
    if amount < 0:
        raise ValueError("A duration cannot be negative.")
    # Compared before it is multiplied: a timedelta overflows where a comparison does not.
    if amount > LONGEST / size:
        raise ValueError(_too_long())
    if math.isnan(amount):
        raise ValueError(_HINT)
    return _checked(amount * size)


def _checked(duration: timedelta) -> timedelta:
    if duration > LONGEST:
        raise ValueError(_too_long())
    return duration


def _too_long() -> str:
    return f"A duration may be at most {LONGEST.days} days."
