"""The events of one task stand in the order in which they happened."""

import pytest

from opscore.models import (
    Answered,
    EventFilter,
    Failure,
    FailureCode,
    FallbackTask,
    StateReport,
    TaskResult,
)
from tests.builders import at, step
from tests.fakes import settle
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

REJECTED = Failure(FailureCode.REJECTED, "no", terminal=True)


async def story(house: House, task_id: str) -> list[str]:
    """The task's events, whose times must rise as their numbers do."""
    events = (await house.storage.events(EventFilter(task_id=task_id), 0, 1000)).items
    assert [event.at for event in events] == sorted(event.at for event in events)
    return [event.type.value for event in events if event.type.value.startswith("task.")]


async def test_first_heartbeat_comes_after_the_start_of_the_work(build: Builder) -> None:
    house = await build(board := Switchboard())
    await house.register()
    session = await house.trigger()
    await board.answer()
    task = await house.task(session.id)
    await house.lifecycle.heartbeat(task.id, {"percent": 1}, 1)
    await house.lifecycle.report_result(task.id, TaskResult(True, 1))
    assert await story(house, task.id) == [
        "task.queued",
        "task.dispatched",
        "task.accepted",
        "task.running",
        "task.heartbeat",
        "task.completed",
    ]


async def test_fallback_comes_after_the_failure_that_it_answers(build: Builder) -> None:
    house = await build(board := Switchboard())
    await house.register()
    session = await house.trigger(step("one", fallback=FallbackTask("two")), step("two"))
    await board.answer(REJECTED)
    task = await house.task(session.id)
    assert (await story(house, task.id))[-3:] == [
        "task.attempt_failed",
        "task.failed",
        "task.fallback",
    ]


async def test_retries_and_an_operator_stand_between_the_attempts(build: Builder) -> None:
    house = await build(board := Switchboard())
    await house.register()
    session = await house.trigger()
    await board.answer()
    task = await house.task(session.id)
    report = StateReport("a1", "active", {"taskId": task.id})
    await house.lifecycle.set_state(report)
    await house.lifecycle.retry_task(task.id)
    await house.pass_time(60)
    await board.answer(Answered("x"))
    await settle(50)
    assert await story(house, task.id) == [
        "task.queued",
        "task.dispatched",
        "task.accepted",
        "task.running",
        "task.retry",
        "task.queued",
        "task.dispatched",
        "task.completed",
    ]


@pytest.mark.parametrize("late", [0, 5])
async def test_claim_that_began_before_the_task_was_queued_is_not_dated_before_it(
    build: Builder, late: float
) -> None:
    house = await build(running=False)
    await house.register()
    session = await house.trigger()
    [claim] = await house.storage.claim("d1", at(-late), at(15), 10)
    assert claim.task.dispatched_at == at(0)
    assert await story(house, (await house.task(session.id)).id) == [
        "task.queued",
        "task.dispatched",
    ]
