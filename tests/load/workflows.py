"""Whole workflows: triggered over HTTP, carried to agents, reported finished, step by step."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import cycle

from tests.load.asking import ask, register
from tests.load.bare_app import KEY
from tests.load.http_parts import request
from tests.load.load_client import Bound, load
from tests.load.servers import free_port, opscore, stub_agents

AGENTS = 256
_SLOTS = 10
STEPS = 3
_TRIGGERS_AT_ONCE = 32
_PATIENCE = 120.0
_WORKFLOW = {"id": "bench", "tasks": [{"taskId": f"step-{n}"} for n in range(STEPS)]}


def workflows_per_second(
    storage_url: str, sessions: int, replicas: int = 1, wait: float = 0, **more: str
) -> float:
    """How many three-step workflows are finished a second, from the first trigger to the last."""
    kit = free_port()
    settings = {
        "AGENTKIT_API_URL": f"http://127.0.0.1:{kit}",
        "OPSCORE_DISPATCH_MODE": "agentkit",
        "OPSCORE_STORAGE_URL": storage_url,
        "OPSCORE_LOG_LEVEL": "WARNING",
        **more,
    }
    with ExitStack() as running:
        ports = [running.enter_context(opscore(**settings))[0] for _ in range(replicas)]
        running.enter_context(stub_agents(kit, *ports, wait=wait))
        for number in range(AGENTS):
            register(ports[0], f"agent-{number}", concurrency=_SLOTS)
        ask(ports[0], "POST", "/v1/opscore/workflows", _WORKFLOW)
        started = time.monotonic()
        _trigger(ports, sessions)
        return sessions / (_finished(kit, sessions * STEPS) - started)


def _trigger(ports: Sequence[int], sessions: int) -> None:
    body = b'{"workflowDefinitionId": "bench", "initialPayload": {"topic": "tides"}}'
    requests = cycle(
        [
            request("POST", f"/v1/opscore/agent/agent-{number}/workflow", body, KEY)
            for number in range(AGENTS)
        ]
    )
    bound = Bound(_PATIENCE, sessions)
    tally = load(ports, lambda _: next(requests), _TRIGGERS_AT_ONCE, bound)
    if tally.answered != sessions:
        raise RuntimeError(f"{tally.failed} of {sessions} triggers failed")


def _finished(kit: int, tasks: int) -> float:
    """When the last task was reported finished."""
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        seen = ask(kit, "GET", "/")
        if seen["done"] >= tasks:
            return float(seen["last"])
        time.sleep(0.05)
    raise RuntimeError(f"only {seen['done']} of {tasks} tasks were finished")
