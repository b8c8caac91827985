"""Orphaned tasks: what waits for a deregistered agent fails, soon and without a request's help."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import StorageError
from opscore.models import Change, SessionStatus, Standing, StateReport, TaskStatus
from opscore.workflow.decisions import deregister_agent
from tests.builders import step
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import Switchboard


async def test_F62_tasks_of_a_deregistered_agent_fail(build: Builder) -> None:
    house = await build(running=False)
    await house.register()
    await house.register("a2")
    queued = await house.trigger()
    delayed = await house.trigger(step("one", delay=timedelta(hours=1)))
    other = await house.trigger(agent_id="a2")
    await house.engine.change_agent("a1", deregister_agent)
    await house.orphans.fail_all()
    for session in (queued, delayed):
        failed = await house.session(session.id)
        assert failed.status is SessionStatus.FAILED
        assert failed.error is not None
        assert failed.error["code"] == "agent_gone"
    assert (await house.session(other.id)).status is SessionStatus.PENDING


class Refusing(Moody):
    """Takes no change of this session's tasks."""

    refused = ""

    async def apply(self, change: Change) -> None:
        if any(task.session_id == self.refused for task in change.tasks):
            raise StorageError("The row is locked.", retry_after=1)
        await self.ask("apply", change)


async def test_F62_a_orphaned_task_that_cannot_be_written_holds_up_no_other(
    build: Builder,
) -> None:
    storage = await build.storage(Refusing)
    house = await build(running=False, storage=storage)
    await house.register()
    first, second = await house.trigger(), await house.trigger()
    await house.engine.change_agent("a1", deregister_agent)
    storage.refused = first.id
    await house.orphans.fail_all()
    assert (await house.session(first.id)).status is SessionStatus.PENDING
    assert (await house.session(second.id)).status is SessionStatus.FAILED
    storage.refused = ""
    await house.orphans.fail_all()
    assert (await house.session(first.id)).status is SessionStatus.FAILED


async def test_F62_a_running_task_may_finish_after_its_agent_left(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier)
    await house.register()
    session = await house.trigger(step("one"), step("two"))
    await courier.answer()
    await house.lifecycle.deregister_agent("a1")
    await house.orphans.fail_all()
    task = await house.task()
    assert task.status is TaskStatus.DISPATCHED
    await house.lifecycle.set_state(StateReport("a1", "finished", {"taskId": task.id}))
    assert (await house.task(session.id)).status is TaskStatus.COMPLETED
    assert (await house.task(session.id, "two")).status is TaskStatus.QUEUED
    await house.orphans.fail_all()
    assert (await house.session(session.id)).status is SessionStatus.FAILED
    assert len(courier.calls) == 1


@pytest.mark.fault("F119")
async def test_deregistration_is_answered_before_waiting_tasks_have_failed(build: Builder) -> None:
    storage = await build.storage(Moody)
    house = await build(storage=storage)
    await house.register()
    await house.lifecycle.drain_agent("a1")
    sessions = [await house.trigger() for _ in range(50)]
    storage.slow = {"stranded"}
    async with asyncio.timeout(10):
        await house.lifecycle.deregister_agent("a1")
    assert {(await house.session(one.id)).status for one in sessions} == {SessionStatus.PENDING}
    storage.gate.set()
    await settle(50)
    assert {(await house.session(one.id)).status for one in sessions} == {SessionStatus.FAILED}


@pytest.mark.fault("F119")
async def test_orphaned_tasks_of_a_process_that_died_fail_at_the_next_start(
    build: Builder,
) -> None:
    storage = await build.storage(Moody)
    died = await build(storage=storage, running=False)
    await died.register()
    session = await died.trigger()
    await died.lifecycle.deregister_agent("a1")
    assert (await died.session(session.id)).status is SessionStatus.PENDING
    await build(storage=storage)
    assert (await died.session(session.id)).status is SessionStatus.FAILED


class Unreadable(Moody):
    raising: Exception | None = None

    async def stranded(self, limit: int) -> Any:
        if self.raising is not None:
            raise self.raising
        return await self.ask("stranded", limit)


@pytest.mark.parametrize(
    "raising", [ValueError("cut in t"), StorageError("The row is locked.", retry_after=1)]
)
async def test_orphans_that_cannot_be_read_are_failed_later(
    build: Builder, raising: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    storage = await build.storage(Unreadable)
    storage.raising = raising
    house = await build(storage=storage)
    await house.register()
    await house.lifecycle.drain_agent("a1")
    session = await house.trigger()
    await house.lifecycle.deregister_agent("a1")
    await house.pass_time(6)
    assert "orphaned" in caplog.text
    storage.raising = None
    await house.pass_time(6)
    assert (await house.session(session.id)).status is SessionStatus.FAILED


async def test_agents_that_replace_each_other_in_a_circle_hold_up_no_repair(
    build: Builder,
) -> None:
    house = await build(running=False)
    await house.register()
    await house.register("a2")
    session = await house.trigger()
    for agent_id, successor in (("a1", "a2"), ("a2", "a1")):
        agent = (await house.lifecycle.get_agent(agent_id)).agent
        gone = replace(agent, standing=Standing.DEREGISTERED, replaced_by=successor)
        await house.engine.apply(Change(agents=(replace(gone, rev=agent.rev + 1),)))
    await house.engine.task_stranded((await house.task()).id)
    assert (await house.session(session.id)).status is SessionStatus.FAILED
