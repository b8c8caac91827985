"""The services of docker-compose.yml do a whole workflow together.

Inside the compose network (`docker compose --profile tests run tests`) the running containers are
used; everywhere else the same commands are started as processes on loopback. The storage is the
one that the file chooses.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeVar

import httpx
import pytest

from tests.acceptance import compose
from tests.acceptance.processes import reserved_port

NETWORK_URL = "OPSCORE_TEST_NETWORK_URL"
VARIABLES = {
    "OPSCORE_API_KEY": "key-of-the-tests",
    "OPSCORE_WEBHOOK_SECRET": "secret-of-the-tests",
    "OPSCORE_RETENTION_DAYS": "3",
}
ENDED = {"completed", "failed", "cancelled", "timed_out"}
WORKFLOW = {
    "id": "network-brief",
    "name": "A brief by two agents",
    "tasks": [
        {"taskId": "gather", "agentCapability": "research", "parameters": {"topic": "tides"}},
        {
            "taskId": "write",
            "agentCapability": "writing",
            "parameters": {"notes": "${tasks.gather.result}"},
        },
    ],
}

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(180)]
Value = TypeVar("Value")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    url = os.environ.get(NETWORK_URL)
    if url is not None:
        with connected(url, os.environ["OPSCORE_API_KEY"]) as ready:
            yield ready
        return
    with ExitStack() as stack:
        ports = {name: stack.enter_context(reserved_port()) for name in compose.CONTAINER_PORTS}
        folder = tmp_path_factory.mktemp("network")
        wanted = compose.services(compose.ROOT / "docker-compose.yml", VARIABLES, ports, folder)
        processes = stack.enter_context(compose.running(wanted, folder))
        url = f"http://127.0.0.1:{ports['opscore']}"
        yield stack.enter_context(connected(url, VARIABLES["OPSCORE_API_KEY"]))
        assert compose.stop(processes["opscore"]) == 0


def connected(url: str, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"{url}/v1/opscore", headers=headers, trust_env=False)


def eventually(look: Callable[[], Value], good: Callable[[Value], bool]) -> Value:
    deadline = time.monotonic() + 60
    while not good(seen := look()):
        assert time.monotonic() < deadline, f"not within 60 s; last seen: {seen}"
        time.sleep(0.1)
    return seen


def agents_by_name(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("agents").raise_for_status().json()
    return {agent["agentName"]: agent for agent in answer["items"]}


def test_agents_arrive_through_agentkit_and_share_a_workflow(client: httpx.Client) -> None:
    agents = eventually(
        lambda: agents_by_name(client), lambda seen: {"research", "writer"} <= seen.keys()
    )
    trigger = client.post(
        f"agent/{agents['research']['agentId']}/workflow",
        json={"workflowDefinition": WORKFLOW, "initialPayload": {"topic": "tides"}},
    )
    assert trigger.status_code == 202, trigger.text
    path = f"session/{trigger.json()['sessionId']}"

    session = eventually(
        lambda: client.get(path).raise_for_status().json(), lambda seen: seen["status"] in ENDED
    )
    tasks = client.get(f"{path}/tasks").raise_for_status().json()["items"]
    assert session["status"] == "completed", session
    assert [task["agentId"] for task in reversed(tasks)] == [
        agents["research"]["agentId"],
        agents["writer"]["agentId"],
    ]


def test_the_key_is_asked_for(client: httpx.Client) -> None:
    answer = client.get("agents", headers={"Authorization": "Bearer wrong"})
    assert answer.status_code == 401


def test_the_storage_outlives_the_container(client: httpx.Client) -> None:
    health = client.get(client.base_url.copy_with(path="/health")).raise_for_status().json()
    assert health["storage"]["durable"] is True
