"""kill -9 at the worst moments: what each of them must and must not lead to."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.durable import (
    AGENT,
    API,
    KINDS,
    Taken,
    accepting,
    completions,
    cut_off,
    ended,
    finish,
    get,
    is_accepted,
    register,
    settings,
    start,
    task_of,
    tasks_of,
    tell,
)
from tests.acceptance.lives import KILLED, Life, Lives, lives
from tests.acceptance.processes import (
    OPSCORE,
    Process,
    clean_environment,
    eventually,
    plain_client,
    process,
    reserved_port,
    service,
    wait_until_ready,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.storages(*KINDS)]

ONE: dict[str, Any] = {"taskId": "one", "retry": {"maxRetries": 0}}
TWO: dict[str, Any] = {"taskId": "two", "retry": {"maxRetries": 0}}
# A lease lasts 15 s; nobody waits for that of a process that is seen to be dead.
AGAIN_WITHIN = 5


def trigger(http: Any, *steps: Any) -> Any:
    body = {"workflowDefinition": {"id": "w", "tasks": list(steps)}, "initialPayload": {"n": 1}}
    headers = {"Idempotency-Key": "once"}
    return http.post(f"{API}/agent/{AGENT}/workflow", json=body, headers=headers)


def moment(task: Any, field: str) -> float:
    return datetime.fromisoformat(task[field]).timestamp()


async def end_of(one: Process) -> int:
    """Its exit status; the AgentKit of the test goes on answering meanwhile."""
    return await asyncio.to_thread(one.ended)


# --- triggers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["trigger.checked", "write.events-written:2"])
async def test_F1_killed_before_a_trigger_is_committed(
    storage: str, tmp_path: Path, point: str
) -> None:
    with service(tmp_path, settings(storage, OPSCORE_CRASH_POINT=point)) as first:
        async with first.client() as http:
            await register(http)
            await cut_off(trigger(http, ONE))
        assert await end_of(first.process) == KILLED
    with service(tmp_path, settings(storage)) as second:
        async with second.client() as http:
            assert (await get(http, "sessions"))["items"] == []
            session = await start(http, ONE)
            assert await start(http, ONE) == session
            assert [one["sessionId"] for one in (await get(http, "sessions"))["items"]] == [session]


async def test_F2_killed_after_the_commit_before_the_answer(storage: str, tmp_path: Path) -> None:
    env = settings(storage, OPSCORE_CRASH_POINT="trigger.committed")
    with service(tmp_path, env) as first:
        async with first.client() as http:
            await register(http)
            await cut_off(trigger(http, ONE))
        assert await end_of(first.process) == KILLED
    with service(tmp_path, settings(storage)) as second:
        async with second.client() as http:
            (made,) = (await get(http, "sessions"))["items"]
            assert await start(http, ONE) == made["sessionId"]
            assert len((await get(http, "sessions"))["items"]) == 1
            assert list(await tasks_of(http, made["sessionId"])) == ["one"]


# --- messages -----------------------------------------------------------------------------------


async def test_F3_killed_between_claim_and_post(storage: str, tmp_path: Path) -> None:
    async with accepting() as taken:
        env = settings(storage, taken.url, OPSCORE_CRASH_POINT="claim.taken")
        with service(tmp_path, env) as first:
            async with first.client() as http:
                await register(http)
                await start(http, ONE)
            assert await end_of(first.process) == KILLED
        assert taken.messages == []
        with service(tmp_path, settings(storage, taken.url)) as second:
            booted = time.monotonic()
            await taken.until(1, AGAIN_WITHIN + 5)
            assert time.monotonic() - booted <= AGAIN_WITHIN
            async with second.client() as http:
                session = taken.messages[0]["opscore_session_id"]
                # With no retry to spend, one that counted would have failed the session.
                await finish(http, session, "one")
                task = await task_of(http, session, "one")
                assert (task["attempt"], task["status"]) == (2, "completed")


async def test_F4_killed_after_agentkit_took_the_task_before_that_is_stored(
    storage: str, tmp_path: Path
) -> None:
    async with accepting() as taken, quick_lives(storage, taken, tmp_path) as (given, http):
        first = await given.begin("agentkit.answered")
        await eventually(lambda: is_up(http), bool)
        await register(http)
        session = await start(http, ONE, TWO)
        assert await first.end == KILLED
        await given.begin()
        await taken.until(2)
        (task, before), (again, attempt) = taken.attempts
        assert (again, before, attempt) == (task, 1, 2)
        await eventually(lambda: task_of(http, session, "one"), is_accepted)
        assert [await tell(http, task, n) for n in (1, 2, 2, 1)].count(True) == 1
        await finish(http, session, "two")
        assert await completions(http, session) == ["one", "two"]


async def test_F5_killed_after_accepted_is_stored(storage: str, tmp_path: Path) -> None:
    step = {**ONE, "timeout": 4}
    async with accepting() as taken:
        env = settings(storage, taken.url, OPSCORE_CRASH_POINT="post.recorded")
        with service(tmp_path, env) as first:
            async with first.client() as http:
                await register(http)
                session = await start(http, step)
            assert await end_of(first.process) == KILLED
        with service(tmp_path, settings(storage, taken.url)) as second:
            booted = time.time()
            async with second.client() as http:
                await ended(http, session)
                task = await task_of(http, session, "one")
        assert (task["status"], task["attempt"]) == ("timed_out", 1)
        sent = moment(task, "dispatchedAt")
        assert sent <= taken.times[0] + 0.1
        deadline = sent + 4
        # Nobody can keep a deadline that passes before there is a process again.
        assert 0 <= moment(task, "endedAt") - deadline <= max(0, booted - deadline) + 2
        assert taken.names == ["one"]


# --- reports ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("point", "applied"),
    [
        ("report.received", False),
        # Each number counts what is written before: the agent, the trigger, that it was accepted.
        ("write.tasks-written:3", False),
        ("write.events-written:4", False),
        ("report.committed", True),
    ],
)
async def test_F6_killed_inside_a_state_reports_write(
    storage: str, tmp_path: Path, point: str, applied: bool
) -> None:
    async with accepting() as taken, quick_lives(storage, taken, tmp_path) as (given, http):
        first = await given.begin(point)
        await eventually(lambda: is_up(http), bool)
        await register(http)
        session = await start(http, ONE, TWO)
        task = await eventually(lambda: task_of(http, session, "one"), is_accepted)
        details = {"opscore_task_id": task["taskId"], "result": "done"}
        report = {"agentId": AGENT, "state": "finished", "details": details}
        await cut_off(http.post(f"{API}/agent/{AGENT}/state", json=report))
        assert await first.end == KILLED
        await given.begin()
        await eventually(lambda: is_up(http), bool)
        tasks = await tasks_of(http, session)
        done = ["completed", True] if applied else ["dispatched", False]
        assert [tasks["one"]["status"], "two" in tasks] == done
        again = await http.post(f"{API}/agent/{AGENT}/state", json=report)
        assert again.status_code == 202
        await finish(http, session, "two")
        assert await completions(http, session) == ["one", "two"]
    assert set(taken.names) == {"one", "two"}


# --- timers -------------------------------------------------------------------------------------


async def test_F7_killed_while_a_delay_a_retry_and_a_fallback_wait(
    storage: str, tmp_path: Path
) -> None:
    pause = {"maxRetries": 1, "backoff": "fixed", "initialDelay": 3, "jitter": False}
    delayed = [ONE, {**TWO, "taskId": "delayed", "delay": 3}]
    retried = [{"taskId": "retried", "retry": pause}]
    replaced = [
        {**ONE, "taskId": "bad", "nextTaskId": None, "fallback": {"taskId": "spare"}},
        {**ONE, "taskId": "spare", "nextTaskId": None, "delay": 3},
    ]
    async with accepting() as taken:
        with service(tmp_path, settings(storage, taken.url)) as first:
            async with first.client() as http:
                await register(http, concurrency=3)
                flows = (delayed, retried, replaced)
                sessions = [await start(http, *flow, key=str(flow[0]["taskId"])) for flow in flows]
                for session, flow in zip(sessions, flows, strict=True):
                    name = str(flow[0]["taskId"])
                    status = "completed" if flow is delayed else "failed"
                    await finish(http, session, name, status=status)
                names = ("delayed", "retried", "spare")
                due = {}
                for session, name in zip(sessions, names, strict=True):
                    task = await task_of(http, session, name)
                    assert task["status"] == "delayed", name
                    due[name] = moment(task, "delayedUntil")
            first.process.send(signal.SIGKILL)
            assert await end_of(first.process) == KILLED
        before = len(taken.messages)
        assert sorted(taken.names) == ["bad", "one", "retried"]
        with service(tmp_path, settings(storage, taken.url)) as second:
            booted = time.time()
            await taken.until(before + 3)
            came = dict(zip(taken.names[before:], taken.times[before:], strict=True))
            assert came.keys() == due.keys()
            for name, moment_due in due.items():
                late = came[name] - moment_due
                # Nobody can keep a time that passes before there is a process again.
                assert -0.1 <= late <= max(0, booted - moment_due) + 2, name
            async with second.client() as http:
                for session, name in zip(sessions, names, strict=True):
                    await finish(http, session, name)
                    assert (await ended(http, session))["status"] == "completed"
        assert len(taken.messages) == before + 3


# --- two at once --------------------------------------------------------------------------------


async def test_F8_two_boots_at_once(storage_kind: str, storage: str, tmp_path: Path) -> None:
    """Each migration runs once; on SQLite one of the two is refused."""
    with reserved_port() as one, reserved_port() as other:
        ports = (one, other)
        envs = [clean_environment() | settings(storage, OPSCORE_PORT=str(n)) for n in ports]
        with (
            process("one", tmp_path, *OPSCORE, "serve", env=envs[0]) as first,
            process("other", tmp_path, *OPSCORE, "serve", env=envs[1]) as second,
        ):
            if storage_kind == "postgres":
                for port in ports:
                    await asyncio.to_thread(wait_until_ready, f"http://127.0.0.1:{port}")
                return
            boots = (first, second)
            await asyncio.to_thread(
                eventually_true, lambda: any(boot.popen.poll() is not None for boot in boots)
            )
            refused = next(boot for boot in boots if boot.popen.poll() is not None)
            assert refused.ended() == 2
            assert "another process uses" in refused.said
            port = ports[1 - boots.index(refused)]
            await asyncio.to_thread(wait_until_ready, f"http://127.0.0.1:{port}")


def eventually_true(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# --- poison -------------------------------------------------------------------------------------


async def test_F14_a_task_that_kills_its_dispatcher_each_time(storage: str, tmp_path: Path) -> None:
    steps = (
        {**ONE, "taskId": "poison", "nextTaskId": "after", "fallback": {"taskId": "spare"}},
        {**ONE, "taskId": "spare", "nextTaskId": "after"},
        {**ONE, "taskId": "after", "nextTaskId": None},
    )
    good = {**ONE, "taskId": "good"}
    async with accepting() as taken, quick_lives(storage, taken, tmp_path) as (given, http):
        life = await given.begin()
        await eventually(lambda: is_up(http), bool)
        await register(http, concurrency=3)
        others = [await start(http, good, key=f"good-{n}") for n in range(2)]
        dying = asyncio.create_task(die_of_it(given, life, taken))
        await asyncio.sleep(0)
        poisoned = await start(http, *steps, key="poison")
        await dying
        await given.begin()
        await eventually(lambda: is_up(http), bool)
        for session, step in zip((*others, poisoned, poisoned), AFTER_POISON, strict=True):
            await finish(http, session, step)
        for session in (*others, poisoned):
            assert (await ended(http, session))["status"] == "completed"
        failed = await task_of(http, poisoned, "poison")
    assert (failed["status"], failed["error"]["code"]) == ("failed", "lease_lost")
    assert "5 dispatchers were lost" in failed["error"]["message"]
    attempts = Counter(name for name in taken.names if name != "good")
    assert attempts == {"poison": 5, "spare": 1, "after": 1}


AFTER_POISON = ("good", "good", "spare", "after")


async def die_of_it(given: Lives, life: Life, taken: Taken) -> None:
    """Whoever sends the poison dies of it, five times."""
    dying = life

    def poison(message: dict[str, Any]) -> None:
        if message["task_name"] == "poison":
            dying.send(signal.SIGKILL)

    taken.on_message = poison
    for n in range(5):
        assert await asyncio.wait_for(dying.end, 20) == KILLED
        if n < 4:
            dying = await given.begin()


@asynccontextmanager
async def quick_lives(
    storage: str, taken: Taken, folder: Path
) -> AsyncIterator[tuple[Lives, httpx.AsyncClient]]:
    """The service in lives whose leases are short, and a client of theirs."""
    with reserved_port() as port:
        env = settings(storage, taken.url, OPSCORE_PORT=str(port))
        async with lives(env, folder / "lives.log") as given, plain_client() as http:
            http.base_url = httpx.URL(f"http://127.0.0.1:{port}")
            http.headers["Authorization"] = f"Bearer {env['OPSCORE_API_KEY']}"
            yield given, http


async def is_up(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/health/ready")).status_code == 200
    except httpx.TransportError:
        return False
