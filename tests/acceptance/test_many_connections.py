"""More clients than the process may open files: health, storage and deliveries go on."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.acceptance.processes import service
from tests.acceptance.world import API, echo_step, world_around

pytestmark = pytest.mark.acceptance

SILENT = 1200
LIMIT = 1024
# The hard limit too, or the service would raise its own.
UNDER_LIMIT = ("sh", "-c", f'ulimit -n {LIMIT} && exec "$0" "$@"')


@contextmanager
def own_limit_raised() -> Iterator[None]:
    """This process needs a file for each of its sockets too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_silent_sockets(url: str, stack: ExitStack) -> None:
    host, port = httpx.URL(url).host, httpx.URL(url).port
    for _ in range(SILENT):
        stack.enter_context(socket.create_connection((host, port), timeout=30))


@pytest.mark.fault("F114")
@pytest.mark.storages("sqlite", "postgres")
async def test_silent_sockets_beyond_the_file_limit_leave_the_service_at_work(
    tmp_path: Path, storage_url: str
) -> None:
    settings = {"OPSCORE_STORAGE_URL": storage_url, "OPSCORE_DISPATCH_MODE": "direct"}
    with (
        own_limit_raised(),
        ExitStack() as stack,
        service(tmp_path, settings, under=UNDER_LIMIT) as opscore,
    ):
        async with world_around(opscore, 0) as world:
            agent = await world.agent("greeting")
            await asyncio.to_thread(open_silent_sockets, opscore.url, stack)
            for _ in range(20):
                async with httpx.AsyncClient(trust_env=False, verify=False) as fresh:
                    assert (await fresh.get(f"{opscore.url}/health/ready")).status_code == 200
                assert (await world.http.get(f"{API}/agents")).status_code == 200
            session = await world.run(agent, echo_step("first"), echo_step("second"))
            assert session["status"] == "completed"
        messages = [line["message"] for line in opscore.process.log_lines()]
        assert sum("connection limit is reached" in message for message in messages) == 1
        assert not any("Too many open files" in line for line in opscore.process.said.splitlines())
        assert any(f"limit of open files is {LIMIT}" in message for message in messages)
