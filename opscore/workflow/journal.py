"""The journal: every applied event as a log line, with the ids that tie lines together."""

import logging

from opscore.models import Change, Event, EventType

logger = logging.getLogger(__name__)

_ROUTINE = frozenset({EventType.AGENT_STATE, EventType.TASK_HEARTBEAT, EventType.STORAGE_PRUNED})
_TROUBLE = frozenset(
    {
        EventType.AGENT_LOST,
        EventType.SESSION_FAILED,
        EventType.SESSION_TIMED_OUT,
        EventType.STORAGE_REPAIRED,
        EventType.TASK_ATTEMPT_FAILED,
        EventType.TASK_FAILED,
        EventType.TASK_TIMED_OUT,
    }
)
_SHOWN = ("stepId", "attempt", "via", "code", "reason", "workflowId", "until", "found")


def log_events(change: Change) -> None:
    """A listener of the engine."""
    for event in change.events:
        level = _level(event.type)
        if logger.isEnabledFor(level):
            logger.log(level, "%s", event.type.value, extra=_context(event))


def _level(type_: EventType) -> int:
    if type_ in _ROUTINE:
        return logging.DEBUG
    return logging.WARNING if type_ in _TROUBLE else logging.INFO


def _context(event: Event) -> dict[str, object]:
    ids = {
        "agent_id": event.agent_id,
        "session_id": event.session_id,
        "task_id": event.task_id,
    }
    shown = {key: event.data[key] for key in _SHOWN if key in event.data}
    return {key: value for key, value in {**ids, **shown}.items() if value is not None}
