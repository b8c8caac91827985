"""What a change must fit in a store, beside the versions of its records. Pure."""

from datetime import datetime

from opscore.models import Agent, Change, StateReport
from opscore.storage.interface import EARLY_REPORT_AGE


def only_told_of(change: Change) -> set[str]:
    """Sessions that only its events name."""
    changed = {session.id for session in change.sessions}
    changed.update(task.session_id for task in change.tasks)
    return {event.session_id for event in change.events if event.session_id} - changed


def has_heard(agent: Agent, early: StateReport, received_at: datetime) -> bool:
    """Whether a new agent was made in the knowledge of the report that came before it."""
    if received_at < agent.registered_at - EARLY_REPORT_AGE:
        return True
    known = agent.state
    return known is not None and (known.state, known.details) == (early.state, early.details)
