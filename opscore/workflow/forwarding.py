"""Which way a message goes, and what signs of life say of AgentKit's forwards. Pure.

AgentKit accepts a task before it delivers it, and its delivery may fail without a word. In mode
`auto` the service therefore observes what its agents show. Only a sign of life of an agent counts:
an acceptance, and a result that may be an operator's, teach nothing.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from opscore.models import (
    Agent,
    AgentKitKnowledge,
    ClaimScope,
    Delivery,
    DispatchMode,
    ForwardObservation,
    Forwards,
    MessageType,
    Task,
)

PROBE_EVERY = timedelta(minutes=10)
_UNREACHED_LIMIT = 2
"""So many agents that proved forwards have missed disprove them; one says something of itself."""


def observe(
    known: AgentKitKnowledge,
    seen: ForwardObservation,
    now: datetime,
    every: timedelta = PROBE_EVERY,
) -> AgentKitKnowledge:
    """Return what is known after the observation; the same value if it says nothing new."""
    if seen.arrived:
        since = known.since if known.forwards is Forwards.PROVED else now
        return replace(known, forwards=Forwards.PROVED, since=since, next_probe=None, unreached=())
    if known.forwards is Forwards.DISPROVED:
        return known
    unreached = tuple(dict.fromkeys((*known.unreached, seen.agent_id)))
    if known.forwards is Forwards.PROVED and len(unreached) < _UNREACHED_LIMIT:
        return replace(known, unreached=unreached)
    return replace(
        known, forwards=Forwards.DISPROVED, since=now, next_probe=now + every, unreached=()
    )


def choose(
    mode: DispatchMode,
    known: AgentKitKnowledge,
    task: Task,
    agent: Agent,
    now: datetime,
    agentkit_has_room: bool = True,
) -> Delivery:
    """Return the channel of a claimed task."""
    if mode is DispatchMode.AGENTKIT or task.message_type is MessageType.TOOL_INVOCATION:
        return Delivery.AGENTKIT
    if mode is DispatchMode.DIRECT:
        return Delivery.DIRECT
    if agent.contact_endpoint is None:
        return Delivery.AGENTKIT
    avoids_agentkit = (
        task.prefer_direct
        or not agentkit_has_room
        or _is_before(now, agent.prefer_direct_until)
        or (known.forwards is Forwards.DISPROVED and not is_probe_due(known, now))
        or (_would_probe(known, agent) and agent.names_tasks is False)
    )
    return Delivery.DIRECT if avoids_agentkit else Delivery.AGENTKIT


def _would_probe(known: AgentKitKnowledge, agent: Agent) -> bool:
    """Return whether a task through AgentKit would test its delivery.

    Only a report that names the task can prove it: an agent that names none would have the task
    twice, and nothing would be learned.
    """
    return known.forwards is Forwards.DISPROVED or agent.prefer_direct_until is not None


def _is_before(now: datetime, moment: datetime | None) -> bool:
    return moment is not None and now < moment


def claim_plan(
    mode: DispatchMode, room: int, agentkit_room: int, tool_room: int
) -> list[tuple[ClaimScope, int]]:
    """Return what may be claimed, one scope after the other, and at most how much by then.

    Each scope is within the one before it. What has no other way than AgentKit is claimed only as
    far as AgentKit has room, so that nothing is claimed that cannot be sent, and tool steps only
    as far as their share goes.
    """
    most = min(room, agentkit_room)
    tools = min(most, tool_room)
    match mode:
        case DispatchMode.AGENTKIT:
            plan = [(ClaimScope.ALL, tools), (ClaimScope.WITHOUT_TOOLS, most)]
        case DispatchMode.DIRECT:
            plan = [(ClaimScope.DIRECT_AND_TOOLS, tools), (ClaimScope.DIRECT, room)]
        case DispatchMode.AUTO:
            plan = [
                (ClaimScope.ALL, tools),
                (ClaimScope.WITHOUT_TOOLS, most),
                (ClaimScope.DIRECT, room),
            ]
    return [(scope, limit) for scope, limit in plan if limit > 0]


def is_probe_due(known: AgentKitKnowledge, now: datetime) -> bool:
    return known.next_probe is not None and known.next_probe <= now


def after_probe(
    known: AgentKitKnowledge, now: datetime, every: timedelta = PROBE_EVERY
) -> AgentKitKnowledge:
    """Put the next probe off: a task has just been sent to try AgentKit."""
    return replace(known, next_probe=now + every)


def describe(known: AgentKitKnowledge, mode: DispatchMode) -> str:
    """Say in one sentence what was learned and, in mode `auto`, what it means."""
    fact, consequence = _fact_and_consequence(known)
    return f"{fact}; {consequence}." if mode is DispatchMode.AUTO else f"{fact}."


def _fact_and_consequence(known: AgentKitKnowledge) -> tuple[str, str]:
    if known.forwards is Forwards.UNKNOWN:
        return (
            "It is not known yet whether AgentKit's forwards reach agents",
            "a task that it accepted goes straight to its agent if the agent stays silent",
        )
    if known.forwards is Forwards.DISPROVED:
        return (
            "AgentKit accepts tasks, but its forwards do not reach agents",
            "tasks go straight to agents that have a contactEndpoint, and now and then one tries "
            "AgentKit again",
        )
    if known.unreached:
        return (
            "AgentKit's forwards reach agents, but have missed one",
            "its tasks go straight to it and all others through AgentKit",
        )
    return "AgentKit's forwards reach agents", "tasks go through AgentKit"
