"""Bounds on a single connection."""

from dataclasses import dataclass

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Times are in seconds.

    `header_timeout` bounds the time for the complete headers of a request. `write_timeout` bounds
    the time in which a client takes nothing of its answer. `drain_timeout` and `max_drained_bytes`
    bound what is read and discarded after a request was refused before its end.
    """

    header_timeout: float = 15.0
    max_header_bytes: int = 64 * 1024
    write_timeout: float = 30.0
    drain_timeout: float = 5.0
    max_drained_bytes: int = 32 * MEBIBYTE
