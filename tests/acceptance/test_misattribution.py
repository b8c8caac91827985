"""Agents that name no task, answer late or come back: no task gets what belongs to another one.

Each test has a service of its own, in mode `auto` unless it says otherwise, because what one
teaches it of AgentKit would change what the next one sees.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from opscore.simulators.agent import SimulatedAgent
from tests.acceptance.processes import eventually, service
from tests.acceptance.world import World, echo_step, sent_to, world_around

pytestmark = pytest.mark.acceptance

NO_RETRY = {"maxRetries": 0}
QUICK_RETRY = {"backoff": "fixed", "initialDelay": 0.1, "maxDelay": 0.1, "jitter": False}


@pytest.fixture
async def world(
    tmp_path: Path, storage_url: str, kit_port: int, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    """Around a service whose further settings the test gives as the fixture's parameter."""
    settings = {
        "AGENTKIT_API_URL": f"http://127.0.0.1:{kit_port}",
        "OPSCORE_STORAGE_URL": storage_url,
        **getattr(request, "param", {}),
    }
    async with _world(tmp_path, settings, kit_port) as world:
        yield world


@asynccontextmanager
async def _world(folder: Path, settings: dict[str, str], kit_port: int) -> AsyncIterator[World]:
    with service(folder, settings) as started:
        async with world_around(started, kit_port) as world:
            yield world


def steps_done(agent: SimulatedAgent) -> list[str]:
    """The steps that the agent was given, in the order of their arrival."""
    tasks = [body for body in sent_to(agent) if body["messageType"] == "workflow_task"]
    return [body["payload"]["step_id"] for body in tasks]


def seconds_at_work(task: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(task[key]) for key in ("dispatchedAt", "endedAt"))
    return (ended - began).total_seconds()


async def learned(world: World) -> list[str]:
    events = (await world.get("events", type="delivery.learned"))["items"]
    return [event["data"]["forwards"] for event in events]


# --- echoes --------------------------------------------------------------------------------------


@pytest.mark.fault("F121")
@pytest.mark.parametrize("world", [{"OPSCORE_PROBE_INTERVAL": "1"}], indirect=True)
async def test_late_echoes_complete_no_step_and_their_agent_gets_no_probe(world: World) -> None:
    """Each step is answered directly, and its echo arrives while the next step is under way.

    The agent names no task, so a probe with it could prove nothing: only the first message, sent
    before anything was known, goes through AgentKit, though a probe is due every second.
    """
    await world.agentkit(forwarding="loses")
    agent = await world.agent("example", style="example", reportDelay=0.03, workSeconds=0.1)
    names = [f"step-{n}" for n in range(16)]
    steps = [echo_step(name, startTimeout="500ms", retry=NO_RETRY) for name in names]
    session = await world.run(agent, *steps)
    assert session["status"] == "completed"
    assert steps_done(agent) == names
    assert session["results"] == {name: {"echo": {"step": name}} for name in names}
    assert await learned(world) == ["disproved"]
    assert world.kit is not None
    assert len(sent_to(world.kit)) == 1


async def _begun(agent: SimulatedAgent) -> int:
    return agent.begun


# --- late ends -----------------------------------------------------------------------------------


@pytest.mark.fault("F100")
@pytest.mark.fault("F122")
async def test_the_echo_of_a_cancel_and_the_late_end_complete_nothing(world: World) -> None:
    """The agent knows no cancel: it echoes the message and works on. Through AgentKit its answer
    is lost, so its pairs of reports, which name no task, are all there is."""
    await world.agentkit()
    agent = await world.agent("example", style="example", workSeconds=2, reportDelay=0.03)
    cancelled = await world.start(agent, echo_step("first"))
    await eventually(lambda: _begun(agent), lambda begun: begun == 1)
    agent.behaviour.work_seconds = 1
    following = await world.start(agent, echo_step("second", startTimeout="30s"))
    await world.post(f"session/{cancelled}/cancel")
    session = await world.finish(following)
    assert session["status"] == "completed"
    assert "task_cancel" in [body["messageType"] for body in sent_to(agent)]
    [task] = await world.tasks(following)
    assert (task["attempt"], task["agentId"]) == (1, agent.agent_id)
    assert seconds_at_work(task) >= 1
    assert agent.most_at_once == 1
    assert steps_done(agent) == ["first", "second"]


@pytest.mark.fault("F100")
@pytest.mark.parametrize("world", [{"OPSCORE_DISPATCH_MODE": "agentkit"}], indirect=True)
async def test_the_late_end_of_a_task_that_timed_out_completes_nothing(world: World) -> None:
    await world.agentkit()
    agent = await world.agent("example", style="example", workSeconds=4, reportDelay=0.03)
    step = echo_step("first", timeout="2s", retry=NO_RETRY)
    timed_out = await world.start(agent, step)
    await eventually(lambda: _begun(agent), lambda begun: begun >= 1)
    agent.behaviour.work_seconds = 1
    following = await world.start(agent, echo_step("second", startTimeout="30s"))
    assert (await world.finish(timed_out))["status"] == "failed"
    session = await world.finish(following)
    assert session["status"] == "completed"
    [task] = await world.tasks(following)
    assert task["attempt"] == 1
    assert seconds_at_work(task) >= 1


# --- early reports -------------------------------------------------------------------------------


@pytest.mark.fault("F123")
async def test_reports_before_the_202_count_once_it_is_there(world: World) -> None:
    """AgentKit's answer is late, and the agent has done its work by then."""
    await world.agentkit(answerDelay=0.3)
    agent = await world.agent("capitals", style="capitals", workSeconds=0.02)
    session = await world.run(agent, *(echo_step(f"step-{n}") for n in range(4)))
    assert session["status"] == "completed"
    assert steps_done(agent) == [f"step-{n}" for n in range(4)]
    assert session["results"] == {
        f"step-{n}": {"last_task_result": {"echo": {"step": f"step-{n}"}}} for n in range(4)
    }
    assert {task["attempt"] for task in await world.tasks(session["sessionId"])} == {1}


# --- delivery ------------------------------------------------------------------------------------


@pytest.mark.fault("F124")
async def test_a_short_run_deadline_leaves_time_for_direct_delivery(world: World) -> None:
    await world.agentkit(forwarding="loses")
    agent = await world.agent("prompt")
    session = await world.run(agent, echo_step("only", timeout="5s", retry=NO_RETRY))
    assert session["status"] == "completed"
    [task] = await world.tasks(session["sessionId"])
    assert seconds_at_work(task) < 5
    assert agent.begun == 1


@pytest.mark.fault("F125")
async def test_a_tools_status_is_that_steps_failure_alone(world: World) -> None:
    await world.agentkit()
    agent = await world.agent("other", workSeconds=0)
    statuses = (302, 400, 401, 404, 429, 500)
    started = [
        await world.start(agent, _tool_step("status_tool", status=status)) for status in statuses
    ]
    sessions = await asyncio.gather(*map(world.finish, started))
    assert {session["status"] for session in sessions} == {"failed"}
    assert {session["error"]["code"] for session in sessions} == {"tool_error"}
    for session, status in zip(sessions, statuses, strict=True):
        assert f"Status {status}" in session["error"]["message"]
    assert (await world.run(agent, echo_step("only")))["status"] == "completed"
    assert (await world.get(f"agent/{agent.agent_id}"))["availability"] == "available"
    assert (await world.run(agent, _tool_step("mock_tool", x=1, y=2)))["output"] == 3


def _tool_step(name: str, **arguments: Any) -> dict[str, Any]:
    return {
        "taskId": "tool",
        "messageType": "tool_invocation",
        "toolName": name,
        "parameters": arguments,
        "retry": NO_RETRY,
    }


# --- restarts ------------------------------------------------------------------------------------


@pytest.mark.fault("F126")
async def test_a_rebooted_agent_goes_on_under_its_new_id(world: World) -> None:
    kit = await world.agentkit()
    agent = await world.agent("rebooted", workSeconds=60)
    old_id = agent.agent_id
    lost = await world.start(agent, echo_step("lost", timeout="3s", retry=QUICK_RETRY))
    waiting = await world.start(agent, echo_step("first"), echo_step("second"))
    await world.task_where(lost, status="running")
    await world.task_waiting(waiting, "agent_busy")
    agent.behaviour.work_seconds = 0.05
    kit.agents.clear()
    new_id = await agent.restart()
    sessions = await asyncio.gather(world.finish(lost), world.finish(waiting))
    assert [session["status"] for session in sessions] == ["completed", "completed"]
    tasks = [*await world.tasks(lost), *await world.tasks(waiting)]
    assert {task["agentId"] for task in tasks} == {new_id}
    old, new = await world.get(f"agent/{old_id}"), await world.get(f"agent/{new_id}")
    assert (old["availability"], old["replacedBy"]) == ("deregistered", new_id)
    assert (new["availability"], new["predecessors"]) == ("available", [old_id])
    assert old["tasksInFlight"] == 0
