"""The use cases about agents and their states."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from opscore.exceptions import (
    AgentNotFoundError,
    ConflictError,
    ForbiddenEndpointError,
    StorageError,
    WebhookReplayedError,
)
from opscore.lifecycle import Limits
from opscore.models import (
    Availability,
    Change,
    EndpointPolicy,
    EventType,
    HoldReason,
    Registration,
    SessionStatus,
    Standing,
    StateReport,
    StateWord,
    TaskResult,
    TaskStatus,
    availability,
)
from opscore.session_starter import Trigger
from opscore.workflow.queue import Reason
from tests.builders import at, definition, step
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import Switchboard

# --- registering ------------------------------------------------------------------------------


async def test_an_agent_is_registered_once_and_updated_after_that(build: Builder) -> None:
    house = await build(running=False)
    registration = Registration(
        "a1", "Ann", ("x", "y"), "1.0", "http://127.0.0.1:9000/a1", {"k": [1]}, 3
    )
    candidate, created = await house.lifecycle.register_agent(registration)
    agent = candidate.agent
    assert created
    assert (agent.name, agent.capabilities, agent.version) == ("Ann", ("x", "y"), "1.0")
    assert (agent.metadata, agent.concurrency, agent.registered_at) == ({"k": [1]}, 3, at(0))
    house.clock.advance(5)
    again, created = await house.lifecycle.register_agent(Registration("a1", version="2.0"))
    assert not created
    assert (again.agent.version, again.agent.name, again.agent.concurrency) == ("2.0", "Ann", 3)
    assert again.agent.registered_at == at(0)
    types = [event.type for event in await house.events()]
    assert types == [EventType.AGENT_REGISTERED, EventType.AGENT_UPDATED]


async def test_F39_registering_again_leaves_a_running_task_its_deadline(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    await house.trigger()
    await courier.answer()
    before = await house.task()
    await house.pass_time(5)
    await house.register(version="2.0")
    assert await house.task() == before
    assert (await house.lifecycle.get_agent("a1")).in_flight == 1


async def test_F90_an_endpoint_that_must_not_be_called_is_refused(build: Builder) -> None:
    house = await build(running=False, limits=Limits(endpoints=EndpointPolicy(allow_private=False)))
    for endpoint in ("http://169.254.169.254/latest", "http://127.0.0.1:9000/task"):
        with pytest.raises(ForbiddenEndpointError):
            await house.register(contact_endpoint=endpoint)
    with pytest.raises(AgentNotFoundError):
        await house.lifecycle.get_agent("a1")


async def test_F58_a_webhook_counts_once(build: Builder) -> None:
    house = await build(running=False)
    first = Registration("a1", "first")
    await house.lifecycle.register_agent(first, signature="aa")
    with pytest.raises(WebhookReplayedError):
        await house.lifecycle.register_agent(Registration("a1", "again"), signature="aa")
    assert (await house.lifecycle.get_agent("a1")).agent.name == "first"
    await house.lifecycle.deregister_agent("a1", signature="bb")
    with pytest.raises(WebhookReplayedError):
        await house.lifecycle.deregister_agent("a1", signature="bb")
    with pytest.raises(WebhookReplayedError):
        await house.lifecycle.register_agent(first, signature="aa")
    assert (await house.lifecycle.get_agent("a1")).agent.standing is Standing.DEREGISTERED


@pytest.mark.parametrize(
    ("announced", "standing"),
    [
        (-60, Standing.DEREGISTERED),
        (10, Standing.DEREGISTERED),
        (11, Standing.REGISTERED),
        (None, Standing.REGISTERED),
    ],
)
async def test_F59_an_old_announcement_does_not_bring_a_gone_agent_back(
    build: Builder, announced: float | None, standing: Standing
) -> None:
    house = await build(running=False)
    await house.register(registration_time=at(-60))
    house.clock.advance(10)
    await house.lifecycle.deregister_agent("a1")
    house.clock.advance(10)
    when = None if announced is None else at(announced)
    candidate, created = await house.lifecycle.register_agent(
        Registration("a1", "a1", registration_time=when), signature="new"
    )
    assert candidate.agent.standing is standing
    assert not created


async def test_what_nobody_knows_is_not_found(build: Builder) -> None:
    lifecycle = (await build(running=False)).lifecycle
    for call in (
        lifecycle.get_agent("a1"),
        lifecycle.update_agent("a1", {}, draining=True),
        lifecycle.deregister_agent("a1"),
        lifecycle.drain_agent("a1"),
        lifecycle.get_state("a1"),
    ):
        with pytest.raises(AgentNotFoundError):
            await call


async def test_a_deregistered_agent_is_neither_updated_nor_drained(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    await house.lifecycle.deregister_agent("a1")
    again = await house.lifecycle.deregister_agent("a1")
    assert again.agent.standing is Standing.DEREGISTERED
    with pytest.raises(ConflictError, match="register it again"):
        await house.lifecycle.update_agent("a1", {"name": "x"})
    with pytest.raises(ConflictError, match="register it again"):
        await house.lifecycle.drain_agent("a1")
    assert len(await house.events(EventType.AGENT_DEREGISTERED)) == 1


async def test_draining_ends_when_the_operator_says_so(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    drained = await house.lifecycle.drain_agent("a1")
    assert availability(drained.agent, 0) is Availability.DRAINING
    await house.trigger()
    assert courier.calls == []
    reason = await house.lifecycle.explain(await house.task(), house.dispatcher.gate())
    assert reason.reason.code is Reason.AGENT_DRAINING
    kept = await house.lifecycle.update_agent("a1", {"name": "renamed"})
    assert (kept.agent.name, kept.agent.standing) == ("renamed", Standing.DRAINING)
    back = await house.lifecycle.update_agent("a1", {}, draining=False)
    assert (back.agent.name, back.agent.standing) == ("renamed", Standing.REGISTERED)
    await settle(50)
    assert len(courier.calls) == 1
    away = await house.lifecycle.update_agent("a1", {}, draining=True)
    assert away.agent.standing is Standing.DRAINING


async def test_F62_deregistering_fails_what_waits_for_the_agent_at_once(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    running, waiting = await house.trigger(), await house.trigger()
    await courier.answer()
    await house.lifecycle.deregister_agent("a1")
    await settle(50)
    failed = await house.session(waiting.id)
    assert failed.error is not None
    assert (failed.status, failed.error["code"]) == (SessionStatus.FAILED, "agent_gone")
    assert (await house.task(running.id)).status is TaskStatus.DISPATCHED
    await house.pass_time(16)
    assert (await house.session(running.id)).status is SessionStatus.FAILED
    assert len(courier.calls) == 1


# --- states -----------------------------------------------------------------------------------


async def test_a_state_is_kept_as_said_and_as_understood(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    unknown = await house.lifecycle.get_state("a1")
    assert (unknown.state, unknown.word, unknown.timestamp) == ("UNKNOWN", StateWord.UNKNOWN, at(0))
    await house.lifecycle.set_state(StateReport("a1", "BUSY", {"k": 1}, at(-5)))
    state = await house.lifecycle.get_state("a1")
    assert (state.state, state.word, state.details) == ("BUSY", StateWord.ACTIVE, {"k": 1})
    assert (state.timestamp, state.received_at, state.clock_corrected) == (at(-5), at(0), False)
    agent = (await house.lifecycle.get_agent("a1")).agent
    assert agent.hold is not None
    assert agent.hold.reason is HoldReason.REPORTED_ACTIVE


@pytest.mark.parametrize(("late", "known"), [(59, True), (60, True), (61, False)])
async def test_F47_a_report_before_its_registration_counts_for_a_minute(
    build: Builder, late: float, known: bool
) -> None:
    house = await build(running=False)
    with pytest.raises(AgentNotFoundError, match="kept for a minute"):
        await house.lifecycle.set_state(StateReport("a1", "error", {"early": True}))
    house.clock.advance(late)
    await house.register()
    agent = (await house.lifecycle.get_agent("a1")).agent
    assert (agent.state is not None) is known
    if agent.state is not None:
        assert (agent.state.word, agent.state.details) == (StateWord.ERROR, {"early": True})
        assert agent.hold is not None


class Overtaken(Moody):
    """Something happens elsewhere after everything was read and before it is written."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def apply(self, change: Change) -> None:
        if self.meanwhile is not None:
            happen, self.meanwhile = self.meanwhile, None
            await happen()
        await self.ask("apply", change)


async def test_F47_a_report_counts_that_another_replica_kept_before_the_registration_was_written(
    build: Builder,
) -> None:
    storage = await build.storage(Overtaken)
    house, other = [await build(storage=storage, running=False) for _ in range(2)]
    for said in ("initializing", "error"):
        report = StateReport("a1", said)
        storage.meanwhile = partial(other.engine.agent_reported, report)
        await house.register()
        assert (await house.lifecycle.get_state("a1")).state == said
    assert len(await house.events(EventType.AGENT_REGISTERED)) == 1
    assert len(await house.events(EventType.AGENT_STATE)) == 2


async def test_F17_an_early_report_that_is_large_is_kept_without_its_details(
    build: Builder,
) -> None:
    house = await build(running=False)
    with pytest.raises(AgentNotFoundError):
        await house.lifecycle.set_state(StateReport("a1", "idle", {"big": "x"}, size=17_000))
    await house.register()
    state = await house.lifecycle.get_state("a1")
    assert (state.word, state.details) == (StateWord.IDLE, {})


async def test_F40_F43_a_report_said_twice_or_too_late_changes_nothing(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    session = await house.trigger()
    await courier.answer()
    task = await house.task()
    done = StateReport("a1", "finished", {"taskId": task.id, "result": 1})
    await house.lifecycle.set_state(done)
    ended = await house.session(session.id)
    assert ended.status is SessionStatus.COMPLETED
    await house.lifecycle.set_state(done)
    await house.lifecycle.set_state(StateReport("a1", "error", {"taskId": task.id}))
    assert await house.session(session.id) == ended
    assert len(await house.events(EventType.TASK_COMPLETED)) == 1
    assert len(await house.events(EventType.TASK_LATE)) == 2


async def test_F42_the_first_attempts_answer_after_the_second_began_is_late(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    session = await house.trigger()
    await courier.answer()
    await house.pass_time(10)
    await courier.answer()
    task = await house.task()
    assert task.attempt == 2
    old = StateReport("a1", "finished", {"taskId": task.id, "attempt": 1})
    await house.lifecycle.set_state(old)
    assert await house.task() == task
    assert len(await house.events(EventType.TASK_LATE)) == 1
    new = StateReport("a1", "finished", {"taskId": task.id, "attempt": 2, "result": 2})
    await house.lifecycle.set_state(new)
    assert (await house.session(session.id)).output == 2


async def test_F51_a_report_that_cannot_be_written_is_made_up_for_by_the_deadline(
    build: Builder,
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    session = await house.trigger(step("one", timeout=timedelta(seconds=30)))
    await courier.answer()
    task = await house.task()
    storage.away = True
    with pytest.raises(StorageError) as refused:
        await house.lifecycle.set_state(StateReport("a1", "finished", {"taskId": task.id}))
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    storage.away = False
    assert await house.task() == task
    assert await house.events(EventType.AGENT_STATE) == []
    await house.pass_time(11)
    assert len(courier.calls) == 2
    await courier.answer()
    await house.lifecycle.report_result(task.id, TaskResult(True, result="second"))
    assert (await house.session(session.id)).output == "second"


async def test_F44_a_hundred_equal_reports_at_once_are_applied_once(build: Builder) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    await house.trigger(step("one"), step("two"))
    await courier.answer()
    (task,) = [one for one in await house.tasks() if one.step_id == "one"]
    storage.slow = {"apply"}
    report = StateReport("a1", "finished", {"taskId": task.id})
    reports = [house.spawn(house.lifecycle.set_state(report)) for _ in range(100)]
    await settle(50)
    storage.gate.set()
    await house.eventually(lambda: all(one.done() for one in reports))
    assert len(await house.events(EventType.TASK_COMPLETED)) == 1
    assert len(await house.events(EventType.AGENT_STATE)) == 100
    assert len(await house.tasks()) == 2


@pytest.mark.fault("F107")
@pytest.mark.parametrize("precise", ["result", "heartbeat"])
async def test_200_precise_reports_of_one_agent_at_once_are_all_taken(
    build: Builder, precise: str
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage, concurrency=200)
    await house.register(concurrency=200)
    triggers = (Trigger("a1", {}, definition=definition()) for _ in range(200))
    await asyncio.gather(*map(house.lifecycle.start_session, triggers))
    await house.eventually(lambda: len(courier.calls) == 200)
    await courier.answer()
    tasks = await house.tasks()
    storage.slow = {"apply"}
    reports: list[Coroutine[Any, Any, object]] = [
        house.lifecycle.report_result(task.id, TaskResult(succeeded=True))
        if precise == "result"
        else house.lifecycle.heartbeat(task.id, None, 1)
        for task in tasks
    ]
    answers = asyncio.gather(*reports)
    await settle(50)
    storage.gate.set()
    await answers
    statuses = Counter(task.status for task in await house.tasks())
    expected = TaskStatus.COMPLETED if precise == "result" else TaskStatus.RUNNING
    assert statuses == {expected: 200}


async def test_a_conflict_is_decided_again_with_what_is_true_now(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage, running=False)
    await house.register()
    storage.conflicts = 3
    await house.lifecycle.set_state(StateReport("a1", "idle"))
    assert (await house.lifecycle.get_state("a1")).word is StateWord.IDLE
    assert len(await house.events(EventType.AGENT_STATE)) == 1
    storage.conflicts = 3
    candidate, _ = await house.lifecycle.register_agent(Registration("a1", version="3"))
    assert candidate.agent.version == "3"


def test_limits_are_generous_unless_told() -> None:
    values: dict[str, Any] = {
        "queue": 1_000_000,
        "queue_bytes": 1024**3,
        "endpoints": EndpointPolicy(allow_private=True),
    }
    assert Limits() == Limits(**values)
