"""Tool steps: AgentKit runs the tool, so they wait for no agent and blame none."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from opscore.models import (
    Accepted,
    Answered,
    Change,
    DispatchMode,
    Failure,
    FailureCode,
    MessageType,
    Policy,
    RetryPolicy,
    SessionStatus,
    Standing,
    StateReport,
    TaskDefinition,
    TaskStatus,
    WorkflowSession,
)
from opscore.session_starter import Trigger
from opscore.workflow.queue import Reason
from tests.builders import definition, step
from tests.service.conftest import Builder
from tests.service.house import House, Switchboard

THROUGH_AGENTKIT = Policy(mode=DispatchMode.AGENTKIT, start_timeout=None)
BROKEN = Failure(FailureCode.TOOL_ERROR, "The tool failed (HTTP 401): External tool 'calc' …")


def tool(task_id: str = "one", **changes: object) -> TaskDefinition:
    return step(task_id, message_type=MessageType.TOOL_INVOCATION, tool_name="calc", **changes)


async def trigger_without_agent(house: House, *steps: TaskDefinition) -> WorkflowSession:
    started = await house.lifecycle.start_session(Trigger(None, {}, definition=definition(*steps)))
    await house.pass_time(0)
    return await house.session(started.id)


async def lose(house: House, agent_id: str = "a1", **changes: Any) -> None:
    agent = (await house.lifecycle.get_agent(agent_id)).agent
    lost = replace(agent, rev=agent.rev + 1, standing=Standing.LOST, **changes)
    await house.storage.apply(Change(agents=(lost,)))


async def drain(house: House) -> None:
    await house.lifecycle.drain_agent("a1")


async def hold(house: House) -> None:
    await house.lifecycle.set_state(StateReport("a1", "error"))


async def deregister(house: House) -> None:
    await house.lifecycle.deregister_agent("a1")


@pytest.mark.fault("F125")
@pytest.mark.parametrize("policy", [THROUGH_AGENTKIT, Policy()])
async def test_tool_step_runs_while_its_agent_is_busy(build: Builder, policy: Policy) -> None:
    courier = Switchboard()
    house = await build(courier, policy)
    await house.register("a1", concurrency=1)
    await house.trigger()
    session = await house.trigger(tool())
    assert len(courier.open) == 2
    call = courier.open[1]
    assert (call.claim.agent.id, call.claim.task.agent_id) == ("a1", None)
    explanation = await house.lifecycle.explain(await house.task(session.id), None)
    assert explanation.reason.message == "AgentKit runs the tool calc for attempt 1 of the task."
    call.answer.set_result(Answered({"result": 3, "unit": "m"}))
    await house.pass_time(0)
    assert (await house.session(session.id)).output == {"result": 3, "unit": "m"}


@pytest.mark.fault("F125")
@pytest.mark.parametrize("befall", [drain, hold, lose, deregister])
async def test_tool_step_runs_whatever_befalls_its_only_agent(
    build: Builder, befall: Callable[[House], Awaitable[None]]
) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    await house.register("a1")
    session = await house.trigger(step("zero"), tool())
    await befall(house)
    courier.open[0].answer.set_result(Answered("zero"))
    await house.pass_time(0)
    assert courier.calls[-1].claim.agent.id == "a1"
    courier.calls[-1].answer.set_result(Answered("one"))
    await house.pass_time(0)
    assert (await house.session(session.id)).output == "one"


@pytest.mark.parametrize("capability", [None, "maths"])
async def test_tool_step_of_a_lost_agent_runs_in_the_name_of_one_in_service(
    build: Builder, capability: str | None
) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    for agent_id, capabilities in (("a1", ()), ("b1", ()), ("b2", ("maths",))):
        await house.register(agent_id, capabilities=capabilities)
    await lose(house)
    await house.trigger(tool(agent_capability=capability))
    assert courier.calls[0].claim.agent.id == ("b2" if capability else "b1")


async def test_tool_step_of_a_replaced_agent_runs_in_the_name_of_its_newest_successor(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    for agent_id in ("a1", "a2", "a3", "b1"):
        await house.register(agent_id)
    await lose(house, "a1", replaced_by="a2")
    await lose(house, "a2", replaced_by="a3")
    await trigger_without_agent(house, tool(agent_id="a1"))
    assert courier.calls[0].claim.agent.id == "a3"


@pytest.mark.fault("F125")
async def test_session_without_agent_runs_a_tool_step_in_the_name_of_any_agent(
    build: Builder,
) -> None:
    courier = Switchboard(always=Answered(3))
    house = await build(courier, THROUGH_AGENTKIT)
    await house.register("b1")
    session = await trigger_without_agent(house, tool())
    assert (session.status, session.output) == (SessionStatus.COMPLETED, 3)
    assert courier.calls[0].claim.agent.id == "b1"


@pytest.mark.fault("F125")
async def test_tool_step_fails_with_a_reason_where_no_agent_was_ever_registered(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    session = await trigger_without_agent(house, tool(retry=RetryPolicy(max_retries=0)))
    await house.pass_time(60)
    ended = await house.session(session.id)
    assert (ended.status, courier.calls) == (SessionStatus.FAILED, [])
    assert ended.error is not None
    assert ended.error["code"] == FailureCode.AGENT_UNKNOWN
    assert "no agent is registered" in ended.error["message"]


@pytest.mark.fault("F125")
@pytest.mark.parametrize("mode", DispatchMode)
async def test_tools_that_never_answer_leave_half_of_the_slots_to_agents(
    build: Builder, mode: DispatchMode
) -> None:
    courier = Switchboard()
    house = await build(courier, Policy(mode=mode, start_timeout=None), concurrency=5)
    await house.register("a1", concurrency=9)
    sessions = [await house.trigger(tool(priority=9)) for _ in range(5)]
    assert len(courier.open) == 3
    waiting = await house.task(sessions[-1].id)
    assert (waiting.status, waiting.attempt) == (TaskStatus.QUEUED, 0)
    reason = (await house.lifecycle.explain(waiting, house.dispatcher.gate())).reason
    assert reason.code is Reason.DISPATCH_LIMIT
    assert reason.message.startswith("3 tools run at AgentKit")
    for number in range(4):
        await house.trigger()
        courier.calls[3 + number].answer.set_result(Accepted())
        await house.pass_time(0)
    courier.calls[0].answer.set_result(Answered(1))
    await house.pass_time(0)
    assert (await house.task(sessions[3].id)).status is TaskStatus.DISPATCHED


async def test_report_of_an_agent_without_a_task_id_is_not_about_a_tool_step(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    await house.register("a1")
    session = await house.trigger(tool())
    for state in ("active", "idle", "error"):
        await house.lifecycle.set_state(StateReport("a1", state))
    assert (await house.task(session.id)).status is TaskStatus.DISPATCHED


@pytest.mark.fault("F125")
async def test_failing_tool_ends_its_step_and_harms_nothing_else(build: Builder) -> None:
    courier = Switchboard(always=BROKEN)
    house = await build(courier, THROUGH_AGENTKIT)
    await house.register("a1")
    retry = RetryPolicy(max_retries=2, initial_delay=timedelta(seconds=1), jitter=False)
    sessions = [await house.trigger(tool(retry=retry)) for _ in range(4)]
    await house.pass_time(20)
    assert len(courier.calls) == 12
    for session in sessions:
        ended = await house.session(session.id)
        assert ended.status is SessionStatus.FAILED
        assert ended.error is not None
        assert (ended.error["code"], ended.error["message"]) == ("tool_error", BROKEN.message)
    assert house.dispatcher.gate() is None
    candidate = await house.storage.agent("a1")
    assert candidate is not None
    assert candidate.agent.standing is Standing.REGISTERED
    assert (candidate.agent.delivery_failures, candidate.agent.missed_deadlines) == (0, 0)


async def test_tool_step_that_names_a_capability_runs_in_the_name_of_the_sessions_agent(
    build: Builder,
) -> None:
    courier = Switchboard()
    house = await build(courier, THROUGH_AGENTKIT)
    await house.register("a1", capabilities=())
    await house.register("b1", capabilities=("maths",))
    await house.trigger(tool(agent_capability="maths"), agent_id="a1")
    assert courier.calls[0].claim.agent.id == "a1"


async def test_tool_step_waits_without_attempts_while_agentkit_rests(build: Builder) -> None:
    away = Failure(FailureCode.UNREACHABLE, "No answer from AgentKit.")
    house = await build(Switchboard(always=away), Policy())
    await house.register("a1", contact_endpoint=None, concurrency=9)
    for _ in range(6):
        await house.trigger()
    session = await house.trigger(tool())
    task = await house.task(session.id)
    assert (task.status, task.attempt) == (TaskStatus.QUEUED, 0)
    reasons = await house.lifecycle.pending_reasons((task,), house.dispatcher.gate())
    assert reasons[task.id].code is Reason.BREAKER_OPEN
