"""Decisions about an agent that comes back under a new id.

AgentKit gives a name to one agent at a time, and a new id at each registration. So a name that is
announced again under another id says that the agent of the old id is gone: it was restarted.
"""

from datetime import UTC, datetime
from typing import Any

from opscore.models import Agent, EventType, Registration, RegistrationFacts, Standing
from opscore.workflow.decisions.draft import Draft
from opscore.workflow.decisions.open_entries import inherit_entries

MAX_PREDECESSORS = 20

_EVER = datetime.min.replace(tzinfo=UTC)


def announcement(draft: Draft, registration: Registration) -> dict[str, Any]:
    """Return what AgentKit's webhook says of the agent's name and of when it was given."""
    if not registration.by_agentkit or registration.name is None:
        return {}
    announced_at = registration.registration_time or draft.ctx.wall
    return {"agentkit_name": registration.name, "announced_at": announced_at}


def settle_name(draft: Draft, agent: Agent, facts: RegistrationFacts, is_new: bool) -> Agent:
    """Leave the name to the agent that was announced last, and retire the others.

    That is the given agent, unless the webhooks came in another order.
    """
    if not facts.namesakes:
        return agent
    *retired, holder = sorted(
        [*facts.namesakes, agent], key=lambda one: (one.announced_at or _EVER, one is agent)
    )
    for old in retired:
        _retire(draft, old, holder)
    newest = retired[-1]
    kept = _kept(draft, newest) if is_new and holder is agent else {}
    holder = draft.agent(holder, predecessors=_predecessors(holder, retired), **kept)
    inherit_entries(draft, holder, retired, facts.at_work)
    return draft.latest(agent)


def _retire(draft: Draft, old: Agent, holder: Agent) -> None:
    draft.agent(
        old,
        standing=Standing.DEREGISTERED,
        standing_since=draft.ctx.now,
        standing_reason=f"AgentKit announced it again as {holder.id}",
        deregistered_at=draft.ctx.wall,
        replaced_by=holder.id,
        predecessors=(),
    )
    draft.event(EventType.AGENT_REPLACED, agent_id=old.id, name=old.name, replacedBy=holder.id)


def _predecessors(holder: Agent, retired: list[Agent]) -> tuple[str, ...]:
    """Return the ids that the holder answers for from now on, newest first."""
    ids = [one for old in reversed(retired) for one in (old.id, *old.predecessors)]
    known = dict.fromkeys(one for one in (*ids, *holder.predecessors) if one != holder.id)
    return tuple(known)[:MAX_PREDECESSORS]


def _kept(draft: Draft, old: Agent) -> dict[str, Any]:
    """Return what outlives a restart: what an operator set, and how the agent reports."""
    kept: dict[str, Any] = {"concurrency": old.concurrency, "names_tasks": old.names_tasks}
    if old.standing is Standing.DRAINING:
        kept |= {"standing": Standing.DRAINING, "standing_since": draft.ctx.now}
    return kept
