"""Clients that ask for much and read nothing, over real sockets."""

import re
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.acceptance.processes import Service, eventually, service
from tests.acceptance.world import API

pytestmark = pytest.mark.acceptance

CLIENTS = 20
# More than the kernels of both sides hold: the largest file that the service has, again and again.
UNREAD = b"GET /docs/assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: opscore\r\n\r\n" * 20


def ask_and_never_read(opscore: Service, stack: ExitStack) -> None:
    url = httpx.URL(opscore.url)
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((url.host, url.port))
    client.sendall(UNREAD)


@pytest.mark.fault("F110")
async def test_clients_that_never_read_are_closed_after_30_seconds(tmp_path: Path) -> None:
    with service(tmp_path) as opscore, ExitStack() as stack:
        async with opscore.client() as http:

            async def open_files() -> int:
                metrics = (await http.get("/metrics")).text
                [count] = re.findall(r"^process_open_fds ([0-9.]+)$", metrics, re.MULTILINE)
                return int(float(count))

            before = await open_files()
            began = time.monotonic()
            for _ in range(CLIENTS):
                ask_and_never_read(opscore, stack)
            # Each holds its connection and the file.
            await eventually(open_files, lambda count: count >= before + CLIENTS)
            await eventually(open_files, lambda count: count <= before + 2)
            assert 30 <= time.monotonic() - began < 50
            assert (await http.get(f"{API}/agents")).status_code == 200
