"""Dispatch slots: silent agents and dead hosts leave room for others; no lease is outlived."""

from typing import Any

import pytest

from opscore.models import (
    Accepted,
    Agent,
    Answered,
    DispatchMode,
    Failure,
    FailureCode,
    HoldReason,
    Policy,
    SessionStatus,
    TaskStatus,
)
from opscore.workflow.queue import Reason
from tests.fakes import settle
from tests.moody import Moody
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

DIRECT = Policy(mode=DispatchMode.DIRECT, start_timeout=None)
UNREACHABLE = Failure(FailureCode.UNREACHABLE, "No answer: could not connect in time.")


def is_alive(agent: Agent) -> bool:
    return "dead.test" not in (agent.contact_endpoint or "")


async def register_dead(house: House, count: int) -> None:
    for number in range(count):
        endpoint = f"http://dead.test:{9000 + number}/task"
        await house.register(f"dead{number}", contact_endpoint=endpoint)


@pytest.mark.fault("F104")
async def test_agent_that_never_answers_leaves_all_slots_to_others(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, DIRECT, concurrency=4)
    await house.register("silent", concurrency=25)
    await house.register("healthy")
    for _ in range(25):
        await house.trigger(agent_id="silent")
    assert len(courier.open) == 25
    assert house.dispatcher.under_way == 25
    assert house.dispatcher.gate() is None
    session = await house.trigger(agent_id="healthy")
    assert courier.calls[-1].claim.agent.id == "healthy"
    courier.calls[-1].answer.set_result(Answered("done"))
    await settle(50)
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED


async def test_leases_of_awaited_answers_are_renewed(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, DIRECT, concurrency=2)
    await house.register("silent", concurrency=5)
    for _ in range(5):
        await house.trigger(agent_id="silent")
    await house.pass_time(60)
    assert {task.attempt for task in await house.tasks()} == {1}
    await courier.answer(Answered("late"))
    assert {task.status for task in await house.tasks()} == {TaskStatus.COMPLETED}


@pytest.mark.fault("F104")
async def test_host_that_drops_packets_gets_half_of_the_slots(build: Builder) -> None:
    courier = Switchboard(connects=is_alive)
    house = await build(courier, DIRECT, concurrency=10)
    await register_dead(house, 12)
    await house.register("healthy")
    for number in range(12):
        await house.trigger(agent_id=f"dead{number}")
    assert len(courier.open) == 5
    session = await house.trigger(agent_id="healthy")
    assert courier.calls[-1].claim.agent.id == "healthy"
    courier.calls[-1].answer.set_result(Answered("done"))
    await settle(50)
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED


@pytest.mark.fault("F104")
async def test_more_dead_agents_than_slots_delay_others_by_a_moment_only(build: Builder) -> None:
    courier = Switchboard(connects=is_alive)
    house = await build(courier, DIRECT, concurrency=4)
    await register_dead(house, 20)
    await house.register("healthy")
    for number in range(20):
        await house.trigger(agent_id=f"dead{number}")
    await house.trigger(agent_id="healthy")
    await house.pass_time(1.5, step=0.5)
    assert courier.calls[-1].claim.agent.id == "healthy"
    assert len([call for call in courier.open if not is_alive(call.claim.agent)]) == 2


async def test_task_whose_host_is_busy_waits_with_its_reason_and_is_not_claimed_again(
    build: Builder,
) -> None:
    courier = Switchboard(connects=is_alive)
    house = await build(courier, DIRECT, concurrency=4)
    await register_dead(house, 3)
    for number in range(3):
        await house.trigger(agent_id=f"dead{number}")
    await house.pass_time(1.5, step=0.5)
    (waiting,) = [task for task in await house.tasks() if task.status.waiting]
    assert waiting.error is not None
    assert (waiting.error["code"], waiting.retries) == ("host_busy", 0)
    held = await house.storage.agent(waiting.wanted_agent or "")
    assert held is not None
    assert held.agent.hold is not None
    assert held.agent.hold.reason is HoldReason.HOST_BUSY
    reasons = await house.lifecycle.pending_reasons((waiting,), house.dispatcher.gate())
    assert reasons[waiting.id].code is Reason.AGENT_ON_HOLD
    assert "its host has as many messages under way" in reasons[waiting.id].message
    await house.pass_time(4)
    assert (await house.task(waiting.session_id)).attempt == 1
    await courier.answer(UNREACHABLE)
    await house.pass_time(2)
    assert (await house.task(waiting.session_id)).attempt == 2


async def test_many_messages_to_one_healthy_host_are_sent_without_a_second_claim(
    build: Builder,
) -> None:
    courier = Switchboard(always=Answered("done"))
    house = await build(courier, DIRECT, concurrency=4, running=False)
    for number in range(20):
        await house.register(f"a{number}")
        await house.trigger(agent_id=f"a{number}")
    await house.start()
    await house.pass_time(0)
    tasks = await house.tasks()
    assert {task.status for task in tasks} == {TaskStatus.COMPLETED}
    assert {task.attempt for task in tasks} == {1}


async def test_awaited_answers_are_bounded_in_all_and_for_each_host(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, DIRECT, concurrency=10, awaited_answers=4)
    for host in ("one", "two", "three"):
        for number in range(3):
            endpoint = f"http://{host}.test/{number}"
            await house.register(f"{host}{number}", contact_endpoint=endpoint)
            await house.trigger(agent_id=f"{host}{number}")
    hosts = [call.claim.agent.contact_endpoint or "" for call in courier.open]
    assert [host[7:10] for host in hosts] == ["one", "one", "two", "two"]
    gate = house.dispatcher.gate()
    assert gate is not None
    assert gate.reason is Reason.DISPATCH_LIMIT
    assert "4 messages are awaited" in gate.message
    assert "OPSCORE_AWAITED_ANSWERS" in gate.message
    await courier.answer(Answered("done"))
    await house.pass_time(6)
    assert len(courier.calls) == 8


async def test_message_waiting_for_its_host_can_be_cancelled(build: Builder) -> None:
    courier = Switchboard(connects=is_alive)
    house = await build(courier, DIRECT, concurrency=3)
    await register_dead(house, 3)
    sessions = [await house.trigger(agent_id=f"dead{number}") for number in range(3)]
    assert len(courier.calls) == 2
    await house.engine.cancel_session(sessions[2].id, "enough")
    await settle(50)
    assert house.dispatcher.under_way == 2
    await courier.answer(UNREACHABLE)
    assert house.dispatcher.under_way == 0
    assert len(courier.calls) == 2


# --- leases -----------------------------------------------------------------------------------


@pytest.mark.fault("F105")
@pytest.mark.parametrize("policy", [DIRECT, Policy(mode=DispatchMode.AGENTKIT)])
async def test_message_may_not_be_sent_once_its_lease_ran_out(
    build: Builder, policy: Policy
) -> None:
    storage, courier = await build.storage(Moody), Switchboard()
    house = await build(courier, policy, storage=storage)
    await house.register()
    await house.trigger()
    (call,) = courier.calls
    assert call.control.may_send()
    storage.away = True
    await house.pass_time(14, step=7)
    assert call.control.may_send()
    await house.pass_time(1)
    assert not call.control.may_send()
    storage.away = False


@pytest.mark.fault("F105")
async def test_message_may_be_sent_under_a_renewed_lease(build: Builder) -> None:
    courier = Switchboard()
    house = await build(courier, DIRECT)
    await house.register()
    await house.trigger()
    await house.pass_time(40)
    assert courier.calls[0].control.may_send()


@pytest.mark.fault("F105")
@pytest.mark.parametrize("policy", [DIRECT, Policy(mode=DispatchMode.AGENTKIT), Policy()])
async def test_unsent_message_under_a_lost_lease_is_tried_again_for_free(
    build: Builder, policy: Policy
) -> None:
    outcomes: list[Any] = [
        Failure(FailureCode.NOT_SENT, "The lease ran out."),
        Accepted(),
    ]
    house = await build(Switchboard(always=lambda _: outcomes.pop(0)), policy)
    await house.register()
    await house.trigger()
    await house.pass_time(3)
    task = await house.task()
    assert (task.attempt, task.retries) == (2, 0)
    assert task.accepted_at is not None
    candidate = await house.storage.agent("a1")
    assert candidate is not None
    assert candidate.agent.open_entries == ()
