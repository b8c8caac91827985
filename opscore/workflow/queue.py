"""Why a task waits: what is ready and what stands in the way. Pure."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from opscore.models import (
    Availability,
    Candidate,
    ClaimScope,
    DispatchMode,
    HoldReason,
    LaneFacts,
    Standing,
    Task,
    TaskStatus,
    availability,
    current_hold,
    slots,
)


class Reason(StrEnum):
    """The stable word for what a task waits for."""

    DELAYED = "delayed"
    RETRY_DELAYED = "retry_delayed"
    AGENT_BUSY = "agent_busy"
    AGENT_ON_HOLD = "agent_on_hold"
    AGENT_UNSETTLED = "agent_unsettled"
    AGENT_DRAINING = "agent_draining"
    AGENT_LOST = "agent_lost"
    AGENT_DEREGISTERED = "agent_deregistered"
    AGENT_NOT_REGISTERED = "agent_not_registered"
    NO_ENDPOINT = "no_endpoint"
    NO_CAPABLE_AGENT = "no_capable_agent"
    NO_AVAILABLE_AGENT = "no_available_agent"
    BREAKER_OPEN = "breaker_open"
    DISPATCH_LIMIT = "dispatch_limit"
    STOPPING = "stopping"
    READY = "ready"
    SENDING = "sending"
    ACCEPTED = "accepted"
    AT_WORK = "at_work"
    NOT_WAITING = "not_waiting"


@dataclass(frozen=True, slots=True)
class Gate:
    """The block of the dispatcher itself, if any. Tasks in the scope `open` go on."""

    reason: Reason
    message: str
    since: datetime | None = None
    until: datetime | None = None
    open: ClaimScope | None = None


@dataclass(frozen=True, slots=True)
class PendingReason:
    """One sentence, one word, since when, and until when if that is known."""

    code: Reason
    message: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Obstacle:
    """What stands between the task and one agent, and what would remove it."""

    agent_id: str
    agent_name: str
    code: Reason
    message: str
    unblocked_by: str
    since: datetime | None = None
    until: datetime | None = None


class DeadlineKind(StrEnum):
    """Which timer ends a wait for an agent at work."""

    LEASE = "lease"
    START = "start"
    RUN = "run"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class Deadline:
    """The next moment at which the service acts by itself, and what it does then."""

    kind: DeadlineKind
    at: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Work:
    """Which agent has the task, since when, and what was last heard of it there.

    A tool step has no agent.
    """

    agent_id: str | None
    agent_name: str | None
    attempt: int
    since: datetime
    last_sign_of_life: datetime | None = None
    agent_last_seen_at: datetime | None = None
    next_deadline: Deadline | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task waits, or what happens to it; `actions` is what an operator can do about it."""

    reason: PendingReason
    obstacles: tuple[Obstacle, ...] = ()
    candidate_count: int = 0
    ahead: int | None = None
    unblocked_by: tuple[str, ...] = ()
    work: Work | None = None
    actions: tuple[str, ...] = ()


_HOLDS = {
    HoldReason.REPORTED_ACTIVE: "says that it is busy with work of its own",
    HoldReason.REPORTED_ERROR: "reported an error",
    HoldReason.REPORTED_OFFLINE: "says that it is offline",
    HoldReason.REPORTED_INITIALIZING: "says that it is initializing",
    HoldReason.NEVER_REPORTED: "has never reported a state",
    HoldReason.DELIVERY_FAILING: "could not be reached several times in a row",
    HoldReason.UNSETTLED_ATTEMPT: (
        "may still work on an attempt that was taken back, and has not named a task in its reports"
    ),
    HoldReason.HOST_BUSY: "waits: its host has as many messages under way as one host may have",
}

NO_ENDPOINT = "no contactEndpoint, which OPSCORE_DISPATCH_MODE=direct needs"
TRIAL = "is on trial after failures and gets one task at a time"
_TRIAL_ENDS = "a result of it counts or it reports idle"

_STANDINGS = {
    Standing.DRAINING: (Reason.AGENT_DRAINING, "is draining", "it is put back to work"),
    Standing.LOST: (Reason.AGENT_LOST, "is lost", "it reports a state or registers again"),
    Standing.DEREGISTERED: (
        Reason.AGENT_DEREGISTERED,
        "was deregistered",
        "it registers again",
    ),
}


def explain(
    task: Task, lane: LaneFacts, gate: Gate | None, mode: DispatchMode = DispatchMode.AUTO
) -> Explanation:
    """Everything that can be said about why the task waits."""
    if task.status is TaskStatus.DELAYED:
        reason = _delayed(task)
        return Explanation(reason, unblocked_by=_ways_out(task, reason, ()))
    obstacles = tuple(_obstacle(candidate, task, mode) for candidate in lane.candidates)
    reason = pending_reason(task, lane, gate, mode)
    return Explanation(
        reason,
        obstacles,
        lane.candidate_count,
        lane.ahead,
        _ways_out(task, reason, obstacles),
    )


def pending_reason(
    task: Task, lane: LaneFacts, gate: Gate | None, mode: DispatchMode = DispatchMode.AUTO
) -> PendingReason:
    if task.status is TaskStatus.DELAYED:
        return _delayed(task)
    if task.needs_agentkit:
        return _gated(task, lane, gate)
    if not lane.candidates:
        return _nobody(task)
    obstacles = [_obstacle(candidate, task, mode) for candidate in lane.candidates]
    if any(obstacle.code is Reason.READY for obstacle in obstacles):
        return _gated(task, lane, gate)
    if len(obstacles) == 1:
        only = obstacles[0]
        return PendingReason(only.code, only.message, _since(task, only.since), only.until)
    return _nobody_free(task, lane, obstacles)


def _delayed(task: Task) -> PendingReason:
    code = Reason.RETRY_DELAYED if task.attempt else Reason.DELAYED
    what = f"The task waits before attempt {task.attempt + 1}" if task.attempt else "The task waits"
    until = f" until {task.delayed_until:%Y-%m-%dT%H:%M:%SZ}." if task.delayed_until else "."
    return PendingReason(code, what + until, task.waiting_since, task.delayed_until)


def _nobody(task: Task) -> PendingReason:
    if task.wanted_agent is not None:
        message = f"The task is for agent {task.wanted_agent}, which is not registered."
        return PendingReason(Reason.AGENT_NOT_REGISTERED, message, task.waiting_since)
    message = f"No registered agent has the capability {task.wanted_capability!r}."
    return PendingReason(Reason.NO_CAPABLE_AGENT, message, task.waiting_since)


def _gated(task: Task, lane: LaneFacts, gate: Gate | None) -> PendingReason:
    if gate is not None and not _passes(gate, task, lane):
        return PendingReason(gate.reason, gate.message, _since(task, gate.since), gate.until)
    message = "The task is ready and waits for its turn."
    if lane.ahead is not None:
        message = f"The task is ready; {lane.ahead} tasks of its queue stand before it."
    return PendingReason(Reason.READY, message, task.waiting_since)


def _passes(gate: Gate, task: Task, lane: LaneFacts) -> bool:
    """Return whether a free agent can be sent the task all the same."""
    return gate.open is not None and any(
        gate.open.permits(task, one.agent)
        and _obstacle(one, task, DispatchMode.AUTO).code is Reason.READY
        for one in lane.candidates
    )


def _nobody_free(task: Task, lane: LaneFacts, obstacles: list[Obstacle]) -> PendingReason:
    codes = {obstacle.code for obstacle in obstacles}
    code = codes.pop() if len(codes) == 1 else Reason.NO_AVAILABLE_AGENT
    counted = ", ".join(
        f"{sum(obstacle.code is word for obstacle in obstacles)} {_WORDS[word]}"
        for word in dict.fromkeys(obstacle.code for obstacle in obstacles)
    )
    message = f"None of the {lane.candidate_count} agents that could do it is free: {counted}."
    return PendingReason(code, message, task.waiting_since)


_WORDS = {
    Reason.AGENT_BUSY: "busy",
    Reason.AGENT_ON_HOLD: "on hold",
    Reason.AGENT_UNSETTLED: "not done with an earlier attempt",
    Reason.AGENT_DRAINING: "draining",
    Reason.AGENT_LOST: "lost",
    Reason.AGENT_DEREGISTERED: "deregistered",
    Reason.NO_ENDPOINT: "without a contactEndpoint",
}


def _obstacle(candidate: Candidate, task: Task, mode: DispatchMode) -> Obstacle:
    agent = candidate.agent
    if mode is DispatchMode.DIRECT and not ClaimScope.DIRECT_AND_TOOLS.permits(task, agent):
        remedy = "it registers with a contactEndpoint"
        return _about(candidate, Reason.NO_ENDPOINT, f"has {NO_ENDPOINT}", remedy)
    if agent.standing in _STANDINGS:
        code, what, remedy = _STANDINGS[agent.standing]
        why = f": {agent.standing_reason}" if agent.standing_reason else ""
        until = agent.trial_at if agent.standing is Standing.LOST else None
        if until is not None:
            remedy += f", or one task is tried at {until:%Y-%m-%dT%H:%M:%SZ}"
        return _about(candidate, code, f"{what}{why}", remedy, agent.standing_since)
    hold = current_hold(agent)
    if hold is not None:
        is_unsettled = hold.reason is HoldReason.UNSETTLED_ATTEMPT
        code = Reason.AGENT_UNSETTLED if is_unsettled else Reason.AGENT_ON_HOLD
        remedy = "it reports idle" if hold.until is None else "it reports idle or time passes"
        return _about(candidate, code, _HOLDS[hold.reason], remedy, hold.since, hold.until)
    if candidate.in_flight >= slots(agent):
        is_full = availability(agent, candidate.in_flight) is Availability.BUSY
        limit = f"{candidate.in_flight} of {agent.concurrency} tasks"
        if is_full:
            what = f"has {limit} in flight"
            return _about(candidate, Reason.AGENT_BUSY, what, "one of its tasks ends")
        what = f"{TRIAL}; it has {limit} in flight"
        return _about(candidate, Reason.AGENT_BUSY, what, _TRIAL_ENDS)
    return _about(candidate, Reason.READY, "is free", "the tasks before it are dispatched")


def _about(
    candidate: Candidate,
    code: Reason,
    what: str,
    remedy: str,
    since: datetime | None = None,
    until: datetime | None = None,
) -> Obstacle:
    agent = candidate.agent
    return Obstacle(agent.id, agent.name, code, f"Agent {agent.name} {what}.", remedy, since, until)


def _ways_out(
    task: Task, reason: PendingReason, obstacles: tuple[Obstacle, ...]
) -> tuple[str, ...]:
    if reason.code is Reason.AGENT_NOT_REGISTERED:
        return (f"Agent {task.wanted_agent} registers.",)
    if reason.code is Reason.NO_CAPABLE_AGENT:
        return (f"An agent with the capability {task.wanted_capability!r} registers.",)
    if reason.until is not None:
        return (f"Time passes until {reason.until:%Y-%m-%dT%H:%M:%SZ}.",)
    return tuple(f"Agent {one.agent_name}: {one.unblocked_by}." for one in obstacles)


def _since(task: Task, other: datetime | None) -> datetime:
    return max(task.waiting_since, other) if other else task.waiting_since
