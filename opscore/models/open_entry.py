"""Open entries: messages and answers that an agent may still report about without an id."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class EntryKind(StrEnum):
    """Why an agent may still report about something that is not its task in flight."""

    ANSWERED = "answered"
    CANCELLED = "cancelled"
    UNSETTLED = "unsettled"

    @property
    def is_echo(self) -> bool:
        """The work is settled; the agent may only repeat `active` and `idle` for the message."""
        return self is not EntryKind.UNSETTLED


@dataclass(frozen=True, slots=True)
class OpenEntry:
    """One attempt, cancel message or direct answer that a report without an id may be about.

    An entry ends at `until` by itself. `active` says that an `active` was taken for it. While
    `holds`, the agent is given no task. `awaits_echo` says that the agent was told to cancel the
    attempt and has not echoed that.
    """

    kind: EntryKind
    task_id: str
    session_id: str
    step_id: str
    attempt: int
    since: datetime
    until: datetime
    active: bool = False
    holds: bool = False
    awaits_echo: bool = False

    @property
    def task_attempt(self) -> tuple[str, int]:
        """The attempt that the entry is about."""
        return self.task_id, self.attempt
