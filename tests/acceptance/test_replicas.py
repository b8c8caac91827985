"""Replicas as processes on one PostgreSQL: what one of them leaves, another one does."""

import asyncio
import signal
from pathlib import Path

import pytest

from tests.acceptance.durable import (
    accepting,
    completions,
    ended,
    finish,
    register,
    settings,
    start,
    task_of,
)
from tests.acceptance.processes import eventually, service
from tests.full_backlog import full_backlog

pytestmark = [pytest.mark.acceptance, pytest.mark.storages("postgres")]

ELSEWHERE_WITHIN = 20


async def test_F10_who_stood_still_changes_nothing_of_what_others_did_meanwhile(
    storage: str, tmp_path: Path
) -> None:
    async with accepting() as taken:
        taken.first_answer = asyncio.Event()
        env = settings(storage, taken.url)
        with service(tmp_path, env, name="slept") as slept:
            async with slept.client() as http:
                await register(http)
                session = await start(http, {"taskId": "one", "retry": {"maxRetries": 0}})
                await taken.until(1)
                slept.process.send(signal.SIGSTOP)
                with service(tmp_path, env, name="awake") as awake:
                    # Nobody can tell that it will not go on, so its lease has to run out.
                    await taken.until(2, ELSEWHERE_WITHIN)
                    async with awake.client() as other:
                        await finish(other, session, "one")
                        assert (await ended(other, session))["status"] == "completed"
                        done = await task_of(other, session, "one")
                        taken.first_answer.set()
                        slept.process.send(signal.SIGCONT)
                        # Its first answers may come over connections that the database gave up.
                        await eventually(
                            lambda: http.get("/health/ready"),
                            lambda answer: (
                                answer.status_code == 200 and answer.json()["messagesUnderWay"] == 0
                            ),
                        )
                        assert await task_of(other, session, "one") == done
                        assert await completions(other, session) == ["one"]
                        assert (done["attempt"], len(taken.messages)) == (2, 2)


@pytest.mark.fault("F105")
async def test_paused_replica_sends_nothing_under_its_old_lease(
    storage: str, tmp_path: Path
) -> None:
    with full_backlog() as backlog:
        url = f"http://127.0.0.1:{backlog.port}"
        patient = {"OPSCORE_CONNECT_TIMEOUT": "60", "AGENTKIT_TIMEOUT": "120"}
        async with accepting() as taken:
            with service(tmp_path, settings(storage, url, **patient), name="slept") as slept:
                async with slept.client() as http:
                    await register(http)
                    session = await start(http, {"taskId": "one"})
                    await eventually(
                        lambda: task_of(http, session, "one"),
                        lambda task: task["status"] == "dispatched",
                    )
                    slept.process.send(signal.SIGSTOP)
                    # The kernel connects it while it sleeps; when it goes on, it could send.
                    backlog.open()
                    connection, _ = await asyncio.get_running_loop().sock_accept(backlog.listening)
                    env = settings(storage, taken.url)
                    with service(tmp_path, env, name="awake"), connection:
                        await taken.until(1, ELSEWHERE_WITHIN)
                        slept.process.send(signal.SIGCONT)
                        connection.setblocking(False)
                        async with asyncio.timeout(20):
                            sent = await asyncio.get_running_loop().sock_recv(connection, 65536)
                        assert sent == b""
                        assert [attempt for _, attempt in taken.attempts] == [2]
