"""The dispatcher: how many messages go out, which way, and what becomes of them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from opscore.exceptions import StorageError
from opscore.models import (
    Accepted,
    Agent,
    Answered,
    Change,
    Delivery,
    DispatchMode,
    Failure,
    FailureCode,
    MessageType,
    Outcome,
    Policy,
    RetryPolicy,
    SessionStatus,
    StateReport,
    Task,
    TaskResult,
    TaskStatus,
)
from opscore.workflow.queue import Reason
from tests.builders import at, step
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import Call, Switchboard

THROUGH_AGENTKIT = Policy(mode=DispatchMode.AGENTKIT, start_timeout=None)
DIRECT = Policy(mode=DispatchMode.DIRECT, start_timeout=None)


def failure(code: FailureCode = FailureCode.UNREACHABLE) -> Failure:
    return Failure(code, f"It failed: {code.value}.")


# --- many at once -----------------------------------------------------------------------------


async def test_as_many_messages_as_allowed_are_under_way_at_once(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, concurrency=3)
    await house.register(concurrency=10)
    for _ in range(7):
        session = await house.trigger()
    assert len(courier.open) == 3
    assert house.dispatcher.under_way == 3
    gate = house.dispatcher.gate()
    assert gate is not None
    assert gate.reason is Reason.DISPATCH_LIMIT
    assert "3 messages" in gate.message
    waiting = await house.task(session.id)
    reasons = await house.lifecycle.pending_reasons((waiting,), gate)
    assert reasons[waiting.id].code is Reason.DISPATCH_LIMIT
    await courier.answer(count=1)
    assert len(courier.calls) == 4
    assert len(courier.open) == 3
    await courier.answer()
    await courier.answer()
    assert len(courier.calls) == 7
    assert house.dispatcher.under_way == 0
    assert house.dispatcher.gate() is None


async def test_answers_of_one_agent_at_once_are_written_once_each(build: Builder) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register(concurrency=3)
    for _ in range(3):
        await house.trigger()
    before = storage.asked["apply"]
    await courier.answer(Answered("done"))
    assert storage.asked["apply"] == before + 3
    assert (await house.storage.counts()).by_status == {"completed": 3}


async def test_an_accepted_task_waits_for_its_agent_with_its_deadlines(build: Builder) -> None:
    house = await build()
    await house.register()
    session = await house.trigger()
    task = await house.task()
    assert (task.status, task.attempt, task.via) == (TaskStatus.DISPATCHED, 1, Delivery.AGENTKIT)
    assert (task.accepted_at, task.lease_until) == (at(0), None)
    assert (task.start_deadline, task.run_deadline) == (at(10), at(300))
    assert (await house.session(session.id)).status is SessionStatus.RUNNING


async def test_an_answer_completes_the_task_and_the_next_one_follows(build: Builder) -> None:
    courier = Switchboard(always=lambda call: Answered(call.claim.task.step_id))
    house = await build(courier)
    await house.register()
    session = await house.trigger(step("one"), step("two"))
    done = await house.session(session.id)
    assert done.status is SessionStatus.COMPLETED
    assert (done.results, done.output) == ({"one": "one", "two": "two"}, "two")
    assert len(courier.calls) == 2


async def test_each_message_has_the_time_that_its_way_and_its_task_allow(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    await house.register(concurrency=9)
    await house.trigger(step("one"))
    await house.trigger(step("one", timeout=timedelta(seconds=7)))
    tool = step("one", message_type=MessageType.TOOL_INVOCATION, tool_name="calc")
    await house.trigger(tool)
    direct = await build(courier, DIRECT)
    await direct.register()
    await direct.trigger()
    assert [call.seconds for call in courier.calls] == [30, 7, 300, 300]
    assert [call.claim.task.run_deadline for call in courier.calls] == [
        at(300),
        at(7),
        at(300),
        at(300),
    ]


async def test_each_dispatch_leaves_a_trace(build: Builder) -> None:
    house = await build(Switchboard(always=Answered(1)))
    await house.register()
    await house.trigger()
    task = await house.task()
    (span,) = house.tracer.get_trace(task.id)
    assert (span.name, span.status) == ("dispatch", "ok")
    assert (span.attributes["attempt"], span.attributes["via"]) == (1, "agentkit")


async def test_process_next_task_sees_one_dispatch_through(build: Builder) -> None:
    courier = Switchboard(always=Answered(1))
    house = await build(courier, running=False)
    await house.register(concurrency=5)
    assert not await house.dispatcher.process_next_task()
    first = await house.trigger()
    second = await house.trigger()
    assert await house.dispatcher.process_next_task()
    assert (await house.session(first.id)).status is SessionStatus.COMPLETED
    assert (await house.session(second.id)).status is SessionStatus.PENDING
    assert await house.dispatcher.process_next_task()
    assert not await house.dispatcher.process_next_task()


@pytest.mark.storages("memory")
async def test_an_idle_dispatcher_asks_nothing_of_a_storage_of_its_own(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage)
    await house.register()
    await settle(50)
    before = storage.asked["claim"]
    await house.pass_time(600, step=10)
    assert storage.asked["claim"] == before


async def test_dispatch_task_sends_what_was_claimed(build: Builder) -> None:
    house = await build(Switchboard(always=Answered(1)), running=False)
    await house.register()
    session = await house.trigger()
    now = house.clock.now()
    (claim,) = await house.storage.claim("d1", now, now + timedelta(seconds=15), 1)
    await house.dispatcher.dispatch_task(claim)
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED


@pytest.mark.storages("sqlite", "postgres")
async def test_on_a_storage_that_others_share_it_looks_for_their_work(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage)
    before = storage.asked["claim"]
    await house.pass_time(60, step=1)
    assert 8 <= storage.asked["claim"] - before <= 12


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "retries"),
    [
        (FailureCode.OUTCOME_UNKNOWN, 1),
        (FailureCode.UPSTREAM_ERROR, 1),
        (FailureCode.UNREACHABLE, 0),
        (FailureCode.TLS, 0),
    ],
)
async def test_F23_F24_F26_a_failed_dispatch_is_tried_again_as_the_same_task(
    build: Builder, code: FailureCode, retries: int
) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    await house.register()
    await house.trigger()
    await courier.answer(failure(code))
    task = await house.task()
    assert (task.status, task.attempt, task.retries) == (TaskStatus.DELAYED, 1, retries)
    await house.pass_time(2)
    assert [(call.task_id, call.claim.task.attempt) for call in courier.calls] == [
        (task.id, 1),
        (task.id, 2),
    ]


async def test_F64_an_outcome_is_written_once_the_storage_is_back(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    await house.trigger()
    storage.away = True
    await courier.answer()
    assert "An outcome could not be written" in caplog.text
    assert house.dispatcher.under_way == 1
    storage.away = False
    await house.pass_time(1)
    assert house.dispatcher.under_way == 0
    assert [call.claim.task.attempt for call in courier.calls] == [1]
    assert (await house.task()).accepted_at is not None


@pytest.mark.parametrize("minutes", [1, 4])
async def test_F64_while_the_storage_is_away_no_answer_is_lost_and_no_task_sent_again(
    build: Builder, minutes: int
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register(concurrency=2)
    answered, under_way = await house.trigger(), await house.trigger()
    storage.away = True
    await house.pass_time(5)
    await courier.answer(Answered("dear"), count=1)
    await house.pass_time(minutes * 60, step=5)
    storage.away = False
    await house.pass_time(10)
    assert (await house.session(answered.id)).output == "dear"
    await courier.answer(Answered("dearer"))
    assert (await house.session(under_way.id)).output == "dearer"
    assert [call.claim.task.attempt for call in courier.calls] == [1, 1]


async def test_F4_an_outcome_that_is_lost_is_made_up_for_by_the_lease(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    await house.trigger()
    storage.away = True
    await courier.answer()
    await house.pass_time(620, step=20)
    assert "An outcome was given up" in caplog.text
    assert house.dispatcher.under_way == 0
    storage.away = False
    await house.pass_time(7)
    assert [call.claim.task.attempt for call in courier.calls] == [1, 2]
    task = await house.task()
    assert (task.lost_leases, task.retries) == (1, 0)


async def test_an_unforeseen_error_harms_one_dispatch_alone(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(call: Call) -> Outcome:
        if call.claim.task.attempt == 1:
            raise ZeroDivisionError
        return Answered(1)

    house = await build(Switchboard(always=answer))
    await house.register()
    session = await house.trigger()
    assert "A dispatch broke off." in caplog.text
    assert house.dispatcher.under_way == 0
    await house.pass_time(21)
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED


async def test_claiming_goes_on_when_the_storage_is_back(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage, running=False)
    await house.register()
    await house.trigger()
    storage.away = True
    await house.start()
    assert "Claiming failed" in caplog.text
    assert courier.calls == []
    storage.away = False
    await house.pass_time(1)
    assert len(courier.calls) == 1


# --- leases -----------------------------------------------------------------------------------


async def test_F16_a_long_dispatch_keeps_its_lease(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, DIRECT)
    await house.register()
    await house.trigger()
    await house.pass_time(120)
    task = await house.task()
    assert (task.status, task.attempt) == (TaskStatus.DISPATCHED, 1)
    assert task.lease_until is not None
    assert task.lease_until > house.clock.now()
    await courier.answer(Answered("late, but in time"))
    assert (await house.task()).result == "late, but in time"


async def test_F16_leases_are_prolonged_again_when_the_storage_is_back(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, DIRECT, storage=storage)
    await house.register()
    await house.trigger()
    storage.away = True
    await house.pass_time(6)
    assert "Lease renewal failed" in caplog.text
    storage.away = False
    await house.pass_time(2)
    lease_until = (await house.task()).lease_until
    assert lease_until is not None
    assert lease_until - house.clock.now() > timedelta(seconds=12)
    await house.pass_time(60)
    assert len(courier.calls) == 1
    assert (await house.task()).attempt == 1


class Unwilling(Moody):
    """Prolongs no lease together with that of one task."""

    refused = ""

    async def renew(self, owner: str, task_ids: Sequence[str], until: datetime) -> Any:
        if self.refused in task_ids:
            raise StorageError("That took too long.", retry_after=1)
        return await self.ask("renew", owner, task_ids, until)


async def test_F16_many_leases_are_prolonged_a_part_at_a_time(
    build: Builder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("opscore.workflow.dispatcher._LEASES", 2)
    storage, courier = await build.storage(Unwilling), Switchboard()
    house = await build(courier, DIRECT, storage=storage)
    await house.register(concurrency=5)
    for _ in range(5):
        await house.trigger()
    first, *_ = [call.claim.task.id for call in courier.calls]
    storage.refused = first
    before = storage.asked["renew"]
    await house.pass_time(5)
    assert storage.asked["renew"] - before == 2
    assert caplog.text.count("Lease renewal failed") == 1
    await house.pass_time(9)
    leases = {task.id: task.lease_until or at(0) for task in await house.tasks()}
    prolonged = [task_id for task_id, until in leases.items() if until > at(15)]
    assert len(prolonged) == 3
    assert first not in prolonged


async def test_F3_a_dead_dispatchers_task_is_dispatched_again(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, running=False)
    await house.register()
    await house.trigger()
    now = house.clock.now()
    await house.storage.claim("dead", now, now + timedelta(seconds=15), 1)
    await house.start()
    await house.pass_time(14)
    assert courier.calls == []
    await house.pass_time(6)
    (call,) = courier.calls
    assert (call.claim.task.attempt, call.claim.task.owner) == (2, "d1")
    assert (call.claim.task.retries, call.claim.task.lost_leases) == (0, 1)


async def test_F14_a_task_that_kills_its_dispatchers_fails_and_others_go_on(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await build(courier, running=False)
    await house.register("a1")
    await house.register("a2")
    deadly = await house.trigger(agent_id="a1")
    for _ in range(5):
        now = house.clock.now()
        claims = await house.storage.claim("dies", now, now + timedelta(seconds=15), 1)
        assert len(claims) == 1
        house.clock.advance(15)
        await house.timekeeper.process_due()
        # It is given a pause from the second time on.
        house.clock.advance(4)
        await house.timekeeper.process_due()
    session = await house.session(deadly.id)
    assert session.status is SessionStatus.FAILED
    assert session.error is not None
    assert session.error["code"] == "lease_lost"
    await house.start()
    await house.trigger(agent_id="a2")
    assert len(courier.calls) == 1


async def test_F10_a_message_of_an_attempt_that_is_over_changes_nothing(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, running=False)
    await house.register()
    await house.trigger()
    house.spawn(house.dispatcher.run())
    await settle(50)
    house.clock.advance(16)
    await house.timekeeper.process_due()
    await settle(50)
    first, second = courier.calls
    assert first.answer.cancelled()
    assert (first.task_id, second.claim.task.attempt) == (second.task_id, 2)
    assert house.dispatcher.under_way == 1
    await courier.answer(Answered("second"))
    task = await house.task()
    assert (task.status, task.result, task.attempt) == (TaskStatus.COMPLETED, "second", 2)


async def test_F10_a_message_whose_task_someone_else_has_is_cut_off(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, DIRECT)
    await house.register()
    await house.trigger()
    task = await house.task()
    theirs = replace(task, owner="d2", attempt=2, rev=task.rev + 1)
    await house.storage.apply(Change(tasks=(theirs,)))
    await house.pass_time(5)
    assert courier.calls[0].answer.cancelled()
    after = await house.task()
    assert (after.owner, after.attempt, after.status) == ("d2", 2, TaskStatus.DISPATCHED)
    assert house.dispatcher.under_way == 0


# --- cancelling -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [THROUGH_AGENTKIT, DIRECT], ids=["agentkit", "direct"])
@pytest.mark.parametrize("taken", [True, False], ids=["accepted", "under way"])
async def test_cancel_frees_the_slot_and_tells_the_agent(
    build: Builder, policy: Policy, taken: bool
) -> None:
    courier = Switchboard()
    house = await build(courier, policy)
    await house.register()
    session = await house.trigger()
    other = await house.trigger()
    if taken:
        await courier.answer()
    await house.lifecycle.cancel_session(session.id, "not needed")
    await settle(50)
    task = await house.task(session.id)
    assert task.status is TaskStatus.CANCELLED
    via = Delivery.DIRECT if policy is DIRECT else Delivery.AGENTKIT
    assert courier.cancelled == [(task.id, "a1", via)]
    assert courier.calls[0].answer.cancelled() is not taken
    assert (await house.session(session.id)).status is SessionStatus.CANCELLED
    # The agent has not shown that it names its tasks: it may still report about this one.
    assert [call.claim.session.id for call in courier.calls] == [session.id]
    await house.pass_time(31, step=5)
    assert courier.calls[1].claim.session.id == other.id


@pytest.mark.fault("F100")
async def test_cancelled_agent_that_names_its_tasks_gets_the_next_one_at_once(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await build(courier, DIRECT)
    await house.register()
    session, other = await house.trigger(), await house.trigger()
    named = {"opscore_task_id": (await house.task(session.id)).id}
    await house.lifecycle.set_state(StateReport("a1", "active", named))
    await house.lifecycle.cancel_session(session.id, "not needed")
    await settle(50)
    assert [call.claim.session.id for call in courier.calls] == [session.id, other.id]


async def test_a_waiting_task_is_cancelled_without_a_word_to_anyone(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    await house.trigger()
    waiting = await house.trigger()
    await house.lifecycle.cancel_session(waiting.id, "not needed")
    await courier.answer(Answered(1))
    assert courier.cancelled == []
    assert len(courier.calls) == 1


@pytest.mark.parametrize("mode", DispatchMode)
async def test_agent_whose_answer_another_replica_awaits_is_told_to_stop(
    build: Builder, mode: DispatchMode
) -> None:
    courier = Switchboard()
    house = await build(courier, running=False, policy=Policy(mode=mode))
    await house.register()
    session = await house.trigger()
    now = house.clock.now()
    (claim,) = await house.storage.claim("another replica", now, now + timedelta(seconds=15), 1)
    await house.lifecycle.cancel_session(session.id, "not needed")
    await settle(50)
    via = Delivery.AGENTKIT if mode is DispatchMode.AGENTKIT else Delivery.DIRECT
    assert courier.cancelled == [(claim.task.id, "a1", via)]


async def test_an_agent_that_cannot_be_looked_up_is_not_told(
    build: Builder, caplog: pytest.LogCaptureFixture
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    session = await house.trigger()
    await courier.answer()

    def go_away(_: Change) -> None:
        storage.away = True

    house.engine.subscribe(go_away)
    await house.lifecycle.cancel_session(session.id, "not needed")
    await settle(50)
    assert courier.cancelled == []
    assert "An agent could not be told to stop" in caplog.text


# --- stopping ---------------------------------------------------------------------------------


async def test_F9_running_dispatches_end_and_nothing_new_begins(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register(concurrency=2)
    sessions = [await house.trigger() for _ in range(3)]
    stopping = house.spawn(house.dispatcher.stop(20))
    await settle(50)
    assert not stopping.done()
    gate = house.dispatcher.gate()
    assert gate is not None
    assert gate.reason is Reason.STOPPING
    await courier.answer(Answered(1))
    assert stopping.done()
    assert len(courier.calls) == 2
    statuses = [(await house.session(session.id)).status for session in sessions]
    assert statuses == [SessionStatus.COMPLETED, SessionStatus.COMPLETED, SessionStatus.PENDING]
    assert (await house.task(sessions[2].id)).status is TaskStatus.QUEUED


async def test_F9_what_takes_too_long_goes_back(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    await house.trigger()
    await house.dispatcher.stop(0)
    task = await house.task()
    assert (task.status, task.attempt, task.retries) == (TaskStatus.DELAYED, 1, 0)
    assert (task.owner, task.lease_until) == (None, None)
    assert house.dispatcher.under_way == 0
    (span,) = house.tracer.get_trace(task.id)
    assert span.status == "outcome_unknown"
    candidate = await house.lifecycle.get_agent("a1")
    assert candidate.in_flight == 0


async def test_F9_what_is_claimed_in_the_moment_of_stopping_goes_back_too(
    build: Builder,
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, storage=storage)
    await house.register()
    await settle(50)
    storage.slow = {"claim"}
    await house.trigger()
    stopping = house.spawn(house.dispatcher.stop(0))
    await settle(50)
    assert not stopping.done()
    storage.gate.set()
    await settle(50)
    assert stopping.done()
    task = await house.task()
    assert (task.status, task.attempt, task.owner) == (TaskStatus.DELAYED, 1, None)


async def test_stopping_waits_a_moment_for_agents_to_be_told(build: Builder) -> None:
    told = asyncio.Event()

    class Slow(Switchboard):
        async def cancel(self, task: Task, agent: Agent, via: Delivery, /) -> None:
            await told.wait()
            await super().cancel(task, agent, via)

    courier = Slow(always=Accepted())
    house = await build(courier)
    await house.register()
    session = await house.trigger()
    await house.lifecycle.cancel_session(session.id, "not needed")
    await settle(50)
    stopping = house.spawn(house.dispatcher.stop(0))
    await settle(50)
    assert not stopping.done()
    told.set()
    await settle(50)
    assert stopping.done()
    assert len(courier.cancelled) == 1


async def test_stopping_with_nothing_under_way_is_immediate(build: Builder) -> None:
    house = await build()
    await house.dispatcher.stop(999)
    gate = house.dispatcher.gate()
    assert gate is not None
    assert gate.reason is Reason.STOPPING
    await house.register()
    await house.trigger()
    assert (await house.task()).status is TaskStatus.QUEUED


# --- retries are someone else's turn ----------------------------------------------------------


async def test_a_retry_goes_to_the_agent_used_longest_ago(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, DIRECT)
    await house.register("a1")
    await house.register("a2")
    once = RetryPolicy(max_retries=1)
    await house.trigger(step("one", agent_capability="research", retry=once))
    await courier.answer(failure(FailureCode.UPSTREAM_ERROR))
    await house.pass_time(2)
    await courier.answer()
    assert [call.claim.agent.id for call in courier.calls] == ["a1", "a2"]
    task = await house.task()
    await house.lifecycle.report_result(task.id, TaskResult(False, error="no", attempt=2))
    session = await house.session(task.session_id)
    assert session.status is SessionStatus.FAILED
