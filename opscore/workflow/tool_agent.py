"""The agent in whose name AgentKit runs a tool: its `/run` asks for one, the tool needs none."""

from opscore.models import Agent, AgentFilter, Availability, Claim, availability
from opscore.workflow.engine import Engine

_IN_SERVICE = frozenset(Availability) - {Availability.LOST, Availability.DEREGISTERED}


async def find_tool_agent(engine: Engine, claim: Claim) -> Agent | None:
    """Return the agent that the step or its session names, or its successor.

    AgentKit may have forgotten an agent that is lost or deregistered, so another one stands in
    for it, with the step's capability if possible. Return None if no agent is known at all.
    """
    ids = dict.fromkeys(filter(None, (claim.task.wanted_agent, claim.session.agent_id)))
    named = [agent for one in ids if (agent := await engine.find_current_agent(one)) is not None]
    for agent in named:
        if availability(agent, 0) in _IN_SERVICE:
            return agent
    for capability in dict.fromkeys((claim.task.wanted_capability, None)):
        where = AgentFilter(capability=capability, availabilities=_IN_SERVICE)
        page = await engine.storage.agents(where, None, 1)
        if page.items:
            return page.items[0].agent
    return next(iter(named), None)
