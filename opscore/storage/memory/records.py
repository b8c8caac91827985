"""The records and what must be kept in step with them: queues, slots, timers, indexes."""

from bisect import bisect_left, insort
from collections import Counter, deque
from collections.abc import Iterator
from datetime import UTC, datetime

from opscore.models import (
    TOOL_LANE,
    Agent,
    Candidate,
    Retention,
    SessionStatus,
    Standing,
    Task,
    TaskFacts,
    TaskStatus,
    WorkflowRevision,
    WorkflowSession,
    agent_lane,
    slots,
)
from opscore.storage.interface import REVISIONS_KEPT
from opscore.storage.memory.events import EventLog
from opscore.storage.memory.lanes import Lanes, Place
from opscore.storage.memory.listing import NewestFirst, newest_first
from opscore.storage.memory.timers import Kind, Timers
from opscore.storage.ordering import lanes_of, served_name

_EVER = datetime.min.replace(tzinfo=UTC)


class Records:
    def __init__(self, retention: Retention) -> None:
        self.agents: dict[str, Agent] = {}
        self.agent_ids: list[str] = []
        self.gone_agents: deque[tuple[datetime, str]] = deque()
        self.workflows: dict[str, list[WorkflowRevision]] = {}
        self.sessions: dict[str, WorkflowSession] = {}
        self.sessions_by_age = NewestFirst(self.sessions)
        self.ended_sessions: deque[tuple[datetime, str]] = deque()
        self.tasks: dict[str, Task] = {}
        self.tasks_by_age = NewestFirst(self.tasks)
        self.session_tasks: dict[str, tuple[str, ...]] = {}
        self.statuses: Counter[TaskStatus] = Counter()
        self.waiting_bytes = 0
        self.session_statuses: Counter[SessionStatus] = Counter()
        self.events = EventLog(retention)
        self.lanes = Lanes(self.tasks.get, self._free_agent)
        self.timers = Timers(self._due_at)
        self._serving: dict[str, set[str]] = {}
        self._named: dict[str, set[str]] = {}
        self._in_flight: dict[str, dict[str, None]] = {}
        self._waiting_for: Counter[str] = Counter()
        self._used_revisions: Counter[tuple[str, int]] = Counter()

    # --- reading --------------------------------------------------------------------------

    def candidate(self, agent: Agent) -> Candidate:
        return Candidate(agent, len(self._in_flight.get(agent.id, ())))

    def in_flight(self, agent_id: str) -> list[Task]:
        return [self.tasks[task_id] for task_id in self._in_flight.get(agent_id, ())]

    def task_facts(self, task: Task) -> TaskFacts:
        agent = self.agents.get(task.agent_id) if task.agent_id else None
        return TaskFacts(task, self.sessions[task.session_id], agent)

    def newest_tasks(self, session_id: str | None, cursor: str | None) -> Iterator[Task]:
        """Return the tasks of a session, or of all, newest first."""
        if session_id is not None:
            return iter(newest_first(self.tasks_of(session_id), cursor))
        return (self.tasks[task_id] for task_id in self.tasks_by_age.before(cursor))

    def tasks_of(self, session_id: str) -> tuple[Task, ...]:
        return tuple(self.tasks[task_id] for task_id in self.session_tasks.get(session_id, ()))

    def serving(self, lane: str) -> list[Agent]:
        """The agents that serve a lane, gone ones left out, by id."""
        found = (self.agents[agent_id] for agent_id in sorted(self._serving.get(lane, ())))
        return [agent for agent in found if agent.standing is not Standing.DEREGISTERED]

    def namesakes(self, agent_id: str, name: str) -> tuple[Agent, ...]:
        """Return the other agents in service that AgentKit announced under the name, by id."""
        found = sorted(self._named.get(name, set()) - {agent_id})
        return tuple(self.agents[one] for one in found)

    def stranded(self) -> Iterator[str]:
        """Waiting tasks that only a deregistered agent could do."""
        gone = {agent_id for _, agent_id in self.gone_agents}
        awaited = {
            agent_id
            for agent_id in gone
            if self._waiting_for[agent_id]
            and gone_since(self.agents.get(agent_id))
            and not self.serving(agent_lane(agent_id))
        }
        if awaited:
            for task in self.tasks.values():
                if _waits_for(task) in awaited:
                    yield task.id

    def _free_agent(self, agent_id: str) -> Agent | None:
        agent = self.agents.get(agent_id)
        if agent is None or slots(agent) <= len(self._in_flight.get(agent_id, ())):
            return None
        return agent

    def _due_at(self, kind: Kind, record_id: str) -> datetime | None:
        records: dict[Kind, dict[str, Agent] | dict[str, WorkflowSession] | dict[str, Task]] = {
            Kind.AGENT: self.agents,
            Kind.SESSION: self.sessions,
            Kind.TASK: self.tasks,
        }
        record = records[kind].get(record_id)
        return record.due_at if record else None

    # --- writing --------------------------------------------------------------------------

    def put_agent(self, agent: Agent) -> None:
        before = self.agents.get(agent.id)
        self.agents[agent.id] = agent
        if before is None:
            insort(self.agent_ids, agent.id)
        if before is None or lanes_of(before) != lanes_of(agent):
            if before is not None:
                self._serve_no_more(before)
            self._serve(agent)
        self._move_name(served_name(before), served_name(agent), agent.id)
        since = gone_since(agent)
        if since is not None and since != gone_since(before):
            self.gone_agents.append((since, agent.id))
        self._set_timer(Kind.AGENT, agent.id, before.due_at if before else None, agent.due_at)
        self._tell_lanes(agent.id)

    def _move_name(self, before: str | None, after: str | None, agent_id: str) -> None:
        if before == after:
            return
        if before is not None:
            self._named[before].discard(agent_id)
            if not self._named[before]:
                del self._named[before]
        if after is not None:
            self._named.setdefault(after, set()).add(agent_id)

    def _serve(self, agent: Agent) -> None:
        for lane in lanes_of(agent):
            self._serving.setdefault(lane, set()).add(agent.id)

    def _serve_no_more(self, agent: Agent) -> None:
        for lane in set(lanes_of(agent)):
            self._serving[lane].discard(agent.id)
            if not self._serving[lane]:
                del self._serving[lane]

    def put_workflow(self, saved: WorkflowRevision) -> None:
        """Add a revision, and delete old ones that no session has."""
        revisions = self.workflows.setdefault(saved.id, [])
        revisions.append(saved)
        oldest = saved.revision - REVISIONS_KEPT
        if revisions[0].revision <= oldest:
            self.workflows[saved.id] = [
                one
                for one in revisions
                if one.revision > oldest or self._used_revisions[saved.id, one.revision]
            ]

    def put_session(self, session: WorkflowSession) -> None:
        before = self.sessions.get(session.id)
        self.sessions[session.id] = session
        if before is None:
            self.sessions_by_age.add(session.created_at, session.id)
            self._used_revisions[session.workflow_id, session.workflow_revision] += 1
        ended_at = before.ended_at if before is not None else None
        if session.ended_at is not None and ended_at is None:
            self.ended_sessions.append((session.ended_at, session.id))
        elif session.ended_at is None and ended_at is not None:
            # Linear in the number of ended sessions, but only an operator's retry comes here.
            self.ended_sessions.remove((ended_at, session.id))
        if before is not None:
            self.session_statuses[before.status] -= 1
        self.session_statuses[session.status] += 1
        before_due = before.due_at if before else None
        self._set_timer(Kind.SESSION, session.id, before_due, session.due_at)

    def put_task(self, task: Task, place: Place | None = None) -> None:
        before = self.tasks.get(task.id)
        self.tasks[task.id] = task
        if before is None:
            self.tasks_by_age.add(task.created_at, task.id)
            siblings = self.session_tasks.get(task.session_id, ())
            self.session_tasks[task.session_id] = (*siblings, task.id)
        self._count(before, task)
        self._count_waiting(before, task)
        self._move_slot(before, task)
        self._move_in_queue(before, task, place)
        self._set_timer(Kind.TASK, task.id, before.due_at if before else None, task.due_at)

    def _count(self, before: Task | None, after: Task) -> None:
        if before is not None:
            self._uncount(before)
        self.statuses[after.status] += 1
        if after.status.waiting:
            self.waiting_bytes += after.queue_bytes

    def _uncount(self, task: Task) -> None:
        self.statuses[task.status] -= 1
        if task.status.waiting:
            self.waiting_bytes -= task.queue_bytes

    def _count_waiting(self, before: Task | None, after: Task) -> None:
        awaited_before, awaited = _waits_for(before) if before else None, _waits_for(after)
        if awaited_before == awaited:
            return
        if awaited is not None:
            self._waiting_for[awaited] += 1
        if awaited_before is not None:
            self._waiting_for[awaited_before] -= 1
            if not self._waiting_for[awaited_before]:
                del self._waiting_for[awaited_before]

    def _move_slot(self, before: Task | None, after: Task) -> None:
        held = before.agent_id if before is not None and before.status.in_flight else None
        holds = after.agent_id if after.status.in_flight else None
        if held == holds:
            return
        if held is not None:
            self._in_flight[held].pop(after.id, None)
            if not self._in_flight[held]:
                del self._in_flight[held]
        if holds is not None:
            self._in_flight.setdefault(holds, {})[after.id] = None
        for agent_id in (held, holds):
            if agent_id is not None:
                self._tell_lanes(agent_id)

    def _move_in_queue(self, before: Task | None, after: Task, place: Place | None) -> None:
        was_queued = before is not None and before.status is TaskStatus.QUEUED
        is_queued = after.status is TaskStatus.QUEUED
        if before is not None and was_queued:
            if is_queued and _place(before) == _place(after):
                return
            self.lanes.task_left(before)
        if is_queued:
            self.lanes.task_queued(after, place)

    def _set_timer(
        self, kind: Kind, record_id: str, before: datetime | None, after: datetime | None
    ) -> None:
        if after is not None and after != before:
            self.timers.set(kind, record_id, after)

    def _tell_lanes(self, agent_id: str) -> None:
        agent = self.agents.get(agent_id)
        if agent is not None:
            self.lanes.agent_changed(agent, self._free_agent(agent_id) is not None)

    def order(self) -> None:
        """Put in order of time what was put in another one."""
        self.gone_agents = deque(sorted(self.gone_agents))
        self.ended_sessions = deque(sorted(self.ended_sessions))
        for agent_id, held in self._in_flight.items():
            ids = sorted(held, key=lambda one: (self.tasks[one].dispatched_at or _EVER, one))
            self._in_flight[agent_id] = dict.fromkeys(ids)

    # --- forgetting -----------------------------------------------------------------------

    def forget_session(self, session_id: str) -> int:
        """Forget an ended session with its tasks and events; how many tasks went."""
        session = self.sessions.pop(session_id)
        self.session_statuses[session.status] -= 1
        self._use_no_more(session.workflow_id, session.workflow_revision)
        task_ids = self.session_tasks.pop(session_id, ())
        for task_id in task_ids:
            self._uncount(self.tasks.pop(task_id))
        self.events.forget_session(session_id)
        return len(task_ids)

    def _use_no_more(self, workflow_id: str, revision: int) -> None:
        self._used_revisions[workflow_id, revision] -= 1
        if not self._used_revisions[workflow_id, revision]:
            del self._used_revisions[workflow_id, revision]

    def forget_agent(self, agent_id: str) -> None:
        agent = self.agents.pop(agent_id)
        del self.agent_ids[bisect_left(self.agent_ids, agent_id)]
        self._serve_no_more(agent)
        self._move_name(served_name(agent), None, agent_id)
        self.events.forget_agent(agent_id)
        self.lanes.forget_agent(agent)

    def is_needed(self, agent_id: str) -> bool:
        """Whether a gone agent still has a task, in flight or waiting."""
        return agent_id in self._in_flight or self._waiting_for[agent_id] > 0

    def sweep(self) -> None:
        self.sessions_by_age.sweep()
        self.tasks_by_age.sweep()


def gone_since(agent: Agent | None) -> datetime | None:
    """When the agent was deregistered, if it is."""
    if agent is None or agent.standing is not Standing.DEREGISTERED:
        return None
    return agent.standing_since


def _waits_for(task: Task) -> str | None:
    """The one agent that a waiting task is for; a tool step waits for none."""
    is_for_agent = task.status.waiting and task.lane != TOOL_LANE
    return task.wanted_agent if is_for_agent else None


def _place(task: Task) -> tuple[str, int, bool]:
    return task.lane, task.priority, task.needs_agentkit
