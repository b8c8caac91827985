"""Agents that name no task, in every order: no result is credited to a task that it is not of."""

import logging
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from opscore.models import (
    Accepted,
    AgentKitKnowledge,
    Change,
    Delivery,
    DispatchMode,
    Forwards,
    Registration,
    TaskStatus,
)
from opscore.session_starter import Trigger
from tests.service.engine_world import World
from tests.service.nameless_agents import NamelessAgent


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "opscore")


ids = st.sampled_from(["a1", "a2", "a3"])
channels = st.sampled_from(Delivery)
words = st.sampled_from(["idle", "finished", "error"])
picks = st.integers(0, 30)


class NamelessMachine(RuleBasedStateMachine):
    """Agent a1 works first and answers then; the others accept and report while they work."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World("memory")
        self.agents = {
            "a1": NamelessAgent("a1", True, self.world),
            "a2": NamelessAgent("a2", False, self.world),
            "a3": NamelessAgent("a3", False, self.world),
        }
        self.world.engine.subscribe(self._on_change)

    @initialize()
    def they_are_there(self) -> None:
        policy = self.world.engine.policy
        run = timedelta(seconds=20)
        self.world.engine.policy = replace(policy, mode=DispatchMode.DIRECT, run_timeout=run)
        self.world.engine.routes.known = AgentKitKnowledge(forwards=Forwards.PROVED)
        for one in self.agents:
            registration = Registration(
                one,
                one,
                ("research",),
                contact_endpoint=f"http://127.0.0.1:9000/{one}",
                concurrency=2 if one == "a3" else 1,
            )
            self.world.do(self.world.lifecycle.register_agent(registration))
            self.trigger(one, "line")

    def _on_change(self, change: Change) -> None:
        for task in change.abandoned:
            self.world.posts = [post for post in self.world.posts if post.claim.task.id != task.id]
            self.agents[task.agent_id or ""].be_told_to_stop(task)

    # --- Ops-Core -------------------------------------------------------------------------

    @rule(agent_id=ids, workflow=st.sampled_from(["line", "line", "crew"]))
    def trigger(self, agent_id: str, workflow: str) -> None:
        session = self.world.do(
            self.world.lifecycle.start_session(Trigger(agent_id, {}, workflow), None)
        )
        self.world.acked.add(session.id)

    @rule(via=channels, accept=st.booleans())
    def dispatch(self, via: Delivery, accept: bool) -> None:
        for post in self.world.claim("d1", 4):
            self.agents[post.claim.agent.id].take(post, via, accept)

    @rule(pick=picks)
    def accept_late(self, pick: int) -> None:
        """The answer to a message comes after what was reported of it."""
        waiting = [post for post in self.world.posts if post.claim.agent.id != "a1"]
        if waiting:
            post = waiting[pick % len(waiting)]
            self.agents[post.claim.agent.id].tell(post, Accepted())

    @rule(pick=picks)
    def lose_the_dispatcher(self, pick: int) -> None:
        if self.world.posts:
            self.world.posts.pop(pick % len(self.world.posts))

    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        running = [one.id for one in self.world.sessions().values() if not one.status.ended]
        if running:
            session_id = sorted(running)[pick % len(running)]
            self.world.do(self.world.lifecycle.cancel_session(session_id, "enough"))

    @rule(pick=picks)
    def take_back(self, pick: int) -> None:
        """An operator has a task at work tried again."""
        at_work = [task for task in self.world.tasks() if task.status.in_flight]
        if at_work:
            task = at_work[pick % len(at_work)]
            self.world.do(self.world.lifecycle.retry_task(task.id, None))

    # --- the agents -----------------------------------------------------------------------

    @rule(agent_id=ids)
    def begin(self, agent_id: str) -> None:
        self.agents[agent_id].begin()

    @rule(agent_id=ids, word=words)
    def finish(self, agent_id: str, word: str) -> None:
        self.agents[agent_id].finish(word)

    @rule(agent_id=ids)
    def report_arrives(self, agent_id: str) -> None:
        self.agents[agent_id].deliver()

    @rule(agent_id=ids, pick=picks)
    def report_arrives_again(self, agent_id: str, pick: int) -> None:
        self.agents[agent_id].say_again(pick)

    @rule(agent_id=ids, via=channels, word=words, hears=st.booleans(), repeats=st.integers(0, 3))
    def do_a_whole_task(
        self, agent_id: str, via: Delivery, word: str, hears: bool, repeats: int
    ) -> None:
        """The usual way of things; its last reports may arrive when the next task is there."""
        agent = self.agents[agent_id]
        self.dispatch(via, accept=True)
        agent.begin()
        agent.finish(word)
        while agent.outbox and hears:
            agent.deliver()
        self.dispatch(via, accept=True)
        while agent.outbox:
            agent.deliver()
        for pick in range(repeats):
            agent.say_again(pick)

    @rule(agent_id=ids, via=channels, word=words, pick=picks)
    def end_late(self, agent_id: str, via: Delivery, word: str, pick: int) -> None:
        """A task is cancelled at work, the next one is sent, and the first one ends."""
        agent = self.agents[agent_id]
        self.dispatch(via, accept=True)
        agent.begin()
        agent.deliver()
        self.cancel(pick)
        self.dispatch(via, accept=True)
        agent.finish(word)
        while agent.outbox:
            agent.deliver()

    @rule(seconds=st.sampled_from([0.5, 2, 5, 11]))
    def time_passes(self, seconds: float) -> None:
        for agent in self.agents.values():
            agent.be_quick(timedelta(seconds=seconds))
        self._renew()
        self.world.pass_time(seconds)

    def _renew(self) -> None:
        held = [post.claim.task.id for post in self.world.posts]
        until = self.world.clock.now() + timedelta(seconds=15)
        self.world.do(self.world.storage.renew("d1", held, until))

    # --- what must hold -------------------------------------------------------------------

    @invariant()
    def each_result_is_of_its_own_task(self) -> None:
        for task in self.world.tasks():
            if task.status is TaskStatus.COMPLETED:
                self._check_credit(task.id, task.result)
            if task.error is not None and task.error.get("error"):
                assert task.error["message"] == f"no {task.id}"

    def _check_credit(self, task_id: str, result: object) -> None:
        done = set().union(*(agent.ledger.get(task_id, set()) for agent in self.agents.values()))
        assert done, "completed without having been worked on"
        if isinstance(result, dict) and "did" in result:
            assert result["did"] == task_id

    def teardown(self) -> None:
        self.world.close()


@pytest.mark.fault("F100")
@pytest.mark.fault("F101")
@pytest.mark.fault("F122")
@pytest.mark.fault("F123")
@pytest.mark.timeout(300)
def test_results_of_agents_that_name_no_task_are_credited_to_their_own_tasks() -> None:
    run_state_machine_as_test(
        NamelessMachine,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
