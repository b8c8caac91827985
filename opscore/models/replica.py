"""Replicas: the processes that share one storage."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Replica:
    """A process as it last said of itself. `id` is the owner of the leases it takes.

    `place` is where the number of the process means this one; empty where that is not known.
    """

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    beat_at: datetime
    place: str = ""
