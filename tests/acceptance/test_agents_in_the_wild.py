"""Agents as they are: each with its own way to speak, and each with its own way to fail."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from opscore.simulators.agent import SimulatedAgent
from tests.acceptance.processes import OnStorage, eventually, process, service_on_each_storage
from tests.acceptance.test_wire import register_event, signed
from tests.acceptance.world import API, World, echo_step, sent_to, world_around

pytestmark = pytest.mark.acceptance

QUICK_RETRY = {"backoff": "fixed", "initialDelay": 0.1, "maxDelay": 0.1, "jitter": False}
NO_RETRY = {"maxRetries": 0}

# How each kind of agent is made, and what it makes of {"step": "<name>"}.
ECHO = {"echo": {"step": "third"}}
STYLES = [
    pytest.param({"style": "reports"}, ECHO, id="reports with task ids"),
    pytest.param({"style": "reports", "taskIds": False}, ECHO, id="reports without task ids"),
    pytest.param({"style": "capitals"}, {"last_task_result": ECHO}, id="capitals"),
    pytest.param({"style": "finished"}, ECHO, id="finished"),
    pytest.param({"style": "precise"}, ECHO, id="precise"),
    pytest.param({"style": "example"}, {}, id="works first and reports later"),
]


@pytest.fixture(scope="module")
def in_mode_auto(tmp_path_factory: pytest.TempPathFactory, kit_port: int) -> Iterator[OnStorage]:
    settings = {"AGENTKIT_API_URL": f"http://127.0.0.1:{kit_port}"}
    with service_on_each_storage(tmp_path_factory.mktemp("auto-mode"), settings) as services:
        yield services


@pytest.fixture
async def world(in_mode_auto: OnStorage, storage_kind: str, kit_port: int) -> AsyncIterator[World]:
    """In mode auto, with an AgentKit that forwards."""
    async with world_around(in_mode_auto(storage_kind), kit_port) as world:
        await world.agentkit()
        yield world


def a_capability() -> str:
    """One that no other test has, since they share the service."""
    return f"skill-{uuid4().hex[:8]}"


THREE_STEPS = [echo_step("first"), echo_step("second"), echo_step("third")]


async def tell(world: World, agent: SimulatedAgent, state: str, **details: Any) -> None:
    """Report in the agent's name."""
    await world.post(
        f"agent/{agent.agent_id}/state",
        {
            "agentId": agent.agent_id,
            "timestamp": datetime.now(UTC).isoformat(),
            "state": state,
            "details": details,
        },
    )


async def messages(agent: SimulatedAgent, kind: str) -> list[Any]:
    return [body for body in sent_to(agent) if body["messageType"] == kind]


# --- how they speak ------------------------------------------------------------------------------


@pytest.mark.parametrize(("behaviour", "output"), STYLES)
async def test_each_kind_of_agent_does_a_whole_workflow_through_agentkit(
    world: World, behaviour: dict[str, Any], output: Any
) -> None:
    agent = await world.agent(a_capability(), **behaviour)
    session = await world.run(agent, *THREE_STEPS)
    assert (session["status"], session["output"]) == ("completed", output)
    tasks = await world.tasks(session["sessionId"])
    assert [(task["stepId"], task["attempt"]) for task in tasks] == [
        ("first", 1),
        ("second", 1),
        ("third", 1),
    ]
    # The agent may be quicker than AgentKit's answer, which tells the task how it went.
    assert world.kit is not None
    assert len(sent_to(world.kit)) == 3
    assert (agent.begun, agent.most_at_once) == (3, 1)
    assert await world.forwards() == "proved"


@pytest.mark.parametrize(("behaviour", "output"), STYLES)
async def test_each_kind_of_agent_does_a_whole_workflow_by_direct_delivery(
    direct_world: World, behaviour: dict[str, Any], output: Any
) -> None:
    """Late reports of the task before must not end the next one: each result is its own."""
    agent = await direct_world.agent(a_capability(), **behaviour)
    session = await direct_world.run(agent, *THREE_STEPS)
    # An agent that works first gives its result in its answer here.
    assert session["output"] == (output or ECHO)
    assert [session["results"][step] for step in ("first", "second")] == [
        _with_step(session["output"], step) for step in ("first", "second")
    ]
    assert (agent.begun, agent.most_at_once) == (3, 1)


def _with_step(result: Any, step: str) -> Any:
    inner = {"echo": {"step": step}}
    return {"last_task_result": inner} if "last_task_result" in result else inner


async def test_F47_a_report_before_the_registration_counts_when_that_arrives(
    world: World,
) -> None:
    """The agent speaks once, right after it registered; the webhook takes longer."""
    await world.mend(webhookDelay=1.5)
    agent = await world.unknown_agent(a_capability(), style="example")
    assert (await world.http.get(f"{API}/agent/{agent.agent_id}")).status_code == 404
    await world.until_known(agent.agent_id)
    assert (await world.get(f"agent/{agent.agent_id}/state"))["state"] == "idle"
    [entry] = (await world.get(f"agent/{agent.agent_id}/history"))["items"]
    assert entry["data"]["state"] == "idle"


async def test_F39_an_agent_registered_again_while_it_works_keeps_its_task(world: World) -> None:
    agent = await world.agent(a_capability(), silent=True)
    session_id = await world.start(agent, echo_step("only"))
    task_id = (await world.task_where(session_id, status="dispatched"))["taskId"]
    await tell(world, agent, "active", opscore_task_id=task_id)
    await world.task_where(session_id, status="running")
    # The agent may be quicker than the answer that it was given the task, which sets the deadline.
    await eventually(lambda: world.tasks(session_id), lambda tasks: tasks[0]["acceptedAt"])
    [before] = await world.tasks(session_id)
    event = register_event(str(agent.agent_id), agentName="renamed", version="2")
    body = json.dumps(event).encode()
    notify = f"{API}/internal/agent/notify"
    headers = signed(body, secret=world.service.secret)
    answer = await world.http.post(notify, content=body, headers=headers)
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    known = await world.get(f"agent/{agent.agent_id}")
    assert (known["agentName"], known["version"]) == ("renamed", "2")
    assert known["tasksInFlight"] == 1
    [after] = await world.tasks(session_id)
    assert after["runDeadline"] == before["runDeadline"]
    await tell(world, agent, "finished", opscore_task_id=task_id)
    assert (await world.finish(session_id))["status"] == "completed"
    assert agent.begun == 1


async def test_an_agent_registered_by_hand_twice_is_one_agent(direct_world: World) -> None:
    capability = a_capability()
    agent = await direct_world.agent(capability)
    known = await direct_world.get(f"agent/{agent.agent_id}")
    card = {"agentId": agent.agent_id, "agentName": "again", "capabilities": [capability]}
    again = await direct_world.http.post(f"{API}/agents", json=card)
    assert again.status_code == 200
    found = (await direct_world.get("agents", capability=capability))["items"]
    assert [one["agentId"] for one in found] == [agent.agent_id]
    assert found[0]["contactEndpoint"] == known["contactEndpoint"]
    assert (await direct_world.run(agent, *THREE_STEPS))["status"] == "completed"


async def test_a_restarted_agent_under_a_new_id_takes_the_work_over(direct_world: World) -> None:
    """Its old self stays known and silent; work for its capability goes to the new one in time."""
    capability = a_capability()
    old = await direct_world.agent(capability, silent=True)
    new = await direct_world.agent(capability)
    step = echo_step("only", capability, timeout=1.5, retry=QUICK_RETRY)
    session = await direct_world.run(old, step)
    assert session["status"] == "completed"
    [task] = await direct_world.tasks(session["sessionId"])
    assert (task["agentId"], task["attempt"]) == (new.agent_id, 2)


# --- how they fail -------------------------------------------------------------------------------


async def test_an_agent_that_fails_twice_is_tried_three_times(world: World) -> None:
    agent = await world.agent(a_capability(), failFirst=2)
    session = await world.run(agent, echo_step("only", retry=QUICK_RETRY))
    assert session["status"] == "completed"
    [task] = await world.tasks(session["sessionId"])
    assert (task["attempt"], task["retries"], agent.begun) == (3, 2, 3)
    failed = await world.events(session["sessionId"], "task.attempt_failed")
    assert {event["data"]["code"] for event in failed} == {"agent_error"}


@pytest.mark.parametrize("style", ["reports", "capitals", "finished", "precise"])
async def test_an_agent_that_always_fails_ends_in_the_fallback(world: World, style: str) -> None:
    helping, failing = a_capability(), a_capability()
    agent = await world.agent(failing, style=style, failRate=1)
    helper = await world.agent(helping)
    step = echo_step(
        "only",
        failing,
        retry=QUICK_RETRY | {"maxRetries": 1},
        fallback={"agentCapability": helping},
    )
    session = await world.run(agent, step)
    assert (session["status"], session["output"]) == ("completed", {"echo": {"step": "only"}})
    assert (agent.begun, helper.begun) == (2, 1)
    [task] = await world.tasks(session["sessionId"])
    assert task["agentId"] == helper.agent_id


async def test_an_agent_that_always_fails_without_a_fallback_fails_the_session(
    world: World,
) -> None:
    agent = await world.agent(a_capability(), failRate=1)
    session = await world.run(agent, echo_step("only", retry=NO_RETRY), echo_step("never"))
    assert session["status"] == "failed"
    assert session["error"]["code"] == "agent_error"
    assert session["error"]["message"] == "The agent was told to fail this task."
    assert session["error"]["stepId"] == "only"
    assert len(await world.tasks(session["sessionId"])) == 1


async def test_the_example_agent_says_nothing_of_its_failure_through_agentkit(
    world: World,
) -> None:
    """It answers 500 to AgentKit, which only logs that: the run deadline has to notice."""
    agent = await world.agent(a_capability(), style="example", failFirst=1)
    session = await world.run(agent, echo_step("only", timeout=1.5, retry=QUICK_RETRY))
    assert session["status"] == "completed"
    failed = await world.events(session["sessionId"], "task.attempt_failed")
    assert [event["data"]["code"] for event in failed] == ["run_timeout"]


async def test_the_example_agents_failure_is_known_at_once_by_direct_delivery(
    direct_world: World,
) -> None:
    agent = await direct_world.agent(a_capability(), style="example", failFirst=1)
    session = await direct_world.run(agent, echo_step("only", retry=QUICK_RETRY))
    assert session["status"] == "completed"
    failed = await direct_world.events(session["sessionId"], "task.attempt_failed")
    assert [event["data"]["code"] for event in failed] == ["agent_error"]
    assert "told to fail" in failed[0]["data"]["message"]


async def test_F36_an_agent_that_dies_at_work_is_replaced_by_another(
    world: World, tmp_path: Path
) -> None:
    capability = a_capability()
    command = (sys.executable, "-m", "opscore", "simulate", "agent", "--name", capability)
    switches = ("--capability", capability, "--agentkit-url", world.kit_url, "--work-seconds", "30")
    places = ("--opscore-url", world.service.url, "--api-key", world.service.key)
    with process("agent", tmp_path, *command, *switches, *places) as dying:
        # On a thread, because AgentKit has to answer meanwhile.
        dying_id = await asyncio.to_thread(dying.find, r"is known as (\S+)")
        await world.until_known(dying_id)
        other = await world.agent(capability)
        step = echo_step("only", capability, timeout=3, retry=QUICK_RETRY)
        body = {"workflowDefinition": {"id": capability, "tasks": [step]}}
        session_id = (await world.post(f"agent/{dying_id}/workflow", body))["sessionId"]
        await world.task_where(session_id, status="running", agentId=dying_id)
        dying.popen.kill()
        session = await world.finish(session_id)
    assert session["status"] == "completed"
    [task] = await world.tasks(session_id)
    assert (task["agentId"], task["attempt"], task["retries"]) == (other.agent_id, 2, 1)
    [failed] = await world.events(session_id, "task.attempt_failed")
    assert failed["data"]["code"] == "run_timeout"


# --- what is done with them ----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["agentkit", "direct"])
async def test_F43_a_cancelled_session_tells_its_agent_and_frees_its_slot(
    world: World, direct_world: World, way: str
) -> None:
    here = world if way == "agentkit" else direct_world
    agent = await here.agent(a_capability(), workSeconds=30)
    session_id = await here.start(agent, echo_step("only"))
    running = await here.task_where(session_id, status="running")
    agent.behaviour.work_seconds = 0.05
    next_id = await here.start(agent, echo_step("only"))
    assert (await here.task_waiting(next_id, "agent_busy"))["status"] == "queued"

    cancelled = await here.post(f"session/{session_id}/cancel", {"reason": "no longer needed"})
    assert cancelled["status"] == "cancelled"
    [task] = await here.tasks(session_id)
    assert task["status"] == "cancelled"
    assert (await here.finish(next_id))["status"] == "completed"
    [told] = await eventually(lambda: messages(agent, "task_cancel"), bool)
    assert told["opscore_task_id"] == running["taskId"]
    assert told["opscore_session_id"] == session_id
    assert told["payload"]["attempt"] == 1

    await tell(here, agent, "finished", opscore_task_id=running["taskId"], result="too late")
    assert (await here.get(f"session/{session_id}"))["status"] == "cancelled"
    [task] = await here.tasks(session_id)
    assert (task["status"], task["result"]) == ("cancelled", None)
    late = await here.events(session_id, "task.late")
    assert "finished" in {event["data"]["said"] for event in late}


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_an_agent_has_never_more_tasks_at_once_than_it_can_take(
    direct_world: World, concurrency: int
) -> None:
    # Several work at once only if the next comes before one has done its work.
    seconds = 0.1 if concurrency == 1 else 1
    agent = await direct_world.agent(a_capability(), concurrency=concurrency, workSeconds=seconds)
    started = [await direct_world.start(agent, echo_step("only")) for _ in range(9)]
    sessions = await asyncio.gather(*map(direct_world.finish, started))
    assert {session["status"] for session in sessions} == {"completed"}
    assert (agent.begun, agent.most_at_once) == (9, concurrency)
    tasks = [(await direct_world.tasks(session_id))[-1] for session_id in started]
    assert {task["attempt"] for task in tasks} == {1}
