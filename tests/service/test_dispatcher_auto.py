"""Mode auto: what is learned of AgentKit's forwards, and which way tasks go for it."""

from datetime import timedelta

import pytest

from opscore.models import (
    Accepted,
    Answered,
    Delivery,
    DispatchMode,
    EventType,
    Failure,
    FailureCode,
    Forwards,
    MessageType,
    Policy,
    SessionStatus,
    Standing,
    StateReport,
    TaskResult,
    TaskStatus,
)
from opscore.workflow.queue import Reason
from tests.builders import step
from tests.fakes import settle
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

AGENTKIT, DIRECT = Delivery.AGENTKIT, Delivery.DIRECT


async def hear(house: House, word: str, task_id: str | None = None) -> None:
    details = {"opscore_task_id": task_id} if task_id else {}
    await house.lifecycle.set_state(StateReport("a1", word, details))
    await settle(50)


async def finish(house: House, session_id: str) -> None:
    task = await house.task(session_id)
    done = TaskResult(True, result="done", attempt=task.attempt)
    await house.lifecycle.report_result(task.id, done)
    await settle(50)


async def losing_house(build: Builder, courier: Switchboard) -> House:
    """AgentKit takes every message and delivers none; that has just been learned."""
    house = await build(courier)
    await house.register(concurrency=9)
    courier.always = Accepted()
    first = await house.trigger()
    await house.pass_time(10)
    await finish(house, first.id)
    assert house.engine.routes.known.forwards is Forwards.DISPROVED
    return house


async def test_F36_after_accepted_and_silence_the_task_goes_direct(build: Builder) -> None:
    courier = Switchboard(always=Accepted())
    house = await build(courier)
    await house.register()
    session = await house.trigger()
    await house.pass_time(9.5, step=0.5)
    assert courier.routes == [AGENTKIT]
    await house.pass_time(0.5)
    assert courier.routes == [AGENTKIT, DIRECT]
    first, second = courier.calls
    assert first.task_id == second.task_id
    assert second.claim.task.attempt == 2
    assert (second.claim.task.retries, second.claim.agent.id) == (0, "a1")
    await finish(house, session.id)
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED


async def test_the_following_tasks_go_direct_at_once(build: Builder) -> None:
    courier = Switchboard()
    house = await losing_house(build, courier)
    for _ in range(3):
        await house.trigger()
    assert courier.routes == [AGENTKIT, DIRECT, DIRECT, DIRECT, DIRECT]
    await house.pass_time(60)
    assert len(courier.calls) == 5
    (event,) = await house.events(EventType.DELIVERY_LEARNED)
    assert event.data == {"forwards": "disproved", "before": "unknown"}


async def test_every_ten_minutes_one_task_tries_agentkit_out(build: Builder) -> None:
    courier = Switchboard()
    house = await losing_house(build, courier)
    courier.calls.clear()
    await house.pass_time(599, step=1)
    last = await house.trigger()
    await house.pass_time(1)
    sessions = [last, *[await house.trigger() for _ in range(3)]]
    assert courier.routes == [DIRECT, AGENTKIT, DIRECT, DIRECT]
    await house.pass_time(10)
    assert courier.routes[4:] == [DIRECT]
    for session in sessions:
        await finish(house, session.id)
    assert house.engine.routes.known.forwards is Forwards.DISPROVED
    await house.pass_time(590, step=10)
    sessions = [await house.trigger() for _ in range(2)]
    assert courier.routes[5:] == [DIRECT, DIRECT]
    for session in sessions:
        await finish(house, session.id)
    await house.pass_time(10)
    await house.trigger()
    assert courier.routes[7:] == [AGENTKIT]
    assert len(await house.events(EventType.DELIVERY_LEARNED)) == 1


async def test_a_mended_agentkit_is_noticed(build: Builder) -> None:
    courier = Switchboard()
    house = await losing_house(build, courier)
    await house.pass_time(600, step=10)
    courier.calls.clear()
    probe = await house.trigger()
    task = await house.task(probe.id)
    await hear(house, "active", task.id)
    assert house.engine.routes.known.forwards is Forwards.PROVED
    await house.trigger()
    assert courier.routes == [AGENTKIT, AGENTKIT]
    learned = await house.events(EventType.DELIVERY_LEARNED)
    assert [event.data["forwards"] for event in learned] == ["disproved", "proved"]


async def test_a_sign_of_life_after_a_forward_proves_it(build: Builder) -> None:
    courier = Switchboard(always=Accepted())
    house = await build(courier)
    await house.register()
    session = await house.trigger()
    await hear(house, "BUSY")
    assert house.engine.routes.known.forwards is Forwards.PROVED
    await hear(house, "IDLE")
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED
    assert courier.routes == [AGENTKIT]


async def test_silence_that_no_direct_delivery_follows_disproves_nothing(build: Builder) -> None:
    unreachable = Failure(FailureCode.UNREACHABLE, "The connection was refused.")
    courier = Switchboard(always=lambda call: Accepted() if call.via is AGENTKIT else unreachable)
    house = await build(courier)
    await house.register()
    await house.trigger()
    await house.pass_time(10)
    assert courier.routes[:2] == [AGENTKIT, DIRECT]
    assert house.engine.routes.known.forwards is Forwards.UNKNOWN


async def test_an_agent_without_an_endpoint_is_only_reached_by_agentkit(build: Builder) -> None:
    courier = Switchboard()
    house = await losing_house(build, courier)
    await house.register("a2", contact_endpoint=None)
    courier.calls.clear()
    await house.trigger(agent_id="a2")
    await house.pass_time(30)
    assert set(courier.routes) == {AGENTKIT}
    assert len(courier.calls) > 1


async def test_a_task_with_no_way_but_agentkit_waits_until_that_is_tried_again(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await losing_house(build, courier)
    await house.register("a2", contact_endpoint=None, concurrency=9)
    refused = Failure(FailureCode.UNAUTHORIZED, "AgentKit refused the key.")
    courier.always = lambda call: refused if call.via is AGENTKIT else Accepted()
    await house.trigger(agent_id="a2")
    courier.calls.clear()
    waiting = await house.trigger(agent_id="a2")
    assert courier.calls == []
    task = await house.task(waiting.id)
    assert (task.status, task.attempt) == (TaskStatus.QUEUED, 0)
    reasons = await house.lifecycle.pending_reasons((task,), house.dispatcher.gate())
    assert reasons[task.id].code is Reason.BREAKER_OPEN
    await house.trigger(agent_id="a1")
    assert courier.routes == [DIRECT]
    courier.always = Answered("there again")
    await house.pass_time(4)
    assert (await house.session(waiting.id)).output == "there again"


async def test_tools_always_go_through_agentkit(build: Builder) -> None:
    courier = Switchboard()
    house = await losing_house(build, courier)
    courier.calls.clear()
    courier.always = Answered({"result": 3})
    tool = step("one", message_type=MessageType.TOOL_INVOCATION, tool_name="calc")
    session = await house.trigger(tool)
    assert courier.routes == [AGENTKIT]
    assert (await house.session(session.id)).output == {"result": 3}


@pytest.mark.parametrize(
    ("mode", "via"), [(DispatchMode.AGENTKIT, AGENTKIT), (DispatchMode.DIRECT, DIRECT)]
)
async def test_other_modes_know_one_way(build: Builder, mode: DispatchMode, via: Delivery) -> None:
    courier = Switchboard(always=Accepted())
    policy = Policy(mode=mode, start_timeout=timedelta(seconds=10))
    house = await build(courier, policy)
    await house.register()
    await house.trigger()
    await house.pass_time(40)
    assert set(courier.routes) == {via}
    assert house.engine.routes.known.forwards is Forwards.UNKNOWN


@pytest.mark.parametrize("proved", [True, False])
async def test_silence_is_the_agents_fault_only_where_forwards_are_known_to_arrive(
    build: Builder, proved: bool
) -> None:
    policy = Policy(mode=DispatchMode.AGENTKIT, start_timeout=timedelta(seconds=10))
    house = await build(Switchboard(always=Accepted()), policy)
    await house.register()
    if proved:
        session = await house.trigger()
        await hear(house, "active")
        await finish(house, session.id)
        assert house.engine.routes.known.forwards is Forwards.PROVED
    await house.trigger()
    await house.pass_time(60)
    standing = (await house.lifecycle.get_agent("a1")).agent.standing
    assert standing is (Standing.LOST if proved else Standing.REGISTERED)


async def test_a_start_deadline_of_zero_waits_for_the_run_deadline(build: Builder) -> None:
    courier = Switchboard(always=Accepted())
    house = await build(courier)
    await house.register()
    await house.trigger(step("one", start_timeout=timedelta(0)))
    await house.pass_time(60)
    assert courier.routes == [AGENTKIT]
    task = await house.task()
    assert (task.status, task.start_deadline) == (TaskStatus.DISPATCHED, None)


# --- AgentKit refuses, forgets or is slow -----------------------------------------------------

UNKNOWN_AGENT = Failure(FailureCode.AGENT_UNKNOWN, "AgentKit does not know the agent (404).")


@pytest.mark.fault("F102")
@pytest.mark.parametrize(
    "failure",
    [
        Failure(FailureCode.UNREACHABLE, "The connection was refused."),
        Failure(FailureCode.OUTCOME_UNKNOWN, "The connection was reset."),
        Failure(FailureCode.UPSTREAM_ERROR, "502"),
        UNKNOWN_AGENT,
    ],
    ids=lambda failure: failure.code.value,
)
async def test_work_goes_on_directly_at_once_when_agentkit_does_not_take_it(
    build: Builder, failure: Failure
) -> None:
    courier = Switchboard(always=lambda call: failure if call.via is AGENTKIT else Answered("done"))
    house = await build(courier)
    await house.register()
    sessions = [await house.trigger(step("one"), step("two")) for _ in range(4)]
    for session in sessions:
        assert (await house.session(session.id)).status is SessionStatus.COMPLETED
    assert {task.retries for task in await house.tasks()} == {0}
    assert (await house.lifecycle.get_agent("a1")).agent.standing is Standing.REGISTERED
    assert house.engine.routes.known.forwards is Forwards.UNKNOWN


@pytest.mark.fault("F102")
async def test_tasks_of_an_agent_that_agentkit_forgot_skip_agentkit_for_a_while(
    build: Builder,
) -> None:
    courier = Switchboard(
        always=lambda call: UNKNOWN_AGENT if call.via is AGENTKIT else Answered("done")
    )
    house = await build(courier, Policy(probe_interval=timedelta(seconds=60)))
    await house.register()
    await house.trigger(step("one"), step("two"))
    assert courier.routes == [AGENTKIT, DIRECT, DIRECT]
    await house.pass_time(60)
    await house.trigger()
    assert courier.routes[3:] == [AGENTKIT, DIRECT]
    await house.register(by_agentkit=True)
    courier.calls.clear()
    await house.trigger()
    assert courier.routes == [AGENTKIT, DIRECT]


async def proved_house(build: Builder, courier: Switchboard) -> House:
    """AgentKit delivers to a1; that has just been learned."""
    courier.always = Accepted()
    house = await build(courier)
    await house.register("a1")
    first = await house.trigger()
    await hear(house, "active")
    await finish(house, first.id)
    assert house.engine.routes.known.forwards is Forwards.PROVED
    courier.calls.clear()
    return house


@pytest.mark.fault("F103")
async def test_slow_agent_gets_its_task_once_where_forwards_are_proved(build: Builder) -> None:
    courier = Switchboard()
    house = await proved_house(build, courier)
    await house.register("slow")
    known = house.engine.routes.known
    session = await house.trigger(agent_id="slow")
    await house.pass_time(15)
    assert courier.routes == [AGENTKIT]
    task = await house.task(session.id)
    await house.lifecycle.set_state(StateReport("slow", "active", {"taskId": task.id}))
    await house.lifecycle.set_state(StateReport("slow", "idle", {"taskId": task.id}))
    assert (await house.session(session.id)).status is SessionStatus.COMPLETED
    assert (courier.routes, house.engine.routes.known) == ([AGENTKIT], known)


@pytest.mark.fault("F103")
async def test_proved_forwards_are_disproved_by_two_agents_and_not_by_one(build: Builder) -> None:
    courier = Switchboard()
    house = await proved_house(build, courier)
    start_early = step("one", start_timeout=timedelta(seconds=3))
    states = []
    for agent_id in ("m1", "m2"):
        await house.register(agent_id)
        session = await house.trigger(start_early, agent_id=agent_id)
        # The silent attempt may still be at work, so the agent is left alone for its grace.
        await house.pass_time(34)
        task = await house.task(session.id)
        await house.lifecycle.set_state(StateReport(agent_id, "active", {"taskId": task.id}))
        await house.lifecycle.set_state(StateReport(agent_id, "idle", {"taskId": task.id}))
        states.append(house.engine.routes.known.forwards)
    assert courier.routes == [AGENTKIT, DIRECT, AGENTKIT, DIRECT]
    assert states == [Forwards.PROVED, Forwards.DISPROVED]


@pytest.mark.fault("F103")
async def test_tasks_of_the_one_missed_agent_go_directly_and_of_the_others_through_agentkit(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await proved_house(build, courier)
    await house.register("m1")
    session = await house.trigger(step("one", start_timeout=timedelta(seconds=3)), agent_id="m1")
    await house.pass_time(34)
    task = await house.task(session.id)
    await house.lifecycle.set_state(StateReport("m1", "active", {"taskId": task.id}))
    await house.lifecycle.set_state(StateReport("m1", "idle", {"taskId": task.id}))
    courier.calls.clear()
    await house.trigger(agent_id="m1")
    await house.trigger(agent_id="a1")
    assert courier.routes == [DIRECT, AGENTKIT]


@pytest.mark.fault("F124")
async def test_task_with_a_short_run_deadline_reaches_its_agent_directly_within_it(
    build: Builder,
) -> None:
    courier = Switchboard(always=Accepted())
    house = await build(courier)
    await house.register()
    await house.trigger(step("one", timeout=timedelta(seconds=5)))
    await house.pass_time(3, step=0.5)
    assert courier.routes == [AGENTKIT, DIRECT]
    assert (await house.task()).retries == 0


# --- other modes ------------------------------------------------------------------------------


async def test_agent_without_an_endpoint_is_sent_nothing_in_direct_mode_and_says_so(
    build: Builder,
) -> None:
    courier = Switchboard(always=Answered("done"))
    house = await build(courier, Policy(mode=DispatchMode.DIRECT))
    await house.register(contact_endpoint=None)
    session = await house.trigger()
    await house.pass_time(60)
    task = await house.task(session.id)
    assert (courier.calls, task.attempt, task.retries) == ([], 0, 0)
    said = await house.lifecycle.explain(task, house.dispatcher.gate())
    assert said.reason.code is Reason.NO_ENDPOINT
    assert said.unblocked_by == ("Agent a1: it registers with a contactEndpoint.",)
    tool = step("one", message_type=MessageType.TOOL_INVOCATION, tool_name="calc")
    await house.trigger(tool)
    assert courier.routes == [AGENTKIT]
    await house.register()
    await house.pass_time(1)
    assert courier.routes == [AGENTKIT, DIRECT]
    assert (await house.session(session.id)).output == "done"


async def test_lost_agent_in_agentkit_mode_is_tried_again_and_comes_back(build: Builder) -> None:
    courier = Switchboard(always=UNKNOWN_AGENT)
    policy = Policy(mode=DispatchMode.AGENTKIT, probe_interval=timedelta(seconds=60))
    house = await build(courier, policy)
    await house.register(concurrency=2)
    await house.trigger()
    await house.pass_time(70)
    assert (await house.lifecycle.get_agent("a1")).agent.standing is Standing.LOST
    courier.always = Answered("back")
    courier.calls.clear()
    sessions = [await house.trigger() for _ in range(3)]
    assert courier.calls == []
    await house.pass_time(60)
    assert {(await house.session(one.id)).output for one in sessions} == {"back"}
    agent = (await house.lifecycle.get_agent("a1")).agent
    assert (agent.standing, agent.on_trial, agent.times_lost) == (Standing.REGISTERED, False, 0)


# --- AgentKit hangs ---------------------------------------------------------------------------


@pytest.mark.fault("F102")
async def test_work_goes_on_directly_once_agentkit_was_found_to_hang(build: Builder) -> None:
    lost = Failure(FailureCode.OUTCOME_UNKNOWN, "AgentKit did not answer within 30 s.")
    courier = Switchboard()
    house = await build(courier)
    await house.register(concurrency=9)
    await house.lifecycle.set_state(StateReport("a1", "idle"))
    await house.trigger()
    await house.pass_time(27)
    late = await house.trigger()
    await house.pass_time(3)
    assert courier.routes == [AGENTKIT, AGENTKIT]
    courier.always = Answered("done")
    first, second = courier.calls
    first.answer.set_result(lost)
    await settle(50)
    assert courier.routes == [AGENTKIT, AGENTKIT, DIRECT]
    new = await house.trigger()
    assert (await house.session(new.id)).output == "done"
    await house.pass_time(2)
    assert second.answer.cancelled()
    assert (await house.session(late.id)).output == "done"
    assert {task.retries for task in await house.tasks()} == {0}
