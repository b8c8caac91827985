"""Whatever is reported and in whatever order: one completion a task, and attempts never fall."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opscore.models import (
    Accepted,
    Answered,
    Claim,
    Delivery,
    EventFilter,
    EventType,
    Failure,
    FailureCode,
    FallbackResult,
    FallbackTask,
    Outcome,
    Policy,
    Registration,
    RetryPolicy,
    SessionStatus,
    StateReport,
    TaskFilter,
    TaskResult,
    WorkflowDefinition,
)
from opscore.storage.memory import MemoryStorage
from opscore.workflow.engine import Engine
from opscore.workflow.timekeeper import Timekeeper
from tests.builders import SESSION, definition, seconds, step
from tests.fakes import ManualClock

AGENTS = ["a1", "a2"]
QUICK = RetryPolicy(max_retries=1, initial_delay=seconds(1))
FLOW = definition(
    step("one", retry=QUICK, fallback=FallbackTask("spare")),
    step("two", agent_capability="x", retry=QUICK, fallback=FallbackResult(0)),
    step("three", agent_id="a2", retry=QUICK),
    step("spare", retry=QUICK),
)

OUTCOMES: list[Outcome] = [
    Accepted(),
    Answered("answer"),
    Failure(FailureCode.UNREACHABLE, "down"),
    Failure(FailureCode.OUTCOME_UNKNOWN, "lost"),
    Failure(FailureCode.AGENT_UNKNOWN, "who?"),
    Failure(FailureCode.REJECTED, "no", terminal=True),
]
WORDS = ["active", "BUSY", "idle", "finished", "error", "napping", "offline"]

CLAIM = st.tuples(st.just("claim"), st.integers(1, 3))
OUTCOME = st.tuples(
    st.just("outcome"), st.integers(0, 1), st.sampled_from(OUTCOMES), st.sampled_from(Delivery)
)
REPORT = st.tuples(
    st.just("report"),
    st.sampled_from(AGENTS),
    st.sampled_from(WORDS),
    st.none() | st.integers(0, 2),
    st.none() | st.integers(1, 2),
    st.none() | st.integers(-90, 5),
)
RESULT = st.tuples(
    st.just("result"), st.integers(0, 3), st.booleans(), st.none() | st.integers(0, 2)
)
AGAIN = st.tuples(st.just("again"), st.integers(0, 5))
PASS = st.tuples(st.just("pass"), st.sampled_from([0.5, 3, 11, 40, 301]))
ANY = st.one_of(CLAIM, OUTCOME, REPORT, AGAIN, CLAIM, OUTCOME, REPORT, PASS, RESULT)
STEPS = st.lists(ANY, min_size=20, max_size=60)


@dataclass
class World:
    """One session on two agents, and everything that was ever claimed or said."""

    clock: ManualClock = field(default_factory=ManualClock)
    claims: list[Claim] = field(default_factory=list)
    reports: list[StateReport] = field(default_factory=list)
    attempts: dict[str, int] = field(default_factory=dict)

    async def begin(self, flow: WorkflowDefinition) -> None:
        self.storage = MemoryStorage()
        self.engine = Engine(self.storage, self.clock, Policy())
        self.timekeeper = Timekeeper(self.engine)
        for agent_id in AGENTS:
            endpoint = f"http://127.0.0.1:9000/{agent_id}"
            given = Registration(agent_id, capabilities=("x",), contact_endpoint=endpoint)
            await self.engine.register(given)
        await self.engine.start_session(SESSION, flow, 1, "a1", {})

    async def do(self, what: str, *arguments: Any) -> None:
        await getattr(self, what)(*arguments)
        self.clock.advance(0.5)
        await self.timekeeper.process_due()
        await self.check()

    async def claim(self, limit: int) -> None:
        now = self.clock.now()
        lease = now + timedelta(seconds=15)
        self.claims += await self.storage.claim("d", now, lease, limit)

    async def outcome(self, which: int, outcome: Outcome, via: Delivery) -> None:
        for claim in self.claims[-1 - which :][:1]:
            await self.engine.task_outcome(claim, via, outcome)

    async def report(
        self, agent_id: str, word: str, which: int | None, attempt: int | None, when: int | None
    ) -> None:
        details: dict[str, Any] = {} if attempt is None else {"attempt": attempt}
        if which is not None and self.claims:
            details["taskId"] = self.claims[-1 - which % len(self.claims)].task.id
        moment = None if when is None else self.clock.now() + timedelta(seconds=when)
        self.reports.append(StateReport(agent_id, word, details, moment))
        await self.engine.agent_reported(self.reports[-1])

    async def again(self, which: int) -> None:
        """An earlier report comes once more."""
        if self.reports:
            await self.engine.agent_reported(self.reports[-1 - which % len(self.reports)])

    async def result(self, which: int, succeeded: bool, attempt: int | None) -> None:
        if self.claims:
            task = self.claims[-1 - which % len(self.claims)].task
            await self.engine.task_reported(task.id, TaskResult(succeeded, 1, "no", attempt))

    async def pass_(self, passed: float) -> None:
        self.clock.advance(passed)
        await self.timekeeper.process_due()

    async def check(self) -> None:
        tasks = (await self.storage.tasks(TaskFilter(), None, 100)).items
        for task in tasks:
            assert task.attempt >= self.attempts.get(task.id, 0)
            self.attempts[task.id] = task.attempt
            assert not task.status.in_flight or task.due_at is not None
        events = (
            await self.storage.events(EventFilter(frozenset({EventType.TASK_COMPLETED})), 0, 1000)
        ).items
        completed = Counter(event.task_id for event in events)
        assert set(completed.values()) <= {1}
        session = await self.storage.session(SESSION)
        assert session is not None
        unfinished = [task for task in tasks if not task.status.ended]
        assert len(unfinished) == (0 if session.status.ended else 1)
        done = {task.step_id for task in tasks if task.id in completed}
        if session.status is SessionStatus.COMPLETED:
            assert "three" in done


async def play(steps: list[tuple[Any, ...]]) -> None:
    world = World()
    await world.begin(FLOW)
    for what, *arguments in steps:
        await world.do("pass_" if what == "pass" else what, *arguments)


@pytest.mark.timeout(300)
@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_F40_F42_F43_one_completion_a_task_and_attempts_never_fall(
    steps: list[tuple[Any, ...]],
) -> None:
    asyncio.run(play(steps))
