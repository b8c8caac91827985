"""Replicas: the processes that share one storage."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Replica:
    """A process as it last said of itself. `id` is the owner of the leases it takes."""

    id: str
    host: str
    pid: int
    version: str
    started_at: datetime
    beat_at: datetime
