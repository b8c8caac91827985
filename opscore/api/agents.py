"""Agents: who is registered, and what may be done with them."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from opscore.api.cursors import ListCursor
from opscore.api.dependencies import (
    AgentId,
    CoreDep,
    Cursor,
    LifecycleDep,
    Limit,
    Search,
)
from opscore.api.problems import CONTENDING, FINDING, READING, WRITING, problems
from opscore.api.schemas import AgentIn, AgentPatch
from opscore.api.views import AgentDetailView, AgentView, ListView, RefusedAgentView
from opscore.ids import new_id
from opscore.models import AgentFilter, Availability, Registration

router = APIRouter(tags=["agents"])

Availabilities = Annotated[frozenset[Availability], Query(description="Any of those given.")]


@router.get("/agents", responses=READING)
async def list_agents(
    core: CoreDep,
    capability: Annotated[str | None, Query(max_length=128)] = None,
    availability: Availabilities = frozenset(),
    state: Annotated[str | None, Query(max_length=64)] = None,
    search: Search = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> ListView[AgentView]:
    """Agents by id. Deregistered ones only with `availability=deregistered`."""
    where = AgentFilter(capability, availability, state, search)
    cursors = ListCursor("agents", where)
    page = await core.storage.agents(where, cursors.open(cursor), limit)
    items = [AgentView.of(item, core.lifecycle.mode) for item in page.items]
    return ListView(items=items, next_cursor=cursors.seal(page.next_cursor))


@router.post(
    "/agents",
    status_code=201,
    responses={
        **WRITING,
        **problems(409),
        200: {"description": "Known already; updated.", "model": AgentView},
    },
)
async def register_agent(body: AgentIn, lifecycle: LifecycleDep, response: Response) -> AgentView:
    """Register an agent by hand, or update a known one (200)."""
    registration = Registration(
        agent_id=body.agent_id or new_id(),
        name=body.agent_name,
        capabilities=body.capabilities,
        version=body.version,
        contact_endpoint=body.contact_endpoint,
        metadata=body.metadata,
        concurrency=body.concurrency,
    )
    candidate, created = await lifecycle.register_agent(registration)
    if not created:
        response.status_code = 200
    return AgentView.of(candidate, lifecycle.mode)


@router.get("/agents/refused", responses=READING)
async def list_refused_agents(core: CoreDep) -> ListView[RefusedAgentView]:
    """Webhooks that were refused and state reports of unknown agents, the newest first.

    Each replica lists what it refused itself within the last hour, at most 300 entries in all.
    """
    items = [RefusedAgentView.of(one) for one in core.refused_agents.newest()]
    return ListView(items=items, next_cursor=None)


@router.get("/agent/{agent_id}", responses=FINDING)
async def get_agent(agent_id: AgentId, core: CoreDep) -> AgentDetailView:
    """One agent, with the ids of its tasks in flight."""
    candidate = await core.lifecycle.get_agent(agent_id)
    tasks = await core.storage.agent_tasks(agent_id)
    view = AgentView.of(candidate, core.lifecycle.mode)
    return AgentDetailView(**view.model_dump(), task_ids=[task.id for task in tasks])


@router.patch("/agent/{agent_id}", responses=CONTENDING)
async def update_agent(agent_id: AgentId, body: AgentPatch, lifecycle: LifecycleDep) -> AgentView:
    """Change what is given, leave the rest."""
    given = body.model_dump(exclude_unset=True)
    draining = given.pop("draining", None)
    if "agent_name" in given:
        given["name"] = given.pop("agent_name")
    return AgentView.of(await lifecycle.update_agent(agent_id, given, draining), lifecycle.mode)


@router.delete("/agent/{agent_id}", responses=FINDING)
async def deregister_agent(agent_id: AgentId, lifecycle: LifecycleDep) -> AgentView:
    """No new tasks; a running one may finish by its deadline."""
    return AgentView.of(await lifecycle.deregister_agent(agent_id), lifecycle.mode)


@router.post("/agent/{agent_id}/drain", status_code=202, responses=CONTENDING)
async def drain_agent(agent_id: AgentId, lifecycle: LifecycleDep) -> AgentView:
    """No new tasks until `PATCH agent/{id}` with `draining` false."""
    return AgentView.of(await lifecycle.drain_agent(agent_id), lifecycle.mode)
