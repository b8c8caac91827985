"""Answers about events."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from opscore.api.views.base import View
from opscore.models import (
    Event,
    EventType,
)


class EventView(View):
    seq: int
    type: EventType
    at: datetime
    agent_id: str | None
    session_id: str | None
    task_id: str | None
    data: Mapping[str, Any]

    @classmethod
    def of(cls, event: Event) -> "EventView":
        return cls(
            seq=event.seq,
            type=event.type,
            at=event.at,
            agent_id=event.agent_id,
            session_id=event.session_id,
            task_id=event.task_id,
            data=event.data,
        )
