"""Whole workflows through every way a task can take, and through every way it can fail to."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opscore.simulators.agent import SimulatedAgent
from tests.acceptance.processes import OnStorage, eventually, service, service_on_each_storage
from tests.acceptance.world import World, echo_step, sent_to, world_around

pytestmark = pytest.mark.acceptance

QUICK_RETRY = {"backoff": "fixed", "initialDelay": 0.1, "maxDelay": 0.1, "jitter": False}
NO_RETRY = {"maxRetries": 0}
# Long for a sign of life on a busy machine, and short for whoever waits for one that never comes.
START_TIMEOUT = 1.5
PROBE_INTERVAL = 3


@pytest.fixture(scope="session")
def at_agentkit(kit_port: int) -> dict[str, str]:
    return {"AGENTKIT_API_URL": f"http://127.0.0.1:{kit_port}"}


@pytest.fixture(scope="module")
def in_mode_agentkit(
    tmp_path_factory: pytest.TempPathFactory, at_agentkit: dict[str, str]
) -> Iterator[OnStorage]:
    settings = {**at_agentkit, "OPSCORE_DISPATCH_MODE": "agentkit"}
    with service_on_each_storage(tmp_path_factory.mktemp("agentkit-mode"), settings) as services:
        yield services


@pytest.fixture
async def world(
    in_mode_agentkit: OnStorage, storage_kind: str, kit_port: int
) -> AsyncIterator[World]:
    """In mode agentkit."""
    async with world_around(in_mode_agentkit(storage_kind), kit_port) as world:
        yield world


async def three_agents(world: World) -> list[SimulatedAgent]:
    """None is quicker than AgentKit's answer, which tells a task which way it went."""
    capabilities = ("gather", "weigh", "write")
    return [await world.agent(capability, workSeconds=0.3) for capability in capabilities]


def three_steps() -> list[dict[str, Any]]:
    """Each step works with what the one before it found."""
    return [
        echo_step("first", "gather") | {"parameters": {"value": "${input.topic}"}},
        echo_step("second", "weigh")
        | {"parameters": {"value": "${tasks.first.result.echo.value} weighed"}},
        echo_step("third", "write")
        | {"parameters": {"value": "${tasks.second.result.echo.value} and written"}},
    ]


async def run_three_steps(world: World, agents: list[SimulatedAgent]) -> list[Any]:
    """The tasks of a whole workflow that has worked out as it should."""
    session = await world.run(agents[0], *three_steps(), topic="tides")
    assert session["status"] == "completed", session
    assert session["output"] == {"echo": {"value": "tides weighed and written"}}
    tasks = await world.tasks(session["sessionId"])
    assert [task["stepId"] for task in tasks] == ["first", "second", "third"]
    assert [task["agentId"] for task in tasks] == [agent.agent_id for agent in agents]
    return tasks


def ways(tasks: list[Any]) -> list[str]:
    return [task["via"] for task in tasks]


def seconds(task: Any, since: str, until: str) -> float:
    ended, began = datetime.fromisoformat(task[until]), datetime.fromisoformat(task[since])
    return (ended - began).total_seconds()


# --- ways ----------------------------------------------------------------------------------------


async def test_through_an_agentkit_that_forwards(world: World) -> None:
    kit = await world.agentkit()
    agents = await three_agents(world)
    tasks = await run_three_steps(world, agents)
    assert ways(tasks) == ["agentkit"] * 3
    assert [task["attempt"] for task in tasks] == [1, 1, 1]
    assert len(sent_to(kit)) == 3


async def test_F36_in_mode_auto_an_agentkit_that_loses_every_forward_is_found_out(
    tmp_path: Path, kit_port: int, at_agentkit: dict[str, str], storage_url: str
) -> None:
    """Only the first task waits, and one at each probe; a mended AgentKit is noticed."""
    settings = {
        **at_agentkit,
        "OPSCORE_STORAGE_URL": storage_url,
        "OPSCORE_START_TIMEOUT": START_TIMEOUT,
        "OPSCORE_PROBE_INTERVAL": PROBE_INTERVAL,
    }
    with service(tmp_path, settings) as running:
        async with world_around(running, kit_port) as world:
            kit = await world.agentkit(forwarding="loses")
            agents = await three_agents(world)
            first, *following = await run_three_steps(world, agents)
            assert len(sent_to(kit)) == 1
            assert (first["via"], first["attempt"], first["retries"]) == ("direct", 2, 0)
            waited = [seconds(task, "createdAt", "dispatchedAt") for task in (first, *following)]
            assert START_TIMEOUT <= waited[0] <= START_TIMEOUT + 2
            assert ways(following) == ["direct"] * 2
            assert max(waited[1:]) < START_TIMEOUT
            assert await world.forwards() == "disproved"
            assert "its forwards do not reach agents" in running.process.said

            async def probes_after_another_run() -> int:
                assert (await world.run(agents[0], echo_step("only")))["status"] == "completed"
                return len(sent_to(kit)) - 1

            await eventually(probes_after_another_run, lambda probes: probes == 1)
            assert await world.forwards() == "disproved"

            await world.mend(forwarding="works")
            await eventually(probes_after_another_run, lambda probes: probes == 2)
            assert await world.forwards() == "proved"
            assert ways(await run_three_steps(world, agents)) == ["agentkit"] * 3


async def test_in_mode_direct_nobody_needs_agentkit(direct_world: World) -> None:
    agents = await three_agents(direct_world)
    assert ways(await run_three_steps(direct_world, agents)) == ["direct"] * 3
    assert [len(sent_to(agent)) for agent in agents] == [1, 1, 1]


# --- AgentKit is away ----------------------------------------------------------------------------


async def test_F23_F38_tasks_wait_for_an_agentkit_that_is_down_and_none_is_lost(
    tmp_path: Path, kit_port: int, at_agentkit: dict[str, str], storage_url: str
) -> None:
    settings = {
        **at_agentkit,
        "OPSCORE_STORAGE_URL": storage_url,
        "OPSCORE_DISPATCH_MODE": "agentkit",
    }
    with service(tmp_path, settings) as running:
        async with world_around(running, kit_port) as world:
            async with world.agentkit_for_a_while() as kit:
                agents = [await world.agent("gather", workSeconds=0.02) for _ in range(3)]
                known = dict(kit.agents)
            step = echo_step("only", "gather", retry=QUICK_RETRY)
            urgent = echo_step("only", "gather", retry=QUICK_RETRY, priority=9)
            started = [await world.start(agents[0], step) for _ in range(20)]
            waiting = await world.task_waiting(started[-1], "breaker_open")
            assert "AgentKit failed several times" in waiting["pendingReason"]["message"]
            started += [await world.start(agents[0], urgent) for _ in range(5)]
            # Now and then one of them is under way, to find out whether AgentKit is back.
            ready = await eventually(
                world.ready, lambda ready: ready["tasksWaiting"] == len(started)
            )
            assert ready["agentkitBreakerOpenUntil"] is not None

            kit = await world.agentkit()
            kit.agents.update(known)
            sessions = await asyncio.gather(*map(world.finish, started))
            assert {session["status"] for session in sessions} == {"completed"}
            tasks = [(await world.tasks(session_id))[-1] for session_id in started]
            assert {task["retries"] for task in tasks} == {0}
            assert [agent.most_at_once for agent in agents] == [1, 1, 1]
            assert sorted(body["opscore_task_id"] for body in sent_to(kit)) == sorted(
                task["taskId"] for task in tasks
            )


# --- AgentKit refuses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "retry_after", "retries"),
    [
        pytest.param(429, 1, 0, id="F27-429"),
        pytest.param(503, 1, 0, id="F26-503 with Retry-After"),
        pytest.param(500, None, 1, id="F26-500"),
        pytest.param(502, None, 1, id="F26-502"),
        pytest.param(503, None, 1, id="F26-503"),
        pytest.param(504, None, 1, id="F26-504"),
    ],
)
async def test_F26_F27_a_refused_task_is_sent_again(
    world: World, status: int, retry_after: int | None, retries: int
) -> None:
    """What Retry-After asks for is waited for, and then costs no retry."""
    kit = await world.agentkit()
    agent = await world.agent("gather")
    await world.mend(failRate=1, failStatus=status, retryAfter=retry_after)
    patient = QUICK_RETRY | {"initialDelay": 0.5, "maxDelay": 0.5}
    session_id = await world.start(agent, echo_step("only", retry=patient))
    await eventually(lambda: world.events(session_id, "task.retry"), bool)
    kit.behaviour.fail_rate = 0
    assert (await world.finish(session_id))["status"] == "completed"
    [failed] = await world.events(session_id, "task.attempt_failed")
    assert failed["data"]["status"] == status
    [retry] = await world.events(session_id, "task.retry")
    wait = datetime.fromisoformat(retry["data"]["until"]) - datetime.fromisoformat(retry["at"])
    assert wait.total_seconds() == pytest.approx(retry_after or 0.5, abs=0.01)
    [task] = await world.tasks(session_id)
    assert (task["attempt"], task["retries"]) == (2, retries)
    first, second = sent_to(kit)
    assert first["opscore_task_id"] == second["opscore_task_id"] == task["taskId"]
    assert [first["payload"]["attempt"], second["payload"]["attempt"]] == [1, 2]


# It takes 5 s; other delays are kept by every storage above.
@pytest.mark.storages("memory")
async def test_F30_an_agent_that_agentkit_has_forgotten_is_asked_for_again(world: World) -> None:
    kit = await world.agentkit()
    agent = await world.agent("gather")
    known = dict(kit.agents)
    kit.agents.clear()
    session_id = await world.start(agent, echo_step("only"))
    waiting = await world.task_waiting(session_id, "retry_delayed")
    assert waiting["error"]["code"] == "agent_unknown"
    assert waiting["retries"] == 0
    assert seconds(waiting, "waitingSince", "delayedUntil") == pytest.approx(5, abs=0.01)
    assert "attempt 2" in waiting["pendingReason"]["message"]
    kit.agents.update(known)
    assert (await world.finish(session_id))["status"] == "completed"
    assert (await world.tasks(session_id))[0]["attempt"] == 2


# --- silence and noise ---------------------------------------------------------------------------


async def test_F36_accepted_then_silence_ends_at_the_start_deadline(world: World) -> None:
    await world.agentkit()
    agent = await world.agent("gather", silent=True)
    step = echo_step(
        "only", startTimeout=0.5, retry=QUICK_RETRY | {"maxRetries": 1}, fallback={"result": "none"}
    )
    session = await world.run(agent, step)
    assert (session["status"], session["output"]) == ("completed", "none")
    failed = await world.events(session["sessionId"], "task.attempt_failed")
    assert [event["data"]["code"] for event in failed] == ["start_timeout"] * 2
    accepted = await world.events(session["sessionId"], "task.accepted")
    for before, after in zip(accepted, failed, strict=True):
        silent_for = datetime.fromisoformat(after["at"]) - datetime.fromisoformat(before["at"])
        assert timedelta(seconds=0.5) <= silent_for <= timedelta(seconds=2.5)


async def test_F36_accepted_then_silence_without_a_start_deadline_ends_at_the_run_deadline(
    world: World,
) -> None:
    await world.agentkit(forwarding="loses")
    agent = await world.agent("gather")
    session = await world.run(agent, echo_step("only", timeout=0.5, retry=NO_RETRY))
    assert (session["status"], session["error"]["code"]) == ("failed", "run_timeout")
    [task] = await world.tasks(session["sessionId"])
    assert task["status"] == "timed_out"
    assert 0.5 <= seconds(task, "dispatchedAt", "endedAt") <= 2.5


async def test_F37_heartbeats_do_not_move_the_run_deadline(world: World) -> None:
    kit = await world.agentkit()
    agent = await world.agent("gather", style="precise", workSeconds=30, heartbeatSeconds=0.05)
    session_id = await world.start(agent, echo_step("only", timeout=2, retry=NO_RETRY))
    beaten = await world.task_where(session_id, status="running", progress={"working": True})
    session = await world.finish(session_id)
    assert (session["status"], session["error"]["code"]) == ("failed", "run_timeout")
    [task] = await world.tasks(session_id)
    assert task["status"] == "timed_out"
    assert task["heartbeatAt"] is None or task["heartbeatAt"] >= beaten["heartbeatAt"]
    assert 2 <= seconds(task, "dispatchedAt", "endedAt") <= 4

    async def last_word() -> str:
        return str(sent_to(kit)[-1]["messageType"])

    await eventually(last_word, lambda word: word == "task_cancel")


# --- tools ---------------------------------------------------------------------------------------


def tool_step(name: str, **arguments: Any) -> dict[str, Any]:
    return {
        "taskId": "tool",
        "messageType": "tool_invocation",
        "toolName": name,
        "parameters": arguments,
        "retry": NO_RETRY,
    }


async def test_a_tool_answers_at_once_and_the_workflow_goes_on_with_its_result(
    world: World,
) -> None:
    kit = await world.agentkit()
    agent = await world.agent("gather")
    after = {"taskId": "after", "parameters": {"sum": "${tasks.tool.result}"}}
    session = await world.run(agent, tool_step("mock_tool", a=1, b=2), after)
    assert session["status"] == "completed", session
    assert session["output"] == {"echo": {"sum": 3}}
    call = sent_to(kit)[0]
    assert call["messageType"] == "tool_invocation"
    assert call["payload"]["tool_name"] == "mock_tool"
    assert call["payload"]["arguments"] == {"a": 1, "b": 2}
    assert len(sent_to(agent)) == 1


@pytest.mark.parametrize(
    ("step", "code", "status", "words"),
    [
        pytest.param(tool_step("mock_tool", a=-1, b=2), "tool_error", 202, "neg", id="F31-error"),
        pytest.param(tool_step("broken_tool"), "tool_error", 500, "500", id="F26-broken"),
        pytest.param(
            tool_step("unreachable_tool"), "tool_error", 503, "reached", id="F26-unreachable"
        ),
        pytest.param(tool_step("slow_tool"), "tool_error", 504, "in time", id="F26-slow"),
        pytest.param(tool_step("no_such_tool"), "rejected", 404, "toolName", id="unknown"),
    ],
)
async def test_F31_a_tool_that_fails_fails_its_task(
    world: World, step: dict[str, Any], code: str, status: int, words: str
) -> None:
    await world.agentkit()
    agent = await world.agent("gather")
    session = await world.run(agent, step)
    assert session["status"] == "failed"
    assert session["error"]["code"] == code
    assert session["error"]["status"] == status
    assert words in session["error"]["message"]
    assert (await world.ready())["agentkitBreakerOpenUntil"] is None
