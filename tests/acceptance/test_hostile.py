"""Clients that mean harm, or only stand still, over real sockets.

All of them are dealt with before a storage is asked, so that it does not matter which there is.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.acceptance.processes import Service, eventually, reserved_port, service
from tests.acceptance.world import API, echo_step, world_around

pytestmark = pytest.mark.acceptance

SILENT = 200
CLOSED_WITHIN = 30.0
# Sooner than whoever stands still is given up.
AT_ONCE = 10.0
MEBIBYTE = 1024 * 1024
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="session")
def opscore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("hostile")) as running:
        yield running


@asynccontextmanager
async def connected(opscore: Service) -> AsyncIterator[Connection]:
    url = httpx.URL(opscore.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def head(opscore: Service, path: str, *headers: str, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: opscore", f"Authorization: Bearer {opscore.key}"]
    return "\r\n".join([*lines, "Content-Type: application/json", *headers, "", ""]).encode()


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def assert_is_problem(answer: bytes, status: int) -> None:
    """The whole answer is one problem, and nothing of what was sent."""
    assert status_of(answer) == status, answer[:200]
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in top
    assert json.loads(body)["status"] == status
    assert len(answer) < 2000


# --- standing still ------------------------------------------------------------------------------


async def left_silent(opscore: Service) -> bytes:
    async with connected(opscore) as (reader, _):
        return await reader.read()


async def drip(opscore: Service, start: bytes, drop: bytes) -> bytes:
    """Send a little now and then until the server has had enough; what it said."""
    async with connected(opscore) as (reader, writer):
        writer.write(start)
        answer = asyncio.create_task(reader.read())
        while not answer.done():
            writer.write(drop)
            await asyncio.wait([answer], timeout=0.3)
        return await answer


async def others_at_the_same_time(opscore: Service, until: asyncio.Event) -> list[float]:
    """How long ordinary requests take meanwhile."""
    taken = []
    async with opscore.client() as http:
        while not until.is_set():
            began = time.monotonic()
            assert (await http.get(f"{API}/agents")).status_code == 200
            taken.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
    return taken


async def timed(work: Any) -> tuple[bytes, float]:
    began = time.monotonic()
    async with asyncio.timeout(CLOSED_WITHIN):
        answer: bytes = await work
    return answer, time.monotonic() - began


@dataclass(frozen=True)
class StandingStill:
    """What became of clients that stood still, and how long others waited meanwhile."""

    dripped: list[tuple[bytes, float]]
    silent: list[tuple[bytes, float]]
    others: list[float]


async def stand_still(opscore: Service) -> StandingStill:
    over = asyncio.Event()
    others = asyncio.create_task(others_at_the_same_time(opscore, over))
    slow_headers = drip(opscore, b"GET /health HTTP/1.1\r\nHost: opscore\r\n", b"X-More: 1\r\n")
    half_a_line = drip(opscore, b"GET /hea", b"a")
    slow_body = drip(opscore, head(opscore, f"{API}/agents", "Content-Length: 1000"), b" ")
    slow_chunks = drip(
        opscore, head(opscore, f"{API}/agents", "Transfer-Encoding: chunked"), b"1\r\n \r\n"
    )
    dripping = [timed(work) for work in (slow_headers, half_a_line, slow_body, slow_chunks)]
    closed = await asyncio.gather(*dripping, *(timed(left_silent(opscore)) for _ in range(SILENT)))
    over.set()
    return StandingStill(closed[: len(dripping)], closed[len(dripping) :], await others)


@pytest.fixture(scope="session")
def standing_still(opscore: Service) -> Iterator[Future[StandingStill]]:
    """Begun by the first test that asks for it, and looked at by a late one: it takes 20 s."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(asyncio.run, stand_still(opscore))


async def test_F86_many_that_stand_still_do_not_keep_others_from_their_answers(
    opscore: Service, standing_still: Future[StandingStill]
) -> None:
    async with opscore.client() as http:
        for _ in range(20):
            assert (await http.get(f"{API}/agents")).status_code == 200
    assert not standing_still.done()


# --- too much ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        pytest.param(f"{API}/agents", MEBIBYTE, id="any route"),
        pytest.param(f"{API}/internal/agent/notify", 256 * 1024, id="F63-webhook"),
    ],
)
async def test_F85_a_body_that_is_declared_too_large_is_refused_before_it_comes(
    opscore: Service, path: str, limit: int
) -> None:
    async with connected(opscore) as (reader, writer):
        writer.write(head(opscore, path, f"Content-Length: {limit + 1}"))
        async with asyncio.timeout(AT_ONCE):
            assert_is_problem(await reader.read(), 413)


CHUNK = b"10000\r\n" + b" " * 65536 + b"\r\n"


async def test_F85_a_body_that_has_grown_too_large_is_refused_before_its_end(
    opscore: Service,
) -> None:
    async with connected(opscore) as (reader, writer):
        writer.write(head(opscore, f"{API}/agents", "Transfer-Encoding: chunked"))
        writer.write(CHUNK * 16 + b"1\r\n \r\n")
        async with asyncio.timeout(AT_ONCE):
            assert_is_problem(await reader.read(), 413)


async def test_F85_who_goes_on_sending_all_the_same_is_cut_off(opscore: Service) -> None:
    async with connected(opscore) as (_, writer):
        writer.write(head(opscore, f"{API}/agents", "Transfer-Encoding: chunked"))
        async with asyncio.timeout(CLOSED_WITHIN):
            with pytest.raises(ConnectionError):
                await send_without_end(writer)


async def send_without_end(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(CHUNK)
        await writer.drain()
        # A connection that the other side has closed is noticed only between two writes.
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, id="TLS"),
        pytest.param(b"GET / HTTP/9.9\r\n\r\n", 400, id="a version that is none"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: a\r\nBad Header\r\n\r\n", 400, id="a header"),
        pytest.param(b"GET /health HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, id="two Hosts"),
        pytest.param(
            b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            id="an unknown transfer coding",
        ),
        pytest.param(
            b"GET /health HTTP/1.1\r\nHost: a\r\n" + b"X-Many: 1\r\n" * 200 + b"\r\n",
            431,
            id="many headers",
        ),
        pytest.param(
            b"GET /health HTTP/1.1\r\nHost: a\r\nX-Much: " + b"a" * 70_000,
            431,
            id="F86-endless headers",
        ),
    ],
)
async def test_malformed_request_is_refused_at_once(
    opscore: Service, raw: bytes, status: int
) -> None:
    async with connected(opscore) as (reader, writer):
        writer.write(raw)
        async with asyncio.timeout(AT_ONCE):
            assert_is_problem(await reader.read(), status)


# --- nobody reads the log ------------------------------------------------------------------------


async def flood(opscore: Service, count: int) -> None:
    """So many requests without a key, written at once; each is one line in the log."""
    async with connected(opscore) as (reader, writer):
        one = b"GET /v1/opscore/agents HTTP/1.1\r\nHost: opscore\r\n"
        writer.write((one + b"\r\n") * (count - 1) + one + b"Connection: close\r\n\r\n")
        async with asyncio.timeout(30):
            answers = await reader.read()
    assert answers.count(b"HTTP/1.1 401 ") == count


async def test_F21_when_nobody_reads_the_log_requests_are_served_and_lines_are_counted(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(reserved_port())
        settings = {"OPSCORE_PORT": port, "OPSCORE_DISPATCH_MODE": "direct"}
        blocked = stack.enter_context(service(tmp_path, settings, stderr=subprocess.PIPE))
        async with world_around(blocked, 0) as world:

            async def dropped_after_a_flood() -> int:
                await flood(blocked, 3000)
                return int((await world.ready())["droppedLogLines"])

            await eventually(dropped_after_a_flood, lambda dropped: dropped > 100)
            agent = await world.agent("greeting")
            began = time.monotonic()
            session = await world.run(agent, echo_step("first"), echo_step("second"))
            assert session["status"] == "completed"
            assert time.monotonic() - began < 10
            assert blocked.process.stop() == 0


# --- what became of those that stood still -------------------------------------------------------


@pytest.mark.late
def test_F86_all_that_stood_still_were_closed_and_others_were_served(
    standing_still: Future[StandingStill],
) -> None:
    """15 s for headers, 20 s for a body."""
    end = standing_still.result(CLOSED_WITHIN)
    headers, line, body, chunks = [answer for answer, _ in end.dripped]
    assert (headers, line) == (b"", b"")
    assert_is_problem(body, 408)
    assert_is_problem(chunks, 408)
    assert [answer for answer, _ in end.silent] == [b""] * SILENT
    assert all(10 < seconds < CLOSED_WITHIN for _, seconds in (*end.dripped, *end.silent))
    taken = sorted(end.others)
    assert len(taken) > 50
    # Who were kept waiting would wait for 15 s; a busy machine alone may take a second.
    assert taken[int(len(taken) * 0.99)] < 3
