"""Which way a message goes, and what is known of AgentKit's forwards. Pure.

AgentKit accepts a task before it delivers it, and its delivery may fail without a word. So in
mode `auto` the service watches: a sign of life after an accepted forward proves that forwards
arrive; silence, and then an agent that takes the same task directly, disproves it.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from opscore.models import Agent, Delivery, DispatchMode, MessageType, Task

PROBE_EVERY = timedelta(minutes=10)


class Forwards(StrEnum):
    UNKNOWN = "unknown"
    PROVED = "proved"
    DISPROVED = "disproved"


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What was learned, since when, and when AgentKit is next given a chance."""

    state: Forwards = Forwards.UNKNOWN
    since: datetime | None = None
    next_probe: datetime | None = None


def learn(
    known: Forwarding, works: bool, now: datetime, every: timedelta = PROBE_EVERY
) -> Forwarding:
    state = Forwards.PROVED if works else Forwards.DISPROVED
    next_probe = None if works else now + every
    since = known.since if known.state is state else now
    return Forwarding(state, since, next_probe)


def route(
    mode: DispatchMode, known: Forwarding, task: Task, agent: Agent, now: datetime
) -> Delivery:
    if mode is DispatchMode.AGENTKIT or task.message_type is MessageType.TOOL_INVOCATION:
        return Delivery.AGENTKIT
    if mode is DispatchMode.DIRECT:
        return Delivery.DIRECT
    if agent.contact_endpoint is None:
        return Delivery.AGENTKIT
    avoids_agentkit = known.state is Forwards.DISPROVED and not is_probe_due(known, now)
    return Delivery.DIRECT if task.direct_next or avoids_agentkit else Delivery.AGENTKIT


def is_probe_due(known: Forwarding, now: datetime) -> bool:
    return known.next_probe is not None and known.next_probe <= now


def after_probe(known: Forwarding, now: datetime, every: timedelta = PROBE_EVERY) -> Forwarding:
    """A task has been sent to try AgentKit out; the next one only after a while."""
    return replace(known, next_probe=now + every)
