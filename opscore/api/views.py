"""What answers look like."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from opscore.api.refused_agents import Refused, RefusedKind
from opscore.models import (
    Agent,
    AgentState,
    Availability,
    Candidate,
    Delivery,
    Event,
    EventType,
    HoldReason,
    MessageType,
    RevisionInfo,
    SessionStatus,
    StateWord,
    Task,
    TaskStatus,
    WorkflowRevision,
    WorkflowSession,
    availability,
    current_hold,
)
from opscore.workflow.queue import (
    DeadlineKind,
    Explanation,
    Obstacle,
    PendingReason,
    Reason,
    Work,
)
from opscore.workflow.templates import dump_definition

T = TypeVar("T")


class View(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        # Built when first used: the start of the service does not wait for it.
        defer_build=True,
    )


class ListView(View, Generic[T]):
    """`nextCursor` goes into `cursor` for the next page; null at the end."""

    items: list[T]
    next_cursor: str | None = None


class MessageView(View):
    status: str = "success"
    message: str


class ReportView(MessageView):
    """`counted` is false, with a reason, if the report spoke of work and yet moved no task."""

    counted: bool | None = None
    reason: str | None = None


# --- agents ------------------------------------------------------------------------------------


class HoldView(View):
    reason: HoldReason
    since: datetime
    until: datetime | None


class AgentView(View):
    agent_id: str
    agent_name: str
    capabilities: list[str]
    version: str | None
    contact_endpoint: str | None
    metadata: Mapping[str, Any] | None
    concurrency: int
    tasks_in_flight: int
    availability: Availability
    availability_since: datetime | None
    availability_reason: str | None
    hold: HoldView | None
    state: str | None
    state_word: StateWord | None
    registered_at: datetime
    replaced_by: str | None
    predecessors: list[str]
    last_seen_at: datetime | None
    delivery_failures: int
    missed_deadlines: int

    @classmethod
    def of(cls, candidate: Candidate) -> "AgentView":
        agent = candidate.agent
        return cls(
            agent_id=agent.id,
            agent_name=agent.name,
            capabilities=list(agent.capabilities),
            version=agent.version,
            contact_endpoint=agent.contact_endpoint,
            metadata=agent.metadata,
            concurrency=agent.concurrency,
            tasks_in_flight=candidate.in_flight,
            availability=availability(agent, candidate.in_flight),
            availability_since=agent.standing_since,
            availability_reason=agent.standing_reason,
            hold=_hold(agent),
            state=agent.state.state if agent.state else None,
            state_word=agent.state.word if agent.state else None,
            registered_at=agent.registered_at,
            replaced_by=agent.replaced_by,
            predecessors=list(agent.predecessors),
            last_seen_at=agent.last_seen_at,
            delivery_failures=agent.delivery_failures,
            missed_deadlines=agent.missed_deadlines,
        )


def _hold(agent: Agent) -> HoldView | None:
    hold = current_hold(agent)
    return HoldView(reason=hold.reason, since=hold.since, until=hold.until) if hold else None


class RefusedAgentView(View):
    """Of a webhook without a genuine signature (`verified` false), the agent is only a claim."""

    kind: Literal["webhook", "report"]
    verified: bool
    agent_id: str | None
    agent_name: str | None
    remote_address: str | None
    code: str
    reason: str
    count: int
    first_at: datetime
    last_at: datetime

    @classmethod
    def of(cls, refused: Refused) -> "RefusedAgentView":
        return cls(
            kind="report" if refused.kind is RefusedKind.REPORT else "webhook",
            verified=refused.kind is not RefusedKind.UNSIGNED_WEBHOOK,
            agent_id=refused.agent_id,
            agent_name=refused.agent_name,
            remote_address=refused.remote_address,
            code=refused.code,
            reason=refused.reason,
            count=refused.count,
            first_at=refused.first_at,
            last_at=refused.last_at,
        )


class AgentDetailView(AgentView):
    task_ids: list[str] = []


class StateView(View):
    """`clockCorrected`: the agent's own time was too far off and was replaced."""

    agent_id: str
    state: str
    word: StateWord
    details: Mapping[str, Any]
    timestamp: datetime
    received_at: datetime
    clock_corrected: bool

    @classmethod
    def of(cls, agent_id: str, state: AgentState) -> "StateView":
        return cls(
            agent_id=agent_id,
            state=state.state,
            word=state.word,
            details=state.details,
            timestamp=state.timestamp,
            received_at=state.received_at,
            clock_corrected=state.clock_corrected,
        )


# --- workflows ---------------------------------------------------------------------------------


class WorkflowView(View):
    workflow_id: str
    revision: int
    name: str | None
    version: str | None
    description: str | None
    saved_at: datetime
    definition: dict[str, Any]

    @classmethod
    def of(cls, saved: WorkflowRevision) -> "WorkflowView":
        definition = saved.definition
        return cls(
            workflow_id=saved.id,
            revision=saved.revision,
            name=definition.name,
            version=definition.version,
            description=definition.description,
            saved_at=saved.saved_at,
            definition=dump_definition(definition),
        )


class RevisionView(View):
    """A revision; `GET workflow/{id}?revision=n` has its definition."""

    workflow_id: str
    revision: int
    saved_at: datetime

    @classmethod
    def of(cls, info: RevisionInfo) -> "RevisionView":
        return cls(workflow_id=info.workflow_id, revision=info.revision, saved_at=info.saved_at)


class ValidView(View):
    valid: bool = True
    workflow_id: str
    tasks: int
    definition: dict[str, Any]


# --- sessions ----------------------------------------------------------------------------------


class TriggeredView(View):
    session_id: str
    workflow_id: str
    message: str


class SessionView(View):
    session_id: str
    workflow_id: str
    workflow_revision: int
    workflow_name: str | None
    agent_id: str | None
    status: SessionStatus
    input: Mapping[str, Any]
    output: Any
    error: Mapping[str, Any] | None
    metadata: Mapping[str, Any]
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    deadline_at: datetime | None

    @classmethod
    def of(cls, session: WorkflowSession) -> "SessionView":
        return cls(**_session_fields(session))


class PendingReasonView(View):
    code: Reason
    message: str
    since: datetime
    until: datetime | None

    @classmethod
    def of(cls, reason: PendingReason) -> "PendingReasonView":
        return cls(code=reason.code, message=reason.message, since=reason.since, until=reason.until)


class OpenTaskView(View):
    """A task that the session waits for, and what the task itself waits for."""

    task_id: str
    step_id: str
    name: str | None
    status: TaskStatus
    agent_id: str | None
    reason: PendingReasonView


class SessionDetailView(SessionView):
    """`results` are those of the tasks completed so far, by their taskId in the definition.

    `openTasks` says what the session waits for; it is empty once the session has ended.
    """

    results: Mapping[str, Any]
    open_tasks: list[OpenTaskView]

    @classmethod
    def with_open_tasks(
        cls, session: WorkflowSession, open_tasks: Iterable[tuple[Task, PendingReason]]
    ) -> "SessionDetailView":
        waiting = [
            OpenTaskView(
                task_id=task.id,
                step_id=task.step_id,
                name=task.name,
                status=task.status,
                agent_id=task.agent_id,
                reason=PendingReasonView.of(reason),
            )
            for task, reason in open_tasks
        ]
        return cls(**_session_fields(session), results=session.results, open_tasks=waiting)


def _session_fields(session: WorkflowSession) -> dict[str, Any]:
    return {
        "session_id": session.id,
        "workflow_id": session.workflow_id,
        "workflow_revision": session.workflow_revision,
        "workflow_name": session.definition.name,
        "agent_id": session.agent_id,
        "status": session.status,
        "input": session.input,
        "output": session.output,
        "error": session.error,
        "metadata": session.metadata,
        "created_at": session.created_at,
        "started_at": session.started_at,
        "ended_at": session.ended_at,
        "deadline_at": session.deadline_at,
    }


# --- tasks -------------------------------------------------------------------------------------


class TaskView(View):
    task_id: str
    session_id: str
    workflow_id: str
    step_id: str
    stands_for: str | None
    name: str | None
    status: TaskStatus
    pending_reason: PendingReasonView | None
    priority: int
    message_type: MessageType
    wanted_agent: str | None
    wanted_capability: str | None
    agent_id: str | None
    via: Delivery | None
    attempt: int
    retries: int
    parameters: Mapping[str, Any]
    progress: Any
    result: Any
    error: Mapping[str, Any] | None
    created_at: datetime
    waiting_since: datetime | None
    delayed_until: datetime | None
    dispatched_at: datetime | None
    accepted_at: datetime | None
    active_at: datetime | None
    heartbeat_at: datetime | None
    ended_at: datetime | None
    start_deadline: datetime | None
    run_deadline: datetime | None
    queue_deadline: datetime | None

    @classmethod
    def of(cls, task: Task, reason: PendingReason | None = None) -> "TaskView":
        return cls(
            task_id=task.id,
            pending_reason=PendingReasonView.of(reason) if reason else None,
            waiting_since=task.waiting_since if task.status.waiting else None,
            **{name: getattr(task, name) for name in _SAME_NAMES},
        )


_OWN_NAMES = {"task_id", "pending_reason", "waiting_since"}
_SAME_NAMES = tuple(name for name in TaskView.model_fields if name not in _OWN_NAMES)


class ResultView(View):
    """`counted` is false for an answer that came late or twice; it is recorded all the same."""

    counted: bool
    message: str


class HeartbeatView(View):
    """`cancelled` is true once the work is not wanted any more: the agent should stop.

    `deadline` is when the attempt times out, whatever heartbeats come until then.
    """

    status: TaskStatus
    cancelled: bool
    deadline: datetime | None

    @classmethod
    def of(cls, task: Task, attempt: int | None) -> "HeartbeatView":
        is_wanted = task.status.in_flight and attempt in (None, task.attempt)
        return cls(status=task.status, cancelled=not is_wanted, deadline=task.run_deadline)


class ObstacleView(View):
    agent_id: str
    agent_name: str
    code: Reason
    message: str
    unblocked_by: str
    since: datetime | None
    until: datetime | None

    @classmethod
    def of(cls, obstacle: Obstacle) -> "ObstacleView":
        return cls(**{name: getattr(obstacle, name) for name in cls.model_fields})


class DeadlineView(View):
    """The next moment at which the service acts by itself, and what it does then."""

    kind: DeadlineKind
    at: datetime
    message: str


class WorkView(View):
    """Which agent has the task, since when, and what was last heard of it there."""

    agent_id: str
    agent_name: str
    attempt: int
    since: datetime
    last_sign_of_life: datetime | None
    agent_last_seen_at: datetime | None
    next_deadline: DeadlineView | None

    @classmethod
    def of(cls, work: Work) -> "WorkView":
        return cls.model_validate(work, from_attributes=True)


class WhyView(View):
    """Why a task waits or what happens to it, and what can be done about it.

    `candidates` are the agents that could have a queued task; `work` is there while an agent
    has it; `actions` are the calls by which an operator can move it now.
    """

    task_id: str
    status: TaskStatus
    reason: PendingReasonView
    candidates: list[ObstacleView]
    candidate_count: int
    ahead: int | None
    unblocked_by: list[str]
    work: WorkView | None
    actions: list[str]

    @classmethod
    def of(cls, task: Task, explanation: Explanation) -> "WhyView":
        return cls(
            task_id=task.id,
            status=task.status,
            reason=PendingReasonView.of(explanation.reason),
            candidates=[ObstacleView.of(obstacle) for obstacle in explanation.obstacles],
            candidate_count=explanation.candidate_count,
            ahead=explanation.ahead,
            unblocked_by=list(explanation.unblocked_by),
            work=WorkView.of(explanation.work) if explanation.work else None,
            actions=list(explanation.actions),
        )


# --- events ------------------------------------------------------------------------------------


class EventView(View):
    seq: int
    type: EventType
    at: datetime
    agent_id: str | None
    session_id: str | None
    task_id: str | None
    data: Mapping[str, Any]

    @classmethod
    def of(cls, event: Event) -> "EventView":
        return cls(
            seq=event.seq,
            type=event.type,
            at=event.at,
            agent_id=event.agent_id,
            session_id=event.session_id,
            task_id=event.task_id,
            data=event.data,
        )
