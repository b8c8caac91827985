"""Which agents a filter means; what it asks for is derived, so no store can search by it. Pure."""

from opscore.models import Agent, AgentFilter, Availability, Candidate, availability


def agent_matches(where: AgentFilter, candidate: Candidate) -> bool:
    agent = candidate.agent
    stands = availability(agent, candidate.in_flight)
    if not where.availabilities and stands is Availability.DEREGISTERED:
        return False
    return (
        (not where.availabilities or stands in where.availabilities)
        and (where.capability is None or where.capability in agent.capabilities)
        and (where.state is None or _reports(agent, where.state))
        and contains(where.search, agent.id, agent.name)
    )


def _reports(agent: Agent, state: str) -> bool:
    return agent.state is not None and state.lower() in (
        agent.state.word.value,
        agent.state.state.lower(),
    )


def contains(search: str | None, *texts: str) -> bool:
    return search is None or any(search.lower() in text.lower() for text in texts)
