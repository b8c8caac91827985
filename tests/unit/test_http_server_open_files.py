"""The limit of open files: how it is raised, shared out and reported."""

import asyncio
import errno
import logging
import resource
import socket

import pytest

from opscore.api.http_server.open_files import (
    limit_accept_errors,
    max_connections,
    raise_open_file_limit,
)
from opscore.api.http_server.shortage_log import ShortageLog


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert raise_open_file_limit(1000) == min(1000, hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(1000, hard), hard)
        assert raise_open_file_limit(600) == min(1000, hard), "it is never lowered"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault("F114")
@pytest.mark.parametrize("limit", [256, 1024, 4096, 65_536, 1_048_576])
def test_connections_leave_files_for_storage_and_deliveries(limit: int) -> None:
    allowed = max_connections(limit, storage_connections=12, deliveries=400)
    assert limit // 4 <= allowed or allowed == 16_384
    assert limit < 1024 or limit - allowed >= 412 + 256


@pytest.mark.fault("F114")
def test_a_shortage_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    shortage = ShortageLog(logging.getLogger("test"), "Too few", lambda: now)
    for second in range(121):
        now = float(second)
        for _ in range(500):
            shortage.note()
    assert [record.getMessage() for record in caplog.records] == [
        "Too few (1 times since the last report)",
        "Too few (30000 times since the last report)",
        "Too few (30000 times since the last report)",
    ]


@pytest.mark.fault("F114")
async def test_a_shortage_of_files_in_accept_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    try:
        limit_accept_errors(loop)
        with socket.socket() as listener:
            for _ in range(1000):
                # As asyncio reports it.
                loop.call_exception_handler(
                    {
                        "message": "socket.accept() out of system resource",
                        "exception": OSError(errno.EMFILE, "Too many open files"),
                        "socket": listener,
                    }
                )
        assert len(caplog.records) == 1
        assert "ulimit -n" in caplog.text
        loop.call_exception_handler({"message": "something else"})
        assert "something else" in caplog.text
    finally:
        loop.set_exception_handler(None)
