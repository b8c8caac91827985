"""The agents on the page "Agent protocol" do what the page says."""

import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.acceptance.processes import clean_environment, eventually, process, reserved_port
from tests.acceptance.world import World

pytestmark = pytest.mark.acceptance

PAGE = Path(__file__).parents[2] / "docs/reference/agent-protocol.md"
NO_RETRY = {"maxRetries": 0}


def program(language: str, folder: Path) -> Path:
    """The whole agent of that language, as it stands on the page."""
    [text] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    path = folder / f"agent-{language}"
    path.write_text(text, "utf-8")
    path.chmod(0o700)
    return path


def environment(world: World, port: int) -> dict[str, str]:
    return {
        "OPSCORE_API_URL": world.service.url,
        "OPSCORE_API_KEY": world.service.key,
        "AGENT_PORT": str(port),
    }


@contextmanager
def inetd(command: Path, env: dict[str, str]) -> Iterator[int]:
    """Start the command for each connection, as inetd does; the port."""
    children: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                ends = connection.fileno()
                children.append(
                    subprocess.Popen(
                        [command], stdin=ends, stdout=ends, env=clean_environment() | env
                    )
                )

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve)
        serving.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join()
            for child in children:
                child.wait(60)


async def run(world: World, capability: str, parameters: dict[str, Any], **step: Any) -> Any:
    """A workflow of one step; its session once it has ended."""
    task = {"taskId": "one", "agentCapability": capability, "parameters": parameters, **step}
    definition = {"id": f"flow-{uuid4().hex[:8]}", "tasks": [task]}
    started = await world.post("sessions", {"workflowDefinition": definition})
    return await world.finish(started["sessionId"])


@pytest.fixture
async def greeter(direct_world: World, tmp_path: Path) -> AsyncIterator[World]:
    with reserved_port() as port:
        command = (sys.executable, str(program("python", tmp_path)))
        env = environment(direct_world, port)
        with process("agent.py", tmp_path, *command, env=env):
            await eventually(
                lambda: direct_world.get("agents", capability="greeting"),
                lambda agents: any(
                    f":{port}/" in agent["contactEndpoint"] for agent in agents["items"]
                ),
            )
            yield direct_world


async def test_the_python_agent_greets(greeter: World) -> None:
    session = await run(greeter, "greeting", {"name": "Ada"})
    assert (session["status"], session["output"]) == ("completed", {"text": "Hello, Ada"})
    [task] = await greeter.tasks(session["sessionId"])
    assert (task["attempt"], task["agentId"]) == (1, "greeter-1")


async def test_the_python_agent_says_why_it_failed(greeter: World) -> None:
    session = await run(greeter, "greeting", {"name": ""}, retry=NO_RETRY)
    assert (session["status"], session["error"]["message"]) == ("failed", "Nobody to greet.")


async def test_the_python_agent_does_no_task_twice(greeter: World) -> None:
    session = await run(greeter, "greeting", {"name": "Ada"})
    [task] = await greeter.tasks(session["sessionId"])
    agent = await greeter.get("agent/greeter-1")
    message = {
        "messageType": "workflow_task",
        "opscore_task_id": task["taskId"],
        "payload": {"attempt": 2, "task_parameters": {"name": "Ada"}},
    }
    for kind in ("workflow_task", "task_cancel"):
        answer = await greeter.http.post(
            agent["contactEndpoint"], json={**message, "messageType": kind}
        )
        assert answer.status_code == 202
    late = await eventually(
        lambda: greeter.events(session["sessionId"], "task.late"), lambda events: bool(events)
    )
    assert {event["data"]["said"] for event in late} == {"completed"}


async def test_the_shell_agent_counts(direct_world: World, tmp_path: Path) -> None:
    script = program("bash", tmp_path)
    with inetd(script, environment(direct_world, 0)) as port:
        card = {
            "agentId": "counter-1",
            "agentName": "counter",
            "capabilities": ["counting"],
            "contactEndpoint": f"http://127.0.0.1:{port}/task",
        }
        await direct_world.post("agents", card)
        session = await run(direct_world, "counting", {"text": "four words are here"})
        assert (session["status"], session["output"]) == ("completed", {"words": 4})
        session = await run(direct_world, "counting", {}, retry=NO_RETRY)
        assert (session["status"], session["error"]["message"]) == ("failed", "There is no text.")
        await direct_world.http.delete("/v1/opscore/agent/counter-1")
