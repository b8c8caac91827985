"""An agent that AgentKit announces again under a new id goes on with its work."""

from datetime import timedelta
from typing import Any

import pytest

from opscore.exceptions import ConflictError
from opscore.models import EventType, Registration, Standing, StateReport, Task, TaskStatus
from opscore.workflow.decisions.succession import MAX_PREDECESSORS
from tests.builders import step
from tests.fakes import settle
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

pytestmark = pytest.mark.fault("F126")

CARD: dict[str, Any] = {"name": "ada", "contact_endpoint": "http://127.0.0.1:9000/ada"}


async def announce(house: House, agent_id: str, signature: str | None = None) -> None:
    """What AgentKit's webhook does."""
    house.clock.advance(1)
    registration = Registration(
        agent_id, **CARD, registration_time=house.clock.wall(), by_agentkit=True
    )
    await house.lifecycle.register_agent(registration, signature)
    await settle(50)


async def report(house: House, agent_id: str, state: str, task: Task) -> None:
    details = {"opscore_task_id": task.id, "result": state}
    await house.lifecycle.set_state(StateReport(agent_id, state, details))
    await settle(50)


async def test_waiting_tasks_and_later_steps_go_to_the_new_id(build: Builder) -> None:
    board = Switchboard()
    house = await build(board)
    await announce(house, "old")
    busy = await house.trigger(agent_id="old")
    waiting = await house.trigger(step("one"), step("two"), agent_id="old")
    await board.answer()
    await report(house, "old", "active", await house.task(busy.id))
    await announce(house, "new")
    assert [call.claim.agent.id for call in board.calls] == ["old", "new"]
    await board.answer()
    await report(house, "new", "finished", await house.task(waiting.id))
    assert [call.claim.agent.id for call in board.calls] == ["old", "new", "new"]
    assert (await house.task(waiting.id, "two")).agent_id == "new"
    # The old id's task in flight goes on until its deadline.
    assert (await house.task(busy.id)).status is TaskStatus.RUNNING


@pytest.mark.fault("F100")
async def test_new_id_gets_tasks_once_the_work_of_the_old_one_cannot_be_mistaken(
    build: Builder,
) -> None:
    """An agent that names no task may have registered again without a restart."""
    board = Switchboard()
    house = await build(board)
    await announce(house, "old")
    await house.trigger(agent_id="old")
    waiting = await house.trigger(agent_id="old")
    await board.answer()
    await announce(house, "new")
    assert (await house.lifecycle.get_agent("new")).agent.due_at is not None
    await house.lifecycle.set_state(StateReport("new", "finished", {"result": "foreign"}))
    await settle(50)
    assert [call.claim.agent.id for call in board.calls] == ["old", "new"]
    assert (await house.task(waiting.id)).status is TaskStatus.DISPATCHED


async def test_the_new_id_ends_the_task_that_the_old_one_had(build: Builder) -> None:
    board = Switchboard()
    house = await build(board)
    await announce(house, "old")
    session = await house.trigger(agent_id="old")
    await board.answer()
    await announce(house, "new")
    await report(house, "new", "finished", await house.task(session.id))
    assert (await house.session(session.id)).output == "finished"
    assert (await house.lifecycle.get_agent("old")).in_flight == 0


async def test_a_task_that_is_tried_again_goes_to_the_new_id(build: Builder) -> None:
    board = Switchboard()
    house = await build(board)
    await announce(house, "old")
    await house.trigger(step("one", timeout=timedelta(seconds=20)), agent_id="old")
    await board.answer()
    await announce(house, "new")
    await house.pass_time(60)
    assert [call.claim.agent.id for call in board.calls] == ["old", "new"]


async def test_many_waiting_tasks_cost_the_webhook_nothing(build: Builder) -> None:
    house = await build(Switchboard(), running=False)
    await announce(house, "old")
    for _ in range(300):
        await house.trigger(agent_id="old")
    before = house.engine.storage
    changes: list[int] = []
    house.engine.subscribe(lambda change: changes.append(len(change.tasks)))
    await announce(house, "new")
    assert changes == [0]
    claims = await before.claim("d1", house.clock.now(), house.clock.now(), 10)
    assert [one.agent.id for one in claims] == ["new"]


async def test_task_outlives_more_restarts_than_ids_are_remembered(build: Builder) -> None:
    house = await build(Switchboard(), running=False)
    await announce(house, "id-0")
    await house.trigger(agent_id="id-0")
    for number in range(MAX_PREDECESSORS + 2):
        await announce(house, f"id-{number + 1}")
    await house.orphans.fail_all()
    claims = await house.storage.claim("d1", house.clock.now(), house.clock.now(), 10)
    assert [one.agent.id for one in claims] == [f"id-{MAX_PREDECESSORS + 2}"]


async def test_tasks_end_when_the_new_id_is_deregistered(build: Builder) -> None:
    house = await build(Switchboard(), running=False)
    await announce(house, "old")
    session = await house.trigger(agent_id="old")
    await announce(house, "new")
    await house.lifecycle.deregister_agent("new")
    await house.orphans.fail_all()
    assert (await house.task(session.id)).status is TaskStatus.FAILED


async def test_a_replayed_webhook_of_the_old_id_changes_nothing(build: Builder) -> None:
    house = await build(Switchboard(), running=False)
    registration = Registration(
        "old", **CARD, registration_time=house.clock.wall(), by_agentkit=True
    )
    await house.lifecycle.register_agent(registration)
    await announce(house, "new")
    await house.lifecycle.register_agent(registration)
    assert (await house.lifecycle.get_agent("old")).agent.standing is Standing.DEREGISTERED
    assert (await house.lifecycle.get_agent("new")).agent.standing is Standing.REGISTERED
    assert len(await house.events(EventType.AGENT_REPLACED)) == 1


async def test_a_trigger_on_the_old_id_is_told_the_new_one(build: Builder) -> None:
    house = await build(Switchboard(), running=False)
    await announce(house, "old")
    await announce(house, "new")
    with pytest.raises(ConflictError, match="goes on as new"):
        await house.trigger(agent_id="old")
