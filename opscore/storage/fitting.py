"""What a change must fit in a store, beside the versions of its records. Pure."""

from opscore.models import Change


def only_told_of(change: Change) -> set[str]:
    """Sessions that only its events name."""
    changed = {session.id for session in change.sessions}
    changed.update(task.session_id for task in change.tasks)
    return {event.session_id for event in change.events if event.session_id} - changed
