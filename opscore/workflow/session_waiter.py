"""Waiting for the end of a session, for triggers that want its result in their answer."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from opscore.models import Change, WorkflowSession
from opscore.workflow.engine import Engine

# A session that another process on the same storage ends is found by looking, ever more seldom.
_FIRST_POLL = timedelta(seconds=1)
_LONGEST_POLL = timedelta(seconds=4)


class SessionWaiter:
    """Wakes up on this process's own changes; looks by itself only where others write too."""

    def __init__(self, engine: Engine) -> None:
        self._storage = engine.storage
        self._clock = engine.clock
        self._events: defaultdict[str, list[asyncio.Event]] = defaultdict(list)
        self._stopped = False
        engine.subscribe(self._on_change)

    async def wait(self, session_id: str, seconds: float) -> WorkflowSession | None:
        """Return the session once it has ended; None if it has not when the time is over."""
        until = self._clock.now() + timedelta(seconds=seconds)
        pause = _FIRST_POLL
        with self._watched(session_id) as event:
            while True:
                # Before the read, so that an end which comes during it is not missed.
                event.clear()
                session = await self._storage.session(session_id)
                if session is None or session.status.ended:
                    return session
                if self._stopped or self._clock.now() >= until:
                    return None
                poll = until if self._storage.exclusive else self._clock.now() + pause
                await self._clock.wait(event, min(poll, until))
                pause = min(2 * pause, _LONGEST_POLL)

    def stop(self) -> None:
        """End every wait now; the service is shutting down."""
        self._stopped = True
        for events in self._events.values():
            for event in events:
                event.set()

    @contextmanager
    def _watched(self, session_id: str) -> Iterator[asyncio.Event]:
        event = asyncio.Event()
        self._events[session_id].append(event)
        try:
            yield event
        finally:
            self._events[session_id].remove(event)
            if not self._events[session_id]:
                del self._events[session_id]

    def _on_change(self, change: Change) -> None:
        if not self._events:
            return
        for session in change.sessions:
            if session.status.ended and session.id in self._events:
                for event in self._events[session.id]:
                    event.set()
