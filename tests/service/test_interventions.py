"""Operators act on tasks and sessions of a running service, also at the same moment."""

import asyncio

import pytest

from opscore.exceptions import AgentRequiredError, ConflictError, IdempotencyMismatchError
from opscore.models import (
    Answered,
    EventType,
    Failure,
    FailureCode,
    SessionStatus,
    TaskResult,
    TaskStatus,
    WorkflowSession,
)
from opscore.session_starter import Trigger
from tests.builders import definition, step
from tests.fakes import settle
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

REJECTED = Failure(FailureCode.REJECTED, "no", terminal=True)


async def failed_session(house: House, board: Switchboard) -> WorkflowSession:
    """A session whose second step failed."""
    await house.register()
    session = await house.trigger(step("one"), step("two"))
    await board.answer(Answered("first"))
    await board.answer(REJECTED)
    return await house.session(session.id)


async def test_failed_session_retried_completes_with_its_earlier_results(build: Builder) -> None:
    house = await build(board := Switchboard())
    session = await failed_session(house, board)
    assert session.status is SessionStatus.FAILED
    await house.lifecycle.retry_session(session.id)
    await settle(50)
    await board.answer(Answered("second"))
    after = await house.session(session.id)
    assert (after.status, after.error) == (SessionStatus.COMPLETED, None)
    assert after.results == {"one": "first", "two": "second"}
    assert [call.claim.task.step_id for call in board.calls] == ["one", "two", "two"]
    assert (await house.task(session.id, "two")).attempt == 2


async def test_sessions_retried_many_times_at_once_reopen_once(build: Builder) -> None:
    house = await build(board := Switchboard())
    session = await failed_session(house, board)
    task = await house.task(session.id, "two")
    tries = [house.lifecycle.retry_session(session.id) for _ in range(10)]
    more = [house.lifecycle.retry_task(task.id, task.attempt) for _ in range(10)]
    ends = await asyncio.gather(*tries, *more, return_exceptions=True)
    refused = [end for end in ends if isinstance(end, BaseException)]
    assert len(refused) == len(ends) - 1
    assert all(isinstance(error, ConflictError) for error in refused)
    assert len(await house.events(EventType.SESSION_RESUMED)) == 1
    assert len(board.open) <= 1


async def test_task_taken_back_is_tried_again_and_its_old_attempt_counts_no_more(
    build: Builder,
) -> None:
    house = await build(board := Switchboard())
    await house.register()
    await house.register("a2")
    session = await house.trigger(step(agent_capability="research"))
    await board.answer()
    before = await house.task(session.id)
    await house.lifecycle.retry_task(before.id)
    await house.pass_time(1)
    assert [one[0] for one in board.cancelled] == [before.id]
    late = TaskResult(True, "old", attempt=before.attempt)
    assert not await house.lifecycle.report_result(before.id, late)
    await house.pass_time(60)
    again = await house.task(session.id)
    assert (again.attempt, again.status.ended) == (before.attempt + 1, False)
    assert await house.lifecycle.report_result(before.id, TaskResult(True, "new", attempt=2))
    assert (await house.session(session.id)).output == "new"


async def test_retry_after_the_session_was_cancelled_is_refused(build: Builder) -> None:
    house = await build(Switchboard())
    await house.register()
    session = await house.trigger()
    await house.lifecycle.cancel_session(session.id, "over")
    task = await house.task(session.id)
    with pytest.raises(ConflictError, match="was cancelled"):
        await house.lifecycle.retry_task(task.id)
    with pytest.raises(ConflictError, match="was cancelled"):
        await house.lifecycle.retry_session(session.id)


async def test_cancelled_task_ends_its_session_and_can_be_retried(build: Builder) -> None:
    house = await build(board := Switchboard())
    await house.register()
    session = await house.trigger()
    await board.answer()
    task = await house.task(session.id)
    await house.lifecycle.cancel_task(task.id, "wrong input")
    assert (await house.session(session.id)).status is SessionStatus.FAILED
    await house.lifecycle.cancel_task(task.id, "once more")
    assert (await house.task(session.id)).status is TaskStatus.FAILED
    await house.lifecycle.retry_task(task.id)
    assert (await house.session(session.id)).status is not SessionStatus.FAILED


async def test_session_without_agent_runs_where_each_step_names_one(build: Builder) -> None:
    house = await build(board := Switchboard())
    await house.register()
    flow = definition(step("one", agent_capability="research"), step("two", agent_id="a1"))
    started = await house.lifecycle.start_session(Trigger(None, {}, definition=flow), "key")
    await settle(50)
    again = await house.lifecycle.start_session(Trigger(None, {}, definition=flow), "key")
    assert started == again
    with pytest.raises(IdempotencyMismatchError):
        await house.lifecycle.start_session(Trigger("a1", {}, definition=flow), "key")
    await board.answer(Answered(1))
    await board.answer(Answered(2))
    session = await house.session(started.id)
    assert (session.status, session.agent_id) == (SessionStatus.COMPLETED, None)


async def test_session_without_agent_names_each_step_that_needs_one(build: Builder) -> None:
    house = await build(running=False)
    flow = definition(step("one", agent_id="a1"), step("two"), step("three"))
    with pytest.raises(AgentRequiredError) as caught:
        await house.lifecycle.start_session(Trigger(None, {}, definition=flow))
    assert [fault.pointer for fault in caught.value.faults] == ["/tasks/1", "/tasks/2"]
    assert (await house.storage.counts()).sessions == 0
