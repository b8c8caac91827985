"""The one process that uses a storage in memory: its duties, and that it needs no mending."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from opscore.models import Event, Page, Replica
from opscore.storage.interface import Storage


class MemoryReplicas(Storage):
    def __init__(self) -> None:
        self._replicas_lock = threading.Lock()
        self._replicas: dict[str, Replica] = {}
        self._duties: dict[str, tuple[str, datetime]] = {}

    async def mend(
        self,
        cursor: str | None,  # noqa: ARG002 - what is kept beside the records is made from them
        limit: int,  # noqa: ARG002 - see above
        now: datetime,  # noqa: ARG002 - see above
    ) -> Page[Event]:
        """Nothing ever gets out of step."""
        return Page(())

    def on_hint(self, wake: Callable[[], None]) -> None:
        """There is no other process."""

    async def time(self) -> datetime | None:
        return None

    async def beat(self, replica: Replica, forget_before: datetime) -> None:
        with self._replicas_lock:
            known = {**self._replicas, replica.id: replica}
            self._replicas = {i: one for i, one in known.items() if one.beat_at >= forget_before}

    async def leave(self, replica_id: str) -> None:
        with self._replicas_lock:
            self._replicas.pop(replica_id, None)
            kept = {name: held for name, held in self._duties.items() if held[0] != replica_id}
            self._duties = kept

    async def replicas(self) -> Sequence[Replica]:
        with self._replicas_lock:
            return sorted(self._replicas.values(), key=lambda one: one.id)

    async def take_duty(self, name: str, owner: str, now: datetime, until: datetime) -> bool:
        with self._replicas_lock:
            held_by, held_until = self._duties.get(name, (owner, now))
            if held_by != owner and held_until > now:
                return False
            self._duties[name] = (owner, until)
            return True
