"""Identifiers: time-ordered ones for what begins, derived ones for what follows from it."""

import secrets
import time
import uuid

_last_stamp = 0


def new_id() -> str:
    """A UUIDv7. Ids made by one process rise strictly, so they sort by their time of making."""
    global _last_stamp
    # 48 bits of milliseconds followed by 12 bits of the fraction, as RFC 9562 method 3 has it.
    stamp = max((time.time_ns() << 12) // 1_000_000, _last_stamp + 1)
    _last_stamp = stamp
    millis, fraction = stamp >> 12, stamp & 0xFFF
    value = (millis << 80) | (0x7 << 76) | (fraction << 64) | (0b10 << 62) | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def task_id(session_id: str, step_id: str, stands_for: str | None = None) -> str:
    """The id of a session's task for one step, or for a step that stands in for another.

    It is derived, not drawn: whoever decides twice that a step follows names the same task,
    and the storage keeps one.
    """
    name = step_id if stands_for is None else f"{step_id} for {stands_for}"
    return str(uuid.uuid5(uuid.UUID(session_id), name))
