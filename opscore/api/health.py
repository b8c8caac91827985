"""Health: is the process there, does it work, and what has it learned."""

from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response

from opscore import __version__
from opscore.api.core import Core
from opscore.api.dependencies import CoreDep, has_key
from opscore.api.observation import Observation, observe
from opscore.api.views import View
from opscore.models import Counts, DispatchMode, Forwards, Replica
from opscore.workflow.forwarding import describe

router = APIRouter(tags=["service"])


class AliveView(View):
    status: str = "ok"


class StorageView(View):
    """`durable` false: everything is gone after a restart."""

    kind: str
    durable: bool
    note: str


class HealthView(View):
    status: str = "ok"
    version: str = __version__
    storage: StorageView


class ForwardsView(View):
    """What was learned of AgentKit: whether what it accepts arrives."""

    state: Forwards
    since: datetime | None
    next_probe: datetime | None
    message: str


class ReplicaView(View):
    """A process on the same storage. Leases name it by its id.

    `host` is told only to callers with the API key.
    """

    id: str
    host: str | None
    version: str
    started_at: datetime
    heartbeat_age_seconds: float
    is_this_one: bool


class ReadyView(View):
    """`reasons` says in sentences why the service is not ready.

    `forgotten` counts by kind what this process has forgotten since its start.
    """

    status: str
    reasons: list[str]
    dispatch_mode: DispatchMode
    agentkit_forwards: ForwardsView
    agentkit_breaker_open_until: datetime | None
    agents: int
    sessions: int
    tasks_by_status: dict[str, int]
    tasks_waiting: int
    tasks_in_flight: int
    messages_under_way: int
    forgotten: dict[str, int]
    event_loop_lag_seconds: float
    worst_event_loop_lag_seconds: float
    dropped_log_lines: int
    replicas: list[ReplicaView]


@router.get("/health")
async def health(core: CoreDep) -> HealthView:
    """The version, and whether what is stored outlives a restart."""
    return HealthView(storage=_storage(core))


@router.get("/health/live")
async def live() -> AliveView:
    """The process answers."""
    return AliveView()


@router.get("/health/ready", responses={503: {"description": "Not ready.", "model": ReadyView}})
async def ready(core: CoreDep, request: Request, response: Response) -> ReadyView:
    """Tell whether the service should be sent requests, and the state of its surroundings.

    Hosts and addresses are named only to callers with the API key.
    """
    seen = await observe(core)
    if seen.reasons:
        response.status_code = 503
    return _readiness(core, seen, has_key(request))


def _storage(core: Core) -> StorageView:
    durable = core.storage.durable
    note = (
        "What was acknowledged outlives a restart."
        if durable
        else "Everything is kept in memory and is gone after a restart."
    )
    return StorageView(kind=core.settings.storage_kind, durable=durable, note=note)


def _shown(replica: Replica, core: Core, named: bool) -> ReplicaView:
    age = max(timedelta(), core.clock.now() - replica.beat_at)
    return ReplicaView(
        id=replica.id,
        host=replica.host if named else None,
        version=replica.version,
        started_at=replica.started_at,
        heartbeat_age_seconds=round(age.total_seconds(), 1),
        is_this_one=replica.id == core.replica_id,
    )


def _readiness(core: Core, seen: Observation, named: bool) -> ReadyView:
    counts = seen.counts or Counts()
    known = core.engine.routes.known
    return ReadyView(
        status="not ready" if seen.reasons else "ready",
        reasons=list(seen.reasons if named else seen.public_reasons),
        dispatch_mode=core.engine.policy.mode,
        agentkit_forwards=ForwardsView(
            state=known.forwards,
            since=known.since,
            next_probe=known.next_probe,
            message=describe(known, core.engine.policy.mode),
        ),
        agentkit_breaker_open_until=core.dispatcher.upstream.open_until,
        agents=counts.agents,
        sessions=counts.sessions,
        tasks_by_status=counts.by_status,
        tasks_waiting=counts.waiting,
        tasks_in_flight=counts.in_flight,
        messages_under_way=core.dispatcher.under_way,
        forgotten=dict(core.retention.forgotten),
        event_loop_lag_seconds=round(core.housekeeper.lag, 3),
        worst_event_loop_lag_seconds=round(core.housekeeper.worst_lag, 3),
        dropped_log_lines=core.dropped_log_lines(),
        replicas=[_shown(one, core, named) for one in seen.replicas],
    )
