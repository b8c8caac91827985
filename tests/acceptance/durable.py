"""What tests of durable storages share: empty storages, and an AgentKit that takes every task."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opscore.simulators.running import running
from tests.acceptance.processes import eventually
from tests.databases import fresh_database

API = "/v1/opscore"
KINDS = ("sqlite", "postgres")
AGENT = "a1"


@contextmanager
def empty_storage(kind: str, folder: Path) -> Iterator[str]:
    """The URL of a storage that nobody has opened yet."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/opscore.db"
        return
    with fresh_database() as url:
        yield url


def settings(storage: str, agentkit: str = "http://127.0.0.1:9", **more: str) -> dict[str, str]:
    return {
        "OPSCORE_STORAGE_URL": storage,
        "OPSCORE_DISPATCH_MODE": "agentkit",
        "AGENTKIT_API_URL": agentkit,
        "OPSCORE_API_KEY": "a-key-of-the-tests",
        **more,
    }


@dataclass
class Taken:
    """The tasks an AgentKit was given, each with the time it came."""

    url: str = ""
    messages: list[dict[str, Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    on_message: Callable[[dict[str, Any]], None] = lambda _: None
    first_answer: asyncio.Event | None = None
    """The answer to the first message waits for it."""

    @property
    def names(self) -> list[str]:
        return [message["task_name"] for message in self.messages]

    @property
    def attempts(self) -> list[tuple[str, int]]:
        return [(one["opscore_task_id"], one["payload"]["attempt"]) for one in self.messages]

    def time_of(self, name: str) -> float:
        return self.times[self.names.index(name)]

    async def until(self, count: int, within: float = 20) -> None:
        async def look() -> int:
            return len(self.messages)

        await eventually(look, lambda seen: seen >= count, within)


@asynccontextmanager
async def accepting() -> AsyncIterator[Taken]:
    """An AgentKit that takes every task and delivers none."""
    taken = Taken()

    async def run(request: Request) -> Response:
        message = await request.json()
        if message["messageType"] != "task_cancel":
            taken.messages.append(message)
            taken.times.append(time.time())
            taken.on_message(message)
            if taken.first_answer and len(taken.messages) == 1:
                await taken.first_answer.wait()
        return JSONResponse({"status": "success", "message": "taken", "data": {}}, 202)

    app = Starlette(routes=[Route("/v1/agents/{agent}/run", run, methods=["POST"])])
    async with running(app) as taken.url:
        yield taken


async def register(http: httpx.AsyncClient, **fields: Any) -> None:
    agent = {"agentId": AGENT, "agentName": "one", "capabilities": ["x"], **fields}
    assert (await http.post(f"{API}/agents", json=agent)).is_success


async def start(http: httpx.AsyncClient, *steps: dict[str, Any], key: str = "once") -> str:
    """The session's id."""
    body = {"workflowDefinition": {"id": "w", "tasks": list(steps)}, "initialPayload": {"n": 1}}
    headers = {"Idempotency-Key": key}
    answer = await http.post(f"{API}/agent/{AGENT}/workflow", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    session_id: str = answer.json()["sessionId"]
    return session_id


async def get(http: httpx.AsyncClient, path: str) -> Any:
    answer = await http.get(f"{API}/{path}")
    assert answer.is_success, answer.text
    return answer.json()


async def tasks_of(http: httpx.AsyncClient, session: str) -> dict[str, Any]:
    items = (await get(http, f"session/{session}/tasks"))["items"]
    assert len(items) == len({one["stepId"] for one in items})
    return {one["stepId"]: one for one in items}


async def task_of(http: httpx.AsyncClient, session: str, step: str) -> Any:
    return (await tasks_of(http, session)).get(step)


def is_accepted(task: Any) -> bool:
    return task is not None and task["acceptedAt"] is not None


async def tell(http: httpx.AsyncClient, task: str, attempt: int, **ending: Any) -> bool:
    """Say as the agent how a task ended; whether that counted."""
    body = {"status": "completed", "result": "done", "attempt": attempt, **ending}
    answer = await http.post(f"{API}/task/{task}/result", json=body)
    assert answer.is_success, answer.text
    counted: bool = answer.json()["counted"]
    return counted


async def finish(http: httpx.AsyncClient, session: str, step: str, **ending: Any) -> None:
    """Say as the agent how its task ended, well unless said otherwise, once it was accepted."""
    task = await eventually(lambda: task_of(http, session, step), is_accepted)
    assert await tell(http, task["taskId"], task["attempt"], **{"result": step, **ending})


async def completions(http: httpx.AsyncClient, session: str) -> list[str]:
    events = (await get(http, f"session/{session}/events"))["items"]
    return [one["data"]["stepId"] for one in events if one["type"] == "task.completed"]


async def ended(http: httpx.AsyncClient, session: str, within: float = 20) -> Any:
    return await eventually(
        lambda: get(http, f"session/{session}"),
        lambda one: one["status"] not in ("pending", "running", "waiting"),
        within,
    )


async def cut_off(request: Any) -> None:
    """The request gets no answer, for whoever would give it dies."""
    try:
        answer = await asyncio.wait_for(request, 10)
    except httpx.TransportError:
        return
    raise AssertionError(f"the service lived on and answered: {answer.text}")
