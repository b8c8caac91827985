"""Builds values with sensible defaults, so that a test names only what it is about.

The scene: agent `a1` in a session of a workflow with one step, `one`. Moments are given in
seconds after `NOW`.
"""

from datetime import datetime, timedelta
from typing import Any

from opscore import ids
from opscore.models import (
    Agent,
    AgentFacts,
    Change,
    Delivery,
    Event,
    Policy,
    SessionFacts,
    SessionStatus,
    StateReport,
    Task,
    TaskDefinition,
    TaskFacts,
    TaskStatus,
    WorkflowDefinition,
    WorkflowSession,
)
from opscore.workflow.decisions import Context
from tests.fakes import START

NOW = START
SESSION = "01939d3a-0000-7000-8000-000000000001"
AGENT = "a1"
OWNER = "dispatcher-1"


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def agent(id: str = AGENT, **changes: Any) -> Agent:
    values: dict[str, Any] = {
        "name": f"agent {id}",
        "registered_at": at(-3600),
        "capabilities": ("research",),
        "contact_endpoint": f"http://127.0.0.1:9000/{id}",
        "rev": 1,
    }
    return Agent(id, **values | changes)


def step(task_id: str = "one", **changes: Any) -> TaskDefinition:
    return TaskDefinition(task_id, **changes)


def definition(*steps: TaskDefinition, **changes: Any) -> WorkflowDefinition:
    """A workflow of these steps, or of one."""
    values: dict[str, Any] = {"id": "flow", "tasks": steps or (step(),)}
    return WorkflowDefinition(**values | changes)


def session(*steps: TaskDefinition, **changes: Any) -> WorkflowSession:
    """A running session of these steps, or of one."""
    values: dict[str, Any] = {
        "id": SESSION,
        "definition": definition(*steps),
        "workflow_revision": 1,
        "created_at": at(-60),
        "agent_id": AGENT,
        "status": SessionStatus.RUNNING,
        "started_at": at(-30),
        "rev": 1,
    }
    return WorkflowSession(**values | changes)


def task(**changes: Any) -> Task:
    """A queued task that was never tried."""
    step_id = changes.get("step_id", "one")
    session_id = changes.get("session_id", SESSION)
    values: dict[str, Any] = {
        "id": ids.task_id(session_id, step_id, changes.get("stands_for")),
        "session_id": session_id,
        "workflow_id": "flow",
        "step_id": step_id,
        "created_at": at(-60),
        "waiting_since": at(-60),
        "wanted_agent": AGENT,
        "rev": 1,
    }
    return Task(**values | changes)


def dispatched(**changes: Any) -> Task:
    """A task on its way to its agent: claimed, not yet accepted."""
    values: dict[str, Any] = {
        "status": TaskStatus.DISPATCHED,
        "attempt": 1,
        "agent_id": AGENT,
        "owner": OWNER,
        "lease_until": at(15),
        "dispatched_at": at(-10),
        "rev": 2,
    }
    return task(**values | changes)


def accepted(**changes: Any) -> Task:
    """A task that AgentKit took and of which nothing has been heard yet."""
    values: dict[str, Any] = {
        "via": Delivery.AGENTKIT,
        "lease_until": None,
        "accepted_at": at(-9),
        "start_deadline": at(1),
        "run_deadline": at(290),
        "rev": 3,
    }
    return dispatched(**values | changes)


def running(**changes: Any) -> Task:
    """An accepted task that its agent has said it works on."""
    values: dict[str, Any] = {
        "status": TaskStatus.RUNNING,
        "active_at": at(-8),
        "heartbeat_at": at(-8),
        "start_deadline": None,
        "rev": 4,
    }
    return accepted(**values | changes)


def context(after: float = 0, *, wall: float | None = None, **changes: Any) -> Context:
    """The decision is made `after` seconds; keywords are the context's fields or the policy's."""
    own = {"policy", "forwards"}
    fields = {key: value for key, value in changes.items() if key in own}
    rules = {key: value for key, value in changes.items() if key not in own}
    policy = fields.pop("policy", None) or Policy(**rules)
    return Context(at(after), at(after if wall is None else wall), policy, **fields)


def task_facts(one: Task | None = None, **changes: Any) -> TaskFacts:
    """The task (a running one) in its `session`, with its `agent`, which may be None."""
    return TaskFacts(
        one or running(), changes.get("session", session()), changes.get("agent", agent())
    )


def agent_facts(*in_flight: Task, **changes: Any) -> AgentFacts:
    """The agent with these tasks in flight; `named` is the task that a report names."""
    who: Agent = changes.get("agent", agent())
    where: WorkflowSession = changes.get("session", session())
    named: Task | None = changes.get("named")
    return AgentFacts(
        who,
        len(in_flight),
        TaskFacts(in_flight[0], where, who) if len(in_flight) == 1 else None,
        TaskFacts(named, where, who) if named else None,
    )


def naming(one: Task, **changes: Any) -> AgentFacts:
    """The agent's report names the task, which is among those in flight where it is."""
    has_it = one.status.in_flight and one.agent_id == changes.get("agent", agent()).id
    return agent_facts(*([one] if has_it else []), named=one, **changes)


def session_facts(*tasks: Task, **changes: Any) -> SessionFacts:
    return SessionFacts(changes.get("session", session()), tasks)


def became(change: Change) -> str | None:
    """The status of the first task that the change writes, None if it writes none."""
    return change.tasks[0].status.value if change.tasks else None


def moves(change: Change) -> bool:
    """Whether the change touches any task or session."""
    return bool(change.tasks or change.sessions)


def report(state: str = "idle", *, agent_id: str = AGENT, **changes: Any) -> StateReport:
    """`when` is the agent's own time, in seconds; every other keyword goes into the details."""
    when: float | None = changes.pop("when", None)
    size: int = changes.pop("size", 0)
    return StateReport(agent_id, state, changes, None if when is None else at(when), size)


def types(events: tuple[Event, ...]) -> list[str]:
    return [event.type.value for event in events]
