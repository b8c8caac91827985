"""An AgentKit, an agent and clients around a service that dies again and again.

They are patient: whatever is not acknowledged is sent again until it is.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from opscore.simulators.agentkit import SimulatedAgentKit
from opscore.simulators.running import running
from opscore.simulators.webhook import send_webhook
from tests.acceptance.processes import eventually, plain_client
from tests.load.chaos_record import Ack, Post, Record, Work, post_of
from tests.load.chaos_workflows import CAPABILITIES, WORKFLOWS, definition

API = "/v1/opscore"
MAIN = "main-agent"
SECRET = "secret-of-the-crash-tests"
KEY = "crash-key-of-the-tests"
AGAIN = (503,)
ONE_STEP = {"taskId": "one", "timeout": 1, "retry": {"maxRetries": 0}}
ENDLESS = {"id": "endless", "timeout": 2, "tasks": [ONE_STEP]}
FOR_NOBODY = {"id": "for-nobody", "timeout": 2, "tasks": [ONE_STEP]}
OPEN = ("pending", "running", "waiting")
_PAUSE = 0.04
_TRY_ANYWAY = 0.5
_PAGE = 200
_FAILS_EVERY = 10

Stimulus = Callable[["CrashWorld"], Awaitable[None]]


class CrashWorld:
    def __init__(self, http: httpx.AsyncClient, kit: SimulatedAgentKit) -> None:
        self.http = http
        self.kit = kit
        self.endpoint = ""
        self.sent: list[str] = []
        self.acks: list[Ack] = []
        self.counted: list[str] = []
        self.worked: set[str] = set()
        self.ledger: list[Work] = []
        self._at_work: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.app = Starlette(routes=[Route("/task", self._take, methods=["POST"])])
        # Set by whoever has seen the service alive: it spares the others thousands of tries.
        self._up = asyncio.Event()
        self._posts: list[Post] = []
        self._posts_seen = 0
        self._tasks = 0
        self._names = 0

    # --- asking ---------------------------------------------------------------------------

    async def ask(self, method: str, path: str, *fine: int, **given: Any) -> httpx.Response | None:
        """The answer, None when there was none. Only a success or a `fine` status is right."""
        try:
            answer = await self.http.request(method, f"{API}/{path}", **given)
        except httpx.TransportError:
            self._up.clear()
            return None
        if answer.status_code in AGAIN:
            return None
        assert answer.is_success or answer.status_code in fine, (path, answer.text)
        return answer

    async def insist(self, method: str, path: str, *fine: int, **given: Any) -> httpx.Response:
        """Ask until there is an answer, however many lives that takes."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TRY_ANYWAY):
                    await self._up.wait()
            answer = await self.ask(method, path, *fine, **given)
            if answer is not None:
                return answer
            await asyncio.sleep(_PAUSE)

    # --- being the agent ------------------------------------------------------------------

    async def announce(self) -> httpx.Response | None:
        """Also brings it back where it was counted as lost."""
        body = {
            "agentId": MAIN,
            "agentName": MAIN,
            "capabilities": list(CAPABILITIES),
            "contactEndpoint": self.endpoint,
            "concurrency": 50,
        }
        answer = await self.ask("POST", "agents", json=body)
        if answer is not None:
            self._up.set()
        return answer

    async def _take(self, request: Request) -> Response:
        message = await request.json()
        if message["messageType"] == "workflow_task":
            work = asyncio.create_task(self._work(message))
            self._at_work.add(work)
            work.add_done_callback(self._worked)
        return JSONResponse({"status": "accepted"}, 202)

    def _worked(self, work: asyncio.Task[None]) -> None:
        self._at_work.discard(work)
        if not work.cancelled() and (error := work.exception()) is not None:
            self._failures.append(error)

    def check(self) -> None:
        """Raise what went wrong while nobody waited for it."""
        if self._failures:
            raise self._failures[0]

    async def stop(self) -> None:
        for work in self._at_work:
            work.cancel()
        await asyncio.gather(*self._at_work, return_exceptions=True)

    async def _work(self, message: dict[str, Any]) -> None:
        self._tasks += 1
        task, attempt = message["opscore_task_id"], message["payload"]["attempt"]
        if message["payload"]["workflow_id"] == ENDLESS["id"]:
            await self.insist("POST", f"session/{message['opscore_session_id']}/cancel", 404, 409)
            return
        result = {"echo": message["payload"]["task_parameters"]}
        reports, fails = self._tasks % 2 == 1, self._tasks % _FAILS_EVERY == 0
        self.ledger.append(Work(MAIN, task, attempt, succeeded=not fails))
        if reports:
            await self._report(task, attempt, "active")
            await self._report(task, attempt, "finished", result=result)
        else:
            await self._tell(task, attempt, result, fails)
        self.worked.add(message["opscore_session_id"])

    async def _report(self, task: str, attempt: int, state: str, **details: Any) -> None:
        told = {"opscore_task_id": task, "attempt": attempt, **details}
        body = {"agentId": MAIN, "state": state, "details": told}
        await self.insist("POST", f"agent/{MAIN}/state", json=body)

    async def _tell(self, task: str, attempt: int, result: Any, fails: bool) -> None:
        heartbeat = {"progress": 0.5, "attempt": attempt}
        await self.insist("POST", f"task/{task}/heartbeat", 404, json=heartbeat)
        body = {"status": "failed" if fails else "completed", "attempt": attempt}
        body["error" if fails else "result"] = "told to fail" if fails else result
        answer = await self.insist("POST", f"task/{task}/result", 404, json=body)
        if not fails and answer.is_success and answer.json()["counted"]:
            self.counted.append(task)

    # --- being the clients ----------------------------------------------------------------

    async def save_workflows(self) -> None:
        for document in (*map(definition, WORKFLOWS), ENDLESS, FOR_NOBODY):
            await self.insist("POST", "workflows", json=document)

    async def trigger(self) -> None:
        """Start the next session, with a key."""
        self.sent.append(f"trigger-{len(self.sent)}")
        await self._send(self.sent[-1])

    async def repeat(self) -> None:
        """Send what was not acknowledged again."""
        acked = {ack.key for ack in self.acks}
        for key in self.sent:
            if key not in acked:
                await self._send(key)

    async def _send(self, key: str) -> None:
        names = list(WORKFLOWS)
        workflow = names[int(key.rpartition("-")[2]) % len(names)]
        body = {"workflowDefinitionId": workflow, "initialPayload": {"key": key}}
        headers = {"Idempotency-Key": key}
        # 409: the same request is still at work, for its first sender only lost patience.
        path = f"agent/{MAIN}/workflow"
        answer = await self.ask("POST", path, 409, json=body, headers=headers)
        if answer is not None and answer.is_success:
            self.acks.append(Ack(key, answer.json()["sessionId"]))

    def name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}-{self._names}"

    # --- looking --------------------------------------------------------------------------

    async def settle(self, within: float) -> None:
        """Return when all that was begun has ended."""
        await eventually(self._has_settled, bool, within)

    async def _has_settled(self) -> bool:
        self.check()
        await self.announce()
        await self.repeat()
        if len({ack.key for ack in self.acks}) < len(self.sent):
            return False
        for status in OPEN:
            page = await self.insist("GET", "sessions", params={"status": status, "limit": 1})
            if page.json()["items"]:
                return False
        return not self._at_work

    async def pages(self, what: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": _PAGE}
        while True:
            page = (await self.insist("GET", what, params=query)).json()
            items += page["items"]
            query["cursor"] = page["nextCursor"]
            if not page["items"] or query["cursor"] is None:
                return items

    async def record(self) -> Record:
        """All that has to be true of it is what the checker of chaos runs looks for."""
        self.note_posts()
        stored = await self.pages("sessions")
        sessions = [one for one in stored if one["workflowId"] in WORKFLOWS]
        others = {one["sessionId"] for one in stored if one["workflowId"] not in WORKFLOWS}
        tasks = [one for one in await self.pages("tasks") if one["sessionId"] not in others]
        return Record(
            sent=self.sent,
            acks=self.acks,
            counted=self.counted,
            posts=[post for post in self._posts if post.session_id not in others],
            worked=self.ledger,
            sessions=sessions,
            tasks=tasks,
            events=await self.pages("events"),
        )

    def note_posts(self) -> None:
        """The simulator keeps the newest only, so they are read while they come."""
        entries = self.kit.received.after(self._posts_seen)
        assert self.kit.received.total == self._posts_seen + len(entries), "some have gone"
        self._posts_seen = self.kit.received.total
        for entry in entries:
            if isinstance(entry.body, dict) and "messageType" in entry.body:
                self._posts.append(post_of(entry.agent_id, entry.body))


# --- stimuli ------------------------------------------------------------------------------------


async def nothing(world: CrashWorld) -> None:
    """The usual traffic is enough."""


async def start_endless(world: CrashWorld) -> None:
    """A session that its agent has cancelled."""
    await world.ask("POST", f"agent/{MAIN}/workflow", json={"workflowDefinitionId": "endless"})


async def report_early(world: CrashWorld) -> None:
    ghost = world.name("ghost")
    body = {"agentId": ghost, "state": "idle"}
    await world.ask("POST", f"agent/{ghost}/state", 404, json=body)


async def announce_by_webhook(world: CrashWorld) -> None:
    body = {
        "event_type": "REGISTER",
        "agent_details": {"agentId": world.name("hook"), "agentName": "h", "capabilities": []},
    }
    await send_webhook(world.http, f"{API}/internal/agent/notify", SECRET, body)


async def change_agent(world: CrashWorld) -> None:
    body = {"metadata": {"n": world.name("change")}}
    await world.ask("PATCH", f"agent/{MAIN}", 404, json=body)


async def deregister(world: CrashWorld) -> None:
    """An agent goes while tasks wait for it: it is at fault and gets none."""
    agent = world.name("leaver")
    await world.ask("POST", "agents", json={"agentId": agent, "agentName": agent})
    body = {"agentId": agent, "state": "error"}
    await world.ask("POST", f"agent/{agent}/state", 404, json=body)
    start = {"workflowDefinitionId": FOR_NOBODY["id"]}
    for _ in range(3):
        await world.ask("POST", f"agent/{agent}/workflow", 404, json=start)
    await world.ask("DELETE", f"agent/{agent}", 404)


async def save_and_delete(world: CrashWorld) -> None:
    document = {"id": "scratch", "description": world.name("text"), "tasks": [ONE_STEP]}
    await world.ask("POST", "workflows", json=document)
    await world.ask("DELETE", "workflow/scratch", 404)


@asynccontextmanager
async def crash_world(url: str, kit_port: int) -> AsyncIterator[CrashWorld]:
    kit = SimulatedAgentKit(client=plain_client())
    async with running(kit.app, port=kit_port) as kit_url, plain_client() as http:
        http.base_url = httpx.URL(url)
        http.headers["Authorization"] = f"Bearer {KEY}"
        world = CrashWorld(http, kit)
        async with running(world.app) as agent_url:
            world.endpoint = f"{agent_url}/task"
            registration = {
                "agentName": secrets.token_hex(4),
                "capabilities": [],
                "version": "1",
                "contactEndpoint": world.endpoint,
            }
            await http.post(f"{kit_url}/v1/agents/register", json=registration)
            (known,) = kit.agents.values()
            kit.agents[MAIN] = known
            try:
                yield world
            finally:
                await world.stop()
