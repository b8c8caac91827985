"""Everything that can happen to the engine, in every order, and what must hold all the while."""

import logging
import os
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from opscore.exceptions import AgentNotFoundError, ConflictError, IdempotencyMismatchError
from opscore.models import (
    NO_AGENT,
    Accepted,
    Answered,
    ClaimScope,
    DispatchMode,
    Failure,
    FailureCode,
    Outcome,
    Registration,
    SessionStatus,
    Standing,
    StateReport,
    Task,
    TaskResult,
    TaskStatus,
)
from opscore.session_starter import Trigger
from opscore.workflow.invariants import Checker
from opscore.workflow.queue import Reason
from tests.service.engine_world import AGENTS, WORKFLOWS, Post, World


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Thousands of lines would bury the steps that led to a failure."""
    caplog.set_level(logging.CRITICAL, "opscore")


agents = st.sampled_from(sorted(AGENTS))
owners = st.sampled_from(["d1", "d2"])
picks = st.integers(0, 30)
workflows = st.sampled_from(sorted(WORKFLOWS))
words = st.sampled_from(
    ["idle", "IDLE", "active", "BUSY", "finished", "done", "error", "offline", "initializing", "?"]
)
id_keys = st.sampled_from(["opscore_task_id", "taskId", "task_id"])
attempts = st.sampled_from([None, 0, -1, 1])
moments = st.sampled_from([None, 0, -1, -30, -59, -61, -3600, 299, 301])

terminal = {FailureCode.REJECTED, FailureCode.FORBIDDEN_ENDPOINT, FailureCode.NO_ENDPOINT}
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.sampled_from([Accepted(), Answered({"answer": 42})]),
    st.builds(
        lambda code, free, after: Failure(
            code,
            f"It failed: {code.value}.",
            terminal=code in terminal,
            free=free or code is FailureCode.THROTTLED,
            retry_after=after,
            status=503,
        ),
        st.sampled_from(sorted(FailureCode)),
        st.booleans(),
        st.sampled_from([None, timedelta(seconds=3), timedelta(minutes=10)]),
    ),
)


class EngineMachine(RuleBasedStateMachine):
    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.world = World(self.kind)
        self.reports: list[StateReport] = []
        self.keys: dict[str, tuple[Trigger, str]] = {}

    @initialize(
        absent=st.sets(agents, max_size=1),
        triggers=st.lists(st.tuples(workflows, agents), min_size=2, max_size=6),
        mode=st.sampled_from(DispatchMode),
    )
    def some_are_there(
        self, absent: set[str], triggers: list[tuple[str, str]], mode: DispatchMode
    ) -> None:
        self.world.engine.policy = replace(self.world.engine.policy, mode=mode)
        for agent_id in sorted(AGENTS.keys() - absent):
            self.register(agent_id)
        for workflow, agent_id in triggers:
            self.trigger(workflow, agent_id, None)

    # --- agents ---------------------------------------------------------------------------

    @rule(
        agent_id=agents,
        what=st.sampled_from(["register"] * 3 + ["deregister", "drain", "resume"]),
    )
    def someone_comes_or_goes(self, agent_id: str, what: str) -> None:
        if what == "register":
            self.register(agent_id)
        elif what == "deregister" and self._known(agent_id):
            candidate = self.world.do(self.world.lifecycle.deregister_agent(agent_id))
            assert candidate.agent.standing is Standing.DEREGISTERED
        elif agent_id in self.world.agents():
            draining = what == "drain"
            self.world.do(self.world.lifecycle.update_agent(agent_id, {}, draining=draining))

    def register(self, agent_id: str) -> None:
        capabilities, concurrency, reachable = AGENTS[agent_id]
        registration = Registration(
            agent_id,
            agent_id,
            capabilities,
            concurrency=concurrency,
            contact_endpoint=f"http://127.0.0.1:9000/{agent_id}" if reachable else None,
        )
        candidate, _ = self.world.do(self.world.lifecycle.register_agent(registration))
        assert candidate.agent.standing in (Standing.REGISTERED, Standing.DRAINING)

    # --- reports --------------------------------------------------------------------------

    @rule(
        agent_id=agents,
        word=words,
        when=moments,
        details=st.sampled_from([{"note": "x"}, {}, {"task_id": "unheard-of"}]),
    )
    def report_of_no_task(
        self, agent_id: str, word: str, when: float | None, details: dict[str, Any]
    ) -> None:
        self._report(StateReport(agent_id, word, details, self._moment(when)))

    @precondition(lambda self: self.world.acked)
    @rule(word=words, pick=picks, key=id_keys, shift=attempts, when=moments)
    def report_of_a_task(
        self, word: str, pick: int, key: str, shift: int | None, when: float | None
    ) -> None:
        task = self._a_task(pick)
        details: dict[str, Any] = {key: task.id, "result": pick}
        if shift is not None:
            details["attempt"] = task.attempt + shift
        sender = task.agent_id or "a1"
        self._report(StateReport(sender, word, details, self._moment(when)))
        if shift or task.status.ended:
            assert self._task(task.id) == task, "a late report changes nothing"

    @precondition(lambda self: self.reports)
    @rule(pick=picks)
    def report_again(self, pick: int) -> None:
        self._report(self.reports[-1 - pick % len(self.reports)])

    @precondition(lambda self: self.world.acked)
    @rule(pick=picks, said=st.sampled_from(["completed", "failed", "heartbeat"]), shift=attempts)
    def precise_report(self, pick: int, said: str, shift: int | None) -> None:
        task, lifecycle = self._a_task(pick), self.world.lifecycle
        attempt = None if shift is None else task.attempt + shift
        if said == "heartbeat":
            after = self.world.do(lifecycle.heartbeat(task.id, {"at": pick}, attempt))
            assert after.run_deadline == task.run_deadline
            return
        result = TaskResult(said == "completed", result=pick, error="no", attempt=attempt)
        if self.world.do(lifecycle.report_result(task.id, result)):
            assert not task.status.ended
            assert attempt in (None, task.attempt)

    # --- sessions -------------------------------------------------------------------------

    @rule(workflow=workflows, agent_id=agents, key=st.sampled_from([None, None, "k1", "k2"]))
    def trigger(self, workflow: str, agent_id: str, key: str | None) -> None:
        payload = {"topic": "x"} if key is None else {}
        self._trigger(Trigger(agent_id, payload, workflow), key)

    @precondition(lambda self: self.world.acked)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        ids = sorted(self.world.acked)
        session_id = ids[-1 - pick % len(ids)]
        before = self.world.sessions()[session_id].status
        try:
            after = self.world.do(self.world.lifecycle.cancel_session(session_id, "enough"))
        except ConflictError:
            assert before.ended
            assert before is not SessionStatus.CANCELLED
        else:
            assert after.status is SessionStatus.CANCELLED
            assert before is SessionStatus.CANCELLED or not before.ended

    @precondition(lambda self: self.world.acked)
    @rule(pick=picks, shift=attempts)
    def retry_task(self, pick: int, shift: int | None) -> None:
        task, lifecycle = self._a_task(pick), self.world.lifecycle
        attempt = None if shift is None else task.attempt + shift
        try:
            after = self.world.do(lifecycle.retry_task(task.id, attempt))
        except ConflictError:
            assert self._task(task.id) == task, "a refused retry changes nothing"
            assert shift or task.status.ended or task.status is TaskStatus.QUEUED
        else:
            assert after.status is TaskStatus.QUEUED
            assert (after.attempt, after.retries) == (task.attempt, 0)
            assert attempt in (None, task.attempt)

    @precondition(lambda self: self.world.acked)
    @rule(pick=picks)
    def cancel_task(self, pick: int) -> None:
        task = self._a_task(pick)
        try:
            after = self.world.do(self.world.lifecycle.cancel_task(task.id, "enough"))
        except ConflictError:
            assert task.status.ended
        else:
            assert not after.status.in_flight

    @precondition(lambda self: self.world.acked)
    @rule(pick=picks)
    def retry_session(self, pick: int) -> None:
        ids = sorted(self.world.acked)
        session_id = ids[-1 - pick % len(ids)]
        before = self.world.sessions()[session_id]
        try:
            after = self.world.do(self.world.lifecycle.retry_session(session_id))
        except ConflictError:
            assert self.world.sessions()[session_id] == before
        else:
            assert before.status in (SessionStatus.FAILED, SessionStatus.TIMED_OUT)
            assert (after.status, after.ended_at) == (SessionStatus.WAITING, None)
            assert after.results == before.results

    # --- dispatch -------------------------------------------------------------------------

    @rule(owner=owners, limit=st.integers(1, 4), scope=st.sampled_from(ClaimScope))
    def claim(self, owner: str, limit: int, scope: ClaimScope) -> None:
        before = self.world.agents()
        posts = self.world.claim(owner, limit, scope)
        assert len(posts) <= limit
        assert all(scope.permits(post.claim.task, post.claim.agent) for post in posts)
        for post in posts:
            if post.claim.task.needs_agentkit:
                assert post.claim.agent == NO_AGENT
                continue
            agent = before[post.claim.agent.id].agent
            assert agent.standing is Standing.REGISTERED
            assert agent.hold is None

    @precondition(lambda self: self.world.acked)
    @rule(outcome=outcomes, times=st.integers(1, 7), awake=st.booleans(), probe=st.booleans())
    def claim_and_tell(self, outcome: Outcome, times: int, awake: bool, probe: bool) -> None:
        """More than once: failures in a row are what opens breakers and spends retries."""
        for agent_id in AGENTS if awake else ():
            self._report(StateReport(agent_id, "idle"))
        for _ in range(times):
            for post in self.world.claim("d1", 1):
                self.world.posts.remove(post)
                self._tell(post, outcome, probe)
            self.world.pass_time(3)

    @precondition(lambda self: self.world.acked)
    @rule(owner=owners, word=words, key=id_keys, named=st.booleans())
    def deliver_and_hear(self, owner: str, word: str, key: str, named: bool) -> None:
        """The usual way of things: claimed, accepted, active, and then some word."""
        for post in self.world.claim(owner, 1):
            self.world.posts.remove(post)
            self._tell(post, Accepted())
            details = {key: post.claim.task.id} if named else {}
            for said in ("active", word):
                self._report(StateReport(post.claim.agent.id, said, details))

    @precondition(lambda self: self.world.posts)
    @rule(pick=picks, fate=st.one_of(outcomes, st.sampled_from(["lost", "told twice"])))
    def told(self, pick: int, fate: Outcome | str) -> None:
        post = self.world.posts.pop(pick % len(self.world.posts))
        if fate == "told twice":
            self.world.posts.append(post)
            self._tell(post, Accepted())
        elif not isinstance(fate, str):
            self._tell(post, fate)

    @rule(owner=owners)
    def renew(self, owner: str) -> None:
        mine = [post.claim.task for post in self.world.posts if post.claim.task.owner == owner]
        until = self.world.clock.now() + timedelta(seconds=15)
        ids = [task.id for task in mine]
        held = self.world.do(self.world.storage.renew(owner, ids, until))
        assert held <= set(ids)

    # --- time -----------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 3, 11, 16, 70, 310]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        due = self.world.do(self.world.storage.next_due())
        assert due is None or due > self.world.clock.now()

    @rule(hours=st.sampled_from([-1, 0, 1]))
    def the_wall_clock_jumps(self, hours: int) -> None:
        self.world.clock.skew = timedelta(hours=hours)

    # --- what must hold -------------------------------------------------------------------

    @invariant()
    def everything_holds(self) -> None:
        self.world.check()

    def teardown(self) -> None:
        try:
            self._check_that_nothing_is_to_be_repaired()
            self._drive_to_the_end()
            self.world.check()
            self._check_that_nothing_is_to_be_repaired()
            self._check_that_whoever_waits_has_a_reason()
        finally:
            self.world.close()

    def _check_that_nothing_is_to_be_repaired(self) -> None:
        assert self.world.do(Checker(self.world.engine, "checker").round()) == []

    def _drive_to_the_end(self) -> None:
        """Agents answer and time passes, until neither changes anything."""
        self.world.posts.clear()
        for _ in range(500):
            posts = self.world.claim("end", 100)
            for post in posts:
                self._tell(post, Accepted())
                self.world.do(
                    self.world.lifecycle.report_result(post.claim.task.id, TaskResult(True))
                )
            due = self.world.do(self.world.storage.next_due())
            if due is not None:
                ahead = due - self.world.clock.now()
                self.world.pass_time(max(0.0, ahead.total_seconds()))
            elif not posts:
                return
        raise AssertionError("it never comes to an end")

    def _check_that_whoever_waits_has_a_reason(self) -> None:
        for task in self.world.tasks():
            if not task.status.ended:
                explanation = self.world.do(self.world.lifecycle.explain(task, None))
                assert explanation.reason.code not in (Reason.READY, Reason.NOT_WAITING), task
                assert explanation.reason.message
                assert explanation.unblocked_by

    # --- helpers --------------------------------------------------------------------------

    def _known(self, agent_id: str) -> bool:
        return self.world.do(self.world.storage.agent(agent_id)) is not None

    def _a_task(self, pick: int) -> Task:
        tasks = self.world.tasks()
        return tasks[-1 - pick % len(tasks)]

    def _moment(self, ago: float | None) -> Any:
        return None if ago is None else self.world.clock.wall() + timedelta(seconds=ago)

    def _report(self, report: StateReport) -> None:
        self.reports.append(report)
        known = self._known(report.agent_id)
        try:
            self.world.do(self.world.lifecycle.set_state(report))
        except AgentNotFoundError:
            assert not known
        else:
            assert known

    def _trigger(self, trigger: Trigger, key: str | None = None) -> None:
        used = self.keys.get(key or "")
        try:
            session = self.world.do(self.world.lifecycle.start_session(trigger, key))
        except IdempotencyMismatchError:
            assert used is not None
            assert used[0] != trigger
        except (AgentNotFoundError, ConflictError):
            assert used is None
            assert trigger.agent_id not in self.world.agents()
        else:
            if used is not None:
                assert used == (trigger, session.id)
            elif key is not None:
                self.keys[key] = (trigger, session.id)
            assert (session.id in self.world.acked) == (used is not None)
            self.world.acked.add(session.id)

    def _tell(self, post: Post, outcome: Outcome, probe: bool = False) -> None:
        claimed = post.claim.task
        before = self._task(claimed.id)
        self.world.do(self.world.engine.task_outcome(post.claim, post.via, outcome, probe))
        overtaken = (before.attempt, before.owner) != (claimed.attempt, claimed.owner)
        if overtaken or not before.status.in_flight:
            assert self._task(claimed.id) == before, "who has lost the task changes nothing"

    def _task(self, task_id: str) -> Task:
        return self.world.do(self.world.lifecycle.get_task(task_id))


# How often it is played; where nothing waits for a disk or a socket, it costs least.
EXAMPLES = {"memory": 100, "sqlite": 25, "postgres": 10}


@pytest.mark.timeout(300)
def test_everything_holds_whatever_happens_in_whatever_order(storage_kind: str) -> None:
    class Machine(EngineMachine):
        kind = storage_kind

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES[storage_kind],
            stateful_step_count=40,
            deadline=None,
            # New paths each time, and their steps are printed; but where a change is checked,
            # a failure must be its own.
            derandomize=bool(os.environ.get("CI")),
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
