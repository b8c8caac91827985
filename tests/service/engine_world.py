"""The world that the engine's state machine plays in, and what must hold in it after each step."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any, TypeVar

from opscore.ids import task_id
from opscore.lifecycle import Lifecycle, Limits
from opscore.models import (
    AgentFilter,
    Backoff,
    Candidate,
    Claim,
    ClaimScope,
    Delivery,
    Event,
    EventFilter,
    EventType,
    FallbackCapability,
    FallbackResult,
    FallbackTask,
    Policy,
    Retention,
    RetryPolicy,
    SessionFilter,
    SessionStatus,
    Task,
    TaskFilter,
    TaskStatus,
    WorkflowDefinition,
    WorkflowSession,
)
from opscore.workflow.catalog import Catalog
from opscore.workflow.engine import Engine
from opscore.workflow.forwarding import choose
from opscore.workflow.orphans import OrphanedTasks
from opscore.workflow.timekeeper import Timekeeper
from tests.builders import definition, step
from tests.contract.shelf import session_id
from tests.fakes import ManualClock
from tests.storages import opener

T = TypeVar("T")

# Id, capabilities, concurrency, whether it has an endpoint of its own.
AGENTS: dict[str, tuple[tuple[str, ...], int, bool]] = {
    "a1": (("research",), 1, True),
    "a2": (("research", "painting"), 2, True),
    "a3": (("painting",), 1, False),
}

ONCE = RetryPolicy(max_retries=1, backoff=Backoff.FIXED, initial_delay=timedelta(seconds=2))
NEVER = RetryPolicy(max_retries=0)

WORKFLOWS: dict[str, WorkflowDefinition] = {
    one.id: one
    for one in (
        definition(step("one"), step("two"), step("three"), id="line"),
        definition(
            step("one", agent_capability="research", retry=ONCE, next_task_id="two"),
            step("two", agent_capability="painting", priority=9, timeout=timedelta(seconds=40)),
            id="crew",
        ),
        definition(
            step("one", retry=NEVER, fallback=FallbackTask("spare")),
            step("two", agent_id="a2", retry=ONCE, fallback=FallbackCapability("painting")),
            step("three", retry=NEVER, fallback=FallbackResult("none")),
            step("spare", agent_capability="research", retry=NEVER),
            id="fallbacks",
        ),
        definition(
            step("one", delay=timedelta(seconds=5), queue_timeout=timedelta(seconds=60)),
            step("two", parameters={"from": "${tasks.one.result}"}, delay=timedelta(seconds=1)),
            id="timed",
            timeout=timedelta(seconds=120),
        ),
        definition(
            step("one", retry=NEVER, fallback=FallbackTask("spare")),
            step("two", parameters={"x": "${input.nowhere}"}, retry=NEVER),
            step("spare", parameters={"x": "${input.nowhere}"}, fallback=FallbackResult(7)),
            id="broken",
        ),
    )
}


@dataclass
class Post:
    """A message under way."""

    claim: Claim
    via: Delivery


@dataclass
class Seen:
    """What the event log has said so far."""

    last: int = 0
    started: Counter[str] = field(default_factory=Counter)
    completed: Counter[str] = field(default_factory=Counter)
    stand_ins: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    attempts: dict[str, int] = field(default_factory=dict)
    ends: Counter[str] = field(default_factory=Counter)

    def take(self, event: Event) -> None:
        assert event.seq > self.last
        self.last = event.seq
        task, session = event.task_id or "", event.session_id or ""
        if event.type is EventType.SESSION_STARTED:
            self.started[session] += 1
        elif event.type in SESSION_ENDS:
            self.ends[session] += 1
        elif event.type is EventType.SESSION_RESUMED:
            self.ends[session] -= 1
        elif event.type is EventType.TASK_COMPLETED:
            self.completed[task] += 1
        elif event.type is EventType.TASK_FALLBACK and event.data["kind"] == "task":
            self.stand_ins[task].add(event.data["to"])
        elif event.type is EventType.TASK_DISPATCHED:
            assert event.data["attempt"] == self.attempts.get(task, 0) + 1
            self.attempts[task] = event.data["attempt"]


SESSION_ENDS = frozenset(
    {
        EventType.SESSION_COMPLETED,
        EventType.SESSION_FAILED,
        EventType.SESSION_CANCELLED,
        EventType.SESSION_TIMED_OUT,
    }
)


class World:
    def __init__(self, kind: str) -> None:
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self._exits = ExitStack()
        self.storage = self.do(self._exits.enter_context(opener(kind))(Retention()))
        policy = Policy(run_timeout=timedelta(seconds=90), active_hold=timedelta(seconds=30))
        self.engine = Engine(self.storage, self.clock, policy)
        self.catalog = Catalog(self.engine)
        # Ids that are the same again let a failure be shrunk and reproduced.
        ids = map(session_id, count())
        self.lifecycle = Lifecycle(self.engine, self.catalog, Limits(), lambda: next(ids))
        self.timekeeper = Timekeeper(self.engine)
        self.orphans = OrphanedTasks(self.engine)
        self.posts: list[Post] = []
        self.acked: set[str] = set()
        self.seen = Seen()
        self.task_attempts: dict[str, int] = {}
        for one in WORKFLOWS.values():
            self.do(self.catalog.create_workflow(one))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def close(self) -> None:
        self.do(self.storage.close())
        self._exits.close()
        self.runner.close()

    # --- looking --------------------------------------------------------------------------

    def agents(self) -> dict[str, Candidate]:
        page = self.do(self.storage.agents(AgentFilter(), None, 100))
        return {one.agent.id: one for one in page.items}

    def sessions(self) -> dict[str, WorkflowSession]:
        page = self.do(self.storage.sessions(SessionFilter(), None, 10_000))
        return {one.id: one for one in page.items}

    def tasks(self) -> list[Task]:
        page = self.do(self.storage.tasks(TaskFilter(), None, 10_000))
        return sorted(page.items, key=lambda task: (task.created_at, task.id))

    # --- acting ---------------------------------------------------------------------------

    def claim(self, owner: str, limit: int, scope: ClaimScope = ClaimScope.ALL) -> list[Post]:
        now = self.clock.now()
        lease_until = now + timedelta(seconds=15)
        claims = self.do(self.storage.claim(owner, now, lease_until, limit, scope))
        posts = [Post(claim, self._route(claim)) for claim in claims]
        self.posts += posts
        return posts

    def _route(self, claim: Claim) -> Delivery:
        policy, known = self.engine.policy, self.engine.routes.known
        return choose(policy.mode, known, claim.task, claim.agent, self.clock.now())

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.do(self.timekeeper.process_due())
        self.do(self.orphans.fail_all())

    # --- what must hold -------------------------------------------------------------------

    def check(self) -> None:
        self._read_events()
        sessions, tasks = self.sessions(), self.tasks()
        self._check_triggers(sessions)
        self._check_tasks(tasks)
        by_session: dict[str, list[Task]] = defaultdict(list)
        for task in tasks:
            by_session[task.session_id].append(task)
        for session in sessions.values():
            self._check_session(session, by_session[session.id])
        self._check_slots(tasks)
        self._check_timers(sessions, tasks)
        self._check_counts(sessions, tasks)

    def _read_events(self) -> None:
        page = self.do(self.storage.events(EventFilter(), self.seen.last, 10_000))
        for event in page.items:
            self.seen.take(event)

    def _check_triggers(self, sessions: dict[str, WorkflowSession]) -> None:
        assert set(sessions) == self.acked, "an acked trigger has exactly one session"
        assert self.seen.started == Counter(dict.fromkeys(self.acked, 1))

    def _check_tasks(self, tasks: list[Task]) -> None:
        for task in tasks:
            counted = int(task.status is TaskStatus.COMPLETED)
            assert self.seen.completed[task.id] == counted, "a completion counts once"
            assert task.attempt >= self.task_attempts.get(task.id, 0), "attempts only rise"
            assert task.attempt == self.seen.attempts.get(task.id, 0)
            self.task_attempts[task.id] = task.attempt
            if task.status.in_flight or task.status is TaskStatus.DELAYED:
                assert task.due_at is not None, "nothing runs or is delayed without a timer"

    def _check_session(self, session: WorkflowSession, tasks: list[Task]) -> None:
        assert {task.id for task in tasks} == self._expected_tasks(session, tasks)
        unfinished = [task for task in tasks if not task.status.ended]
        assert len(unfinished) == (0 if session.status.ended else 1), "nobody waits for nothing"
        assert self.seen.ends[session.id] == int(session.status.ended)
        assert (session.ended_at is not None) == session.status.ended
        done = [task for task in tasks if task.status is TaskStatus.COMPLETED]
        assert all(session.results[task.step_id] == task.result for task in done)

    def _expected_tasks(self, session: WorkflowSession, tasks: list[Task]) -> set[str]:
        """A successor is there exactly when its predecessor's completion counted."""
        by_id = {task.id: task for task in tasks}
        steps: list[tuple[str, str | None]] = [(session.definition.first().task_id, None)]
        expected: set[str] = set()
        while steps:
            step_id, stands_for = steps.pop()
            identity = task_id(session.id, step_id, stands_for)
            expected.add(identity)
            task = by_id.get(identity)
            if task is None:
                continue
            origin = stands_for or step_id
            steps += [(to, origin) for to in self.seen.stand_ins[identity]]
            if task.status is TaskStatus.COMPLETED:
                following = session.definition.successor(origin)
                if following is None:
                    assert session.status is SessionStatus.COMPLETED
                else:
                    steps.append((following.task_id, None))
        return expected

    def _check_slots(self, tasks: list[Task]) -> None:
        held = Counter(task.agent_id for task in tasks if task.status.in_flight)
        known = self.agents()
        for agent_id, (_, concurrency, _) in AGENTS.items():
            assert held[agent_id] <= concurrency, "no agent above its concurrency"
            if agent_id in known:
                assert known[agent_id].in_flight == held[agent_id]

    def _check_timers(self, sessions: dict[str, WorkflowSession], tasks: list[Task]) -> None:
        moments = [candidate.agent.due_at for candidate in self._all_agents()]
        moments += [session.due_at for session in sessions.values()]
        moments += [task.due_at for task in tasks]
        earliest = min((one for one in moments if one is not None), default=None)
        assert self.do(self.storage.next_due()) == earliest

    def _all_agents(self) -> list[Candidate]:
        found = [self.do(self.storage.agent(agent_id)) for agent_id in AGENTS]
        return [candidate for candidate in found if candidate is not None]

    def _check_counts(self, sessions: dict[str, WorkflowSession], tasks: list[Task]) -> None:
        counts = self.do(self.storage.counts())
        assert counts.agents == len(self._all_agents())
        assert counts.sessions == len(sessions)
        assert counts.tasks == len(tasks)
        assert counts.by_status == Counter(task.status.value for task in tasks)
        assert counts.waiting == sum(task.status.waiting for task in tasks)
        assert counts.in_flight == sum(task.status.in_flight for task in tasks)
