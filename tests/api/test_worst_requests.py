"""The costliest requests that are let through hold the event loop for a moment at most.

The processor time between two turns of the loop is measured: a busy machine does not add to it.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from opscore.workflow.references import MOST_REFERENCES
from tests.api.service import Service

pytestmark = [pytest.mark.fault("F108"), pytest.mark.storages("memory")]

# 0.25 s is the promise on an idle core; slower cores and shared ones get twice as long.
LONGEST_TURN = 0.5
# A session of the costliest definition starts in 50 ms on an idle core.
LONGEST_START = 0.15
MEBIBYTE = 1024 * 1024


class Turns:
    """Measures how long the loop works without a pause."""

    longest = 0.0

    @asynccontextmanager
    async def measured(self) -> AsyncIterator[None]:
        loop, running = asyncio.get_running_loop(), True
        before = time.thread_time()

        def turn() -> None:
            nonlocal before
            now = time.thread_time()
            self.longest = max(self.longest, now - before)
            before = now
            if running:
                loop.call_soon(turn)

        turn()
        try:
            yield
        finally:
            running = False
            await asyncio.sleep(0)


def encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def workflow(**parameters: Any) -> dict[str, Any]:
    return {"id": "w", "tasks": [{"taskId": "t", "parameters": parameters}]}


def nested(depth: int, inner: Any) -> Any:
    return inner if depth == 0 else [nested(depth - 1, inner)]


REFUSED: dict[str, Callable[[], bytes]] = {
    "100,000 references": lambda: encoded(workflow(x="${input.a}" * 100_000)),
    "19,000 texts with references": lambda: encoded(workflow(x=["${input.a}${input}"] * 19_000)),
    "300,000 escaped references": lambda: encoded(workflow(x="$${" * 300_000)),
    "300,000 tasks that are numbers": lambda: encoded({"id": "w", "tasks": [1] * 300_000}),
    "1,000 tasks of unknown fields": lambda: encoded(
        {"id": "w", "tasks": [{f"prioritys{n}": n for n in range(18)} for _ in range(1000)]}
    ),
    "half a million values": lambda: b"[" + b"1," * 500_000 + b"1]",
    "340,000 empty texts": lambda: b"[" + b'"",' * 340_000 + b'""]',
    "nesting of 63, 8,000 times": lambda: b"[" + (b"[" * 62 + b"]" * 62 + b",") * 8000 + b"1]",
    "200,000 open objects": lambda: b'{"a":' * 200_000,
    "170,000 equal names": lambda: b"{" + b'"k":1,' * 170_000 + b'"k":1}',
    "19,000 values with a long integer": lambda: b"[" + b"9" * 20 + b",1" * 19_000 + b"]",
    "a million backslashes": lambda: b'["' + b"\\" * 1_000_000 + b'"]',
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_definition_holds_the_loop_for_a_moment_only(
    service: Service, name: str
) -> None:
    body, turns = REFUSED[name](), Turns()
    assert len(body) <= 1.2 * MEBIBYTE
    async with turns.measured():
        answer = await service.call("POST", "workflows", content=body)
    assert answer.status_code == 422, answer.text
    assert turns.longest < LONGEST_TURN


def long_reference(number: int) -> str:
    """A reference of nearly 512 characters that leads 55 levels down, unlike every other one."""
    return "${input." + ".".join(["a" * 7] * 54) + f".k{number}}}"


def input_for_long_references() -> dict[str, Any]:
    value: Any = {f"k{number}": number for number in range(MOST_REFERENCES)}
    for _ in range(54):
        value = {"a" * 7: value}
    assert isinstance(value, dict)
    return value


ACCEPTED: dict[str, Callable[[], dict[str, Any]]] = {
    "1,000 long references in one text": lambda: workflow(
        x="".join(long_reference(n) for n in range(MOST_REFERENCES))
    ),
    "1,000 long references in 1,000 texts": lambda: workflow(
        x=[long_reference(n) for n in range(MOST_REFERENCES)]
    ),
    "1,000 references to all of the input": lambda: workflow(x=["${input.tiny}"] * MOST_REFERENCES),
    "19,900 values and 1,000 references": lambda: workflow(
        x=["${session.id}"] * MOST_REFERENCES + [1] * 18_900
    ),
    "340 times nested 58 deep with references": lambda: workflow(
        x=[nested(56, "${session.id}")] * 340
    ),
    "a text of nearly 1 MiB": lambda: workflow(x="${session.id}" + "x" * 1_000_000),
    "1,000 tasks in a row of fallbacks": lambda: {
        "id": "w",
        "tasks": [{"taskId": f"t{n}", "fallback": {"taskId": f"t{n + 1}"}} for n in range(999)]
        + [{"taskId": "t999"}],
    },
    "1,000 linked tasks with a reference each": lambda: {
        "id": "w",
        "tasks": [{"taskId": "t0", "nextTaskId": "t1"}]
        + [
            {
                "taskId": f"t{n}",
                "nextTaskId": f"t{n + 1}" if n < 999 else None,
                "retry": {"nonRetryable": [f"word-{n}"]},
                "parameters": {"x": f"${{tasks.t{n - 1}.result}}"},
            }
            for n in range(1, 1000)
        ],
    },
}


@pytest.mark.parametrize("name", ACCEPTED)
async def test_worst_accepted_definition_starts_a_session_quickly(
    service: Service, name: str
) -> None:
    definition, saving, starting = ACCEPTED[name](), Turns(), Turns()
    body = encoded(definition)
    assert len(body) <= MEBIBYTE
    payload = input_for_long_references() | {"tiny": 1}
    await service.register(concurrency=100)
    async with saving.measured():
        saved = await service.call("POST", "workflows", content=body)
    assert saved.status_code == 201, saved.text
    trigger = encoded({"workflowDefinitionId": "w", "initialPayload": payload})
    async with starting.measured():
        started = await service.call("POST", "agent/a1/workflow", content=trigger)
    assert started.status_code == 202, started.text
    assert saving.longest < LONGEST_TURN
    assert starting.longest < LONGEST_START


YAML: dict[str, bytes] = {
    "a list of 250,000": b"tasks:\n" + b"- 1\n" * 250_000,
    "a flow of half a million": b"[" + b"1," * 500_000 + b"1]",
    "90,000 names": b"".join(b"k%d: 1\n" % n for n in range(90_000)),
    "19,000 names": b"".join(b"k%d: 1\n" % n for n in range(19_000)),
    "100,000 references": b"id: w\ntasks:\n- taskId: t\n  parameters:\n    x: "
    + b"${i.a}" * 100_000,
    "half a million comments": b"#\n" * 500_000,
    "an open quote": b'a: "' + b"\\n" * 500_000,
}


@pytest.mark.parametrize("name", YAML)
async def test_refused_yaml_holds_the_loop_for_a_moment_only(service: Service, name: str) -> None:
    turns, headers = Turns(), {"Content-Type": "application/yaml"}
    async with turns.measured():
        answer = await service.call("POST", "workflows", content=YAML[name], headers=headers)
    assert answer.status_code == 422, answer.text
    assert turns.longest < LONGEST_TURN


MANY = {f"name{n}": n for n in range(4900)}
BODIES: dict[str, Any] = {
    "unknown fields": {f"name{n}": n for n in range(19_900)},
    "wrong items": {"capabilities": [1] * 9000, "tasks": [1] * 9000, "details": [1] * 900},
    "a list": [1] * 19_000,
    "metadata": {"agentName": "a", "metadata": MANY, "details": MANY, "result": MANY},
    "a deep one": {"metadata": [nested(58, 1)] * 330, "initialPayload": {"x": nested(58, 1)}},
}


@pytest.mark.parametrize("name", BODIES)
async def test_any_body_holds_the_loop_for_a_moment_only(service: Service, name: str) -> None:
    await service.register()
    session = await service.trigger()
    task = (await service.task(session))["taskId"]
    body, turns = encoded(BODIES[name]), Turns()
    for path in (
        "agents",
        "agent/a1/state",
        "agent/a1/workflow",
        "sessions",
        f"task/{task}/result",
        f"task/{task}/heartbeat",
        "workflows/validate",
    ):
        async with turns.measured():
            await service.call("POST", path, content=body)
    assert turns.longest < LONGEST_TURN
