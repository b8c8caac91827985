"""Signals: their effect on the process from start to end."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.acceptance.processes import OPSCORE, Process, Service, eventually, process, service
from tests.acceptance.world import World, echo_step, world_around

pytestmark = pytest.mark.acceptance

SETTINGS = {"OPSCORE_DISPATCH_MODE": "direct", "OPSCORE_LOG_LEVEL": "INFO"}
KEY = {"OPSCORE_API_KEY": "a-key-of-the-tests", "OPSCORE_PORT": "0"}


@pytest.fixture(autouse=True)
def interrupts_reach_children() -> Iterator[None]:
    """A shell starts what runs in its background with interrupts ignored, and that is inherited."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


async def busy(world: World, seconds: float) -> str:
    """A session whose agent is at work."""
    agent = await world.agent("slow", style="example", workSeconds=seconds)
    session_id = await world.start(agent, echo_step("only"))
    await eventually(world.ready, lambda ready: ready["messagesUnderWay"] == 1)
    return session_id


@pytest.mark.fault("F120")
async def test_hangup_drains_and_a_second_one_changes_nothing(tmp_path: Path) -> None:
    with service(tmp_path, SETTINGS) as opscore:
        async with world_around(opscore, 0) as world:
            await busy(world, 1.5)
            opscore.process.send(signal.SIGHUP)
            await eventually(
                lambda: world.http.get("/health/ready"), lambda answer: answer.status_code == 503
            )
            opscore.process.send(signal.SIGHUP)
            assert await asyncio.to_thread(opscore.process.ended) == 0
            assert opscore.process.find("(task.completed)")
            assert "Traceback" not in opscore.process.said


@pytest.mark.fault("F120")
async def test_hangup_is_ignored_under_nohup(tmp_path: Path) -> None:
    with service(tmp_path, SETTINGS, under=("nohup",)) as opscore:
        opscore.process.send(signal.SIGHUP)
        await asyncio.sleep(0.5)
        async with opscore.client() as http:
            assert (await http.get("/health/ready")).status_code == 200


@pytest.mark.fault("F120")
async def test_second_interrupt_ends_at_once_without_a_traceback(tmp_path: Path) -> None:
    with service(tmp_path, SETTINGS) as opscore:
        async with world_around(opscore, 0) as world:
            await busy(world, 20)
            opscore.process.send(signal.SIGINT)
            assert opscore.process.find("(Draining)")
            opscore.process.send(signal.SIGINT)
            began = time.monotonic()
            assert await asyncio.to_thread(opscore.process.ended) == 1
            assert time.monotonic() - began < 2
            assert "Ended at once" in opscore.process.said
            assert "Traceback" not in opscore.process.said


@pytest.mark.fault("F120")
@pytest.mark.parametrize("after", [0, 0.1, 0.3, 0.6])
def test_interrupt_in_the_first_second_leaves_no_traceback(tmp_path: Path, after: float) -> None:
    with process("early", tmp_path, *OPSCORE, "serve", env=KEY) as early:
        wait_until_loading(early)
        time.sleep(after)
        early.send(signal.SIGINT)
        assert early.ended() in (0, -signal.SIGINT)
        assert "Traceback" not in early.said


def wait_until_loading(started: Process) -> None:
    """Wait until one of the libraries is loaded: the interpreter is there, and our code runs."""
    maps = Path(f"/proc/{started.popen.pid}/maps")
    deadline = time.monotonic() + 30
    while "pydantic_core" not in maps.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# --- idle connections -----------------------------------------------------------------------------


@pytest.mark.fault("F127")
async def test_idle_connection_is_used_again_after_5_seconds(tmp_path: Path) -> None:
    with service(tmp_path, SETTINGS) as opscore:
        reader, writer = await asyncio.open_connection(*address_of(opscore))
        try:
            for pause in (0, 6.5):
                await asyncio.sleep(pause)
                writer.write(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
                async with asyncio.timeout(10):
                    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
        finally:
            writer.close()


def address_of(opscore: Service) -> tuple[str, int]:
    url = httpx.URL(opscore.url)
    assert url.port is not None
    return url.host, url.port
