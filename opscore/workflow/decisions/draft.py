"""A change in the making: collects what one decision writes."""

from collections import deque
from collections.abc import Callable
from typing import Any

import orjson

from opscore.models import (
    Agent,
    Change,
    Event,
    EventType,
    ForwardObservation,
    Task,
    WorkflowSession,
    slots,
)
from opscore.models.evolve import evolve
from opscore.workflow.decisions.context import Context
from opscore.workflow.decisions.transitions import check_session, check_task


class Draft:
    """Lives within one decision. Each record's `rev` rises once, however often it is updated."""

    def __init__(self, ctx: Context, *agents: Agent | None) -> None:
        """`agents` are those that the facts hold; a decision may change each of them."""
        self.ctx = ctx
        self._known = {agent.id: agent for agent in agents if agent is not None}
        self._agents: dict[str, Agent] = {}
        self._sessions: dict[str, WorkflowSession] = {}
        self._tasks: dict[str, Task] = {}
        self._revs: dict[str, int] = {}
        self._events: list[Event] = []
        self._abandoned: list[Task] = []
        self._reopened: set[str] = set()
        self._follow_ups: deque[Callable[[], None]] = deque()
        self._may_ready = False
        self.observation: ForwardObservation | None = None
        self.uncounted: str | None = None

    def agent(self, agent: Agent, **changes: Any) -> Agent:
        updated = evolve(agent, rev=self._next_rev(agent.id, agent.rev), **changes)
        if _offer(updated) != _offer(agent):
            self._may_ready = True
        self._agents[agent.id] = updated
        return updated

    def add_agent(self, agent: Agent) -> Agent:
        self._may_ready = True
        return self.agent(agent)

    def session(self, session: WorkflowSession, **changes: Any) -> WorkflowSession:
        updated = evolve(session, rev=self._next_rev(session.id, session.rev), **changes)
        check_session(session.status, updated.status, session.id in self._reopened)
        self._sessions[session.id] = updated
        return updated

    def task(self, task: Task, **changes: Any) -> Task:
        updated = evolve(task, rev=self._next_rev(task.id, task.rev), **changes)
        if task.rev:
            check_task(task.status, updated.status, task.id in self._reopened)
        if (updated.status, updated.lane) != (task.status, task.lane) or task.rev == 0:
            self._may_ready = True
        self._tasks[task.id] = updated
        return updated

    def latest(self, agent: Agent) -> Agent:
        """The agent as this draft has it."""
        return self._agents.get(agent.id, agent)

    def reopen(self, session: WorkflowSession, task: Task) -> None:
        """Allow this ended session and its ended task to go on."""
        self._reopened |= {session.id, task.id}

    def agent_by_id(self, agent_id: str | None) -> Agent | None:
        """The agent as this draft has it, None if the facts do not hold it."""
        if agent_id is None:
            return None
        return self._agents.get(agent_id, self._known.get(agent_id))

    def abandon(self, task: Task) -> None:
        """The task, as it was in flight, is taken from its agent."""
        self._abandoned.append(task)

    def event(
        self,
        type_: EventType,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        task_id: str | None = None,
        **data: Any,
    ) -> None:
        self._events.append(Event(type_, self.ctx.now, agent_id, session_id, task_id, data))

    def bounded(self, value: Any) -> Any:
        """What an event may hold of a value that came from outside; the record has it whole."""
        size = len(orjson.dumps(value))
        return value if size <= self.ctx.policy.history_details_limit else {"omittedBytes": size}

    def task_event(self, type_: EventType, task: Task, **data: Any) -> None:
        self.event(
            type_,
            agent_id=task.agent_id,
            session_id=task.session_id,
            task_id=task.id,
            stepId=task.step_id,
            attempt=task.attempt,
            **data,
        )

    def session_event(self, type_: EventType, session: WorkflowSession, **data: Any) -> None:
        self.event(type_, agent_id=session.agent_id, session_id=session.id, **data)

    def then(self, follow_up: Callable[[], None]) -> None:
        """Do this before the change is made: a long chain of steps must not become a deep one."""
        self._follow_ups.append(follow_up)

    def change(self) -> Change:
        while self._follow_ups:
            self._follow_ups.popleft()()
        return Change(
            agents=tuple(self._agents.values()),
            sessions=tuple(self._sessions.values()),
            tasks=tuple(self._tasks.values()),
            events=tuple(self._events),
            may_ready=self._may_ready,
            observation=self.observation,
            abandoned=tuple(self._abandoned),
            uncounted=self.uncounted,
        )

    def _next_rev(self, record_id: str, rev: int) -> int:
        return self._revs.setdefault(record_id, rev + 1)


def _offer(agent: Agent) -> tuple[object, ...]:
    """Return the facts that decide which tasks the agent can take; a change may make some ready."""
    has_endpoint = agent.contact_endpoint is not None
    return slots(agent), agent.capabilities, agent.predecessors, has_endpoint
