"""Bounds on what one client can hold: unread answers, pipelining, connections, refused bodies."""

import asyncio
import socket
from contextlib import ExitStack, suppress

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from opscore.api.http_server import ConnectionCap, GuardedProtocol
from opscore.api.http_server.admission import HEALTH_RESERVE, Rank, Use
from opscore.api.serve import KEEP_ALIVE, server_config
from opscore.middleware import BodyGuard, RequestContext
from opscore.settings import Settings
from tests.unit.http_server import (
    LIMIT,
    REQUEST,
    Client,
    connected,
    elapse,
    hello,
    port_of,
    running,
    serving,
)

CHUNK = b"x" * 65536
WITHIN = 10.0


class Endless:
    """Answers with a body without end, and counts what the server took of it."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.create_task(self._until_gone(receive))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.done():
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            self.sent += len(CHUNK)
            await asyncio.sleep(0)
        self.ended.set()

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


def small_window(port: int, stack: ExitStack) -> socket.socket:
    """A client whose kernel takes little of what it does not read."""
    client = stack.enter_context(socket.socket())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


@pytest.mark.fault("F110")
async def test_client_that_never_reads_is_closed_and_holds_little() -> None:
    app = Endless()
    async with serving(app, write_timeout=0.3) as port:
        with ExitStack() as stack:
            small_window(port, stack).send(REQUEST)
            async with asyncio.timeout(WITHIN):
                await app.ended.wait()
        assert app.sent < 16 * 1024 * 1024


@pytest.mark.fault("F110")
async def test_client_that_reads_slowly_but_steadily_is_not_closed() -> None:
    app = Endless()
    loop = asyncio.get_running_loop()
    async with serving(app, write_timeout=0.6) as port:
        with ExitStack() as stack:
            client = small_window(port, stack)
            client.send(REQUEST)
            for _ in range(30):
                await elapse(0.05)
                assert await loop.sock_recv(client, 16384)
            assert not app.ended.is_set()


@pytest.mark.fault("F110")
async def test_complete_answer_that_nobody_reads_is_given_up_after_keep_alive_too() -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        size = 8 * 1024 * 1024
        headers = [(b"content-length", b"%d" % size), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * size})

    async with running(large, write_timeout=0.3) as server:
        with ExitStack() as stack:
            small_window(port_of(server), stack).send(REQUEST)
            await until(lambda: len(server.server_state.connections) == 1)
            await until(lambda: not server.server_state.connections)


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(WITHIN):
        while not condition():
            await elapse(0.01)


async def test_pipelined_requests_wait_unread_beyond_a_bounded_queue() -> None:
    release = asyncio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        await release.wait()
        await hello(scope, receive, send)

    count = 20_000
    async with running(waiting) as server, connected(port_of(server)) as client:
        sending = asyncio.create_task(client.send(REQUEST * count))
        await until(lambda: queued(server) > 0)
        await elapse(LIMIT)
        assert queued(server) <= 4096 // len(REQUEST) + 1
        release.set()
        for number in range(count):
            assert (await client.answer())[0] == 200, number
            if number % 1000 == 0:
                assert queued(server) <= 4096 // len(REQUEST) + 1
        await sending


def queued(server: uvicorn.Server) -> int:
    connections = server.server_state.connections
    return sum(len(one.pipeline) for one in connections if isinstance(one, GuardedProtocol))


# --- the number of connections ------------------------------------------------------------------


@pytest.mark.fault("F114")
async def test_new_connection_replaces_the_longest_silent_one() -> None:
    async with (
        serving(header_timeout=30, cap=ConnectionCap(3)) as port,
        connected(port) as used,
        connected(port) as first,
        connected(port) as second,
    ):
        await used.send(REQUEST)
        await used.answer()
        async with connected(port) as fourth:
            await fourth.send(REQUEST)
            assert (await fourth.answer())[0] == 200
            assert await first.ends() == b""
            for kept in (used, second):
                await kept.send(REQUEST)
                assert (await kept.answer())[0] == 200


@pytest.mark.fault("F114")
async def test_at_the_limit_of_busy_connections_only_health_is_answered() -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def waiting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/health/live":
            begun.set()
            await release.wait()
        await hello(scope, receive, send)

    async with (
        serving(waiting, header_timeout=30, cap=ConnectionCap(1)) as port,
        connected(port) as busy,
    ):
        await busy.send(REQUEST)
        await begun.wait()
        async with connected(port) as health:
            await health.send(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert (await health.answer())[0] == 200
        async with connected(port) as other:
            await other.send(REQUEST)
            status, head, _ = await other.answer()
            assert (status, b"retry-after: 1" in head) == (503, True)
        release.set()
        assert (await busy.answer())[0] == 200


@pytest.mark.fault("F114")
@pytest.mark.parametrize("begin", ["a body that never ends", "an answer that nobody reads"])
async def test_clients_that_stand_still_with_a_request_do_not_lock_others_out(begin: str) -> None:
    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/large":
            await Endless()(scope, receive, send)
        await hello(scope, receive, send)

    starts = {
        "a body that never ends": upload(1000) + b"{",
        "an answer that nobody reads": b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
    }
    app = BodyGuard(large)
    async with running(app, header_timeout=30, cap=ConnectionCap(4)) as server:
        with ExitStack() as stack:
            for _ in range(4):
                small_window(port_of(server), stack).send(starts[begin])
            await until(lambda: len(standing_still(server)) == 4)
            async with connected(port_of(server)) as other:
                await other.send(REQUEST)
                assert (await other.answer())[0] == 200


def standing_still(server: uvicorn.Server) -> list[Rank]:
    guarded = [one for one in server.server_state.connections if isinstance(one, GuardedProtocol)]
    ranks = [one.rank for one in guarded]
    return [rank for rank in ranks if rank is not None and rank.use >= Use.REQUEST_ARRIVING]


class Connection:
    """Stands for a connection with a rank."""

    def __init__(self, rank: Rank | None = None) -> None:
        self.rank = rank
        self.was_aborted = False

    def abort(self) -> None:
        self.was_aborted = True


def test_beyond_the_reserve_for_health_connections_are_refused() -> None:
    cap = ConnectionCap(2)
    admitted = [cap.admit(Connection()).name for _ in range(2 + HEALTH_RESERVE + 1)]
    assert admitted == ["ADMITTED"] * 2 + ["HEALTH_ONLY"] * HEALTH_RESERVE + ["REFUSED"]


def test_least_used_and_oldest_connections_are_closed_first() -> None:
    cap = ConnectionCap(8)
    ranks = [Rank(use, since) for since in (2.0, 1.0) for use in reversed(Use)]
    connections = [Connection(rank) for rank in ranks]
    for connection in connections:
        cap.admit(connection)
    closed = []
    for _ in ranks:
        assert cap.admit(Connection()).name == "ADMITTED"
        closed += [one.rank for one in connections if one.was_aborted and one.rank not in closed]
    assert closed == sorted(ranks)


def test_burst_of_connections_closes_no_more_than_it_needs() -> None:
    cap = ConnectionCap(160)
    silent = [Connection(Rank(Use.SILENT, float(number))) for number in range(160)]
    for connection in silent:
        cap.admit(connection)
    for _ in range(10):
        cap.admit(Connection())
    assert [one.was_aborted for one in silent] == [True] * 10 + [False] * 150


# --- refusals before the body was read ----------------------------------------------------------


def upload(size: int, *headers: bytes) -> bytes:
    lines = [b"POST / HTTP/1.1", b"Host: x", b"Content-Type: application/json", *headers]
    return b"\r\n".join([*lines, b"Content-Length: %d" % size, b"", b""])


@pytest.mark.fault("F111")
async def test_refused_upload_is_read_to_its_end_and_its_answer_arrives() -> None:
    size = 4 * 1024 * 1024
    async with serving(RequestContext(BodyGuard(hello))) as port, connected(port) as client:
        await client.send(upload(size))
        # All of it is taken although it was refused before it came.
        await client.send(b"x" * size)
        status, head, _ = await client.answer()
        assert (status, b"connection: close" in head) == (413, True)
        assert await client.ends() == b""


@pytest.mark.fault("F111")
async def test_refused_upload_that_never_ends_is_cut_off() -> None:
    app = RequestContext(BodyGuard(hello))
    async with running(app, drain_timeout=0.2) as server, connected(port_of(server)) as client:
        await client.send(upload(4 * 1024 * 1024))
        assert (await client.answer())[0] == 413
        await until(lambda: not server.server_state.connections)


@pytest.mark.fault("F111")
async def test_refused_upload_is_cut_off_beyond_what_is_drained() -> None:
    async with serving(RequestContext(BodyGuard(hello))) as port, connected(port) as client:
        await client.send(upload(1024**3))
        assert (await client.answer())[0] == 413
        with pytest.raises(ConnectionError):
            await send_megabytes(client, 1024)


async def send_megabytes(client: Client, count: int) -> None:
    for _ in range(count):
        await client.send(b"x" * 1024 * 1024)


@pytest.mark.parametrize(
    ("rest", "status"), [(b"zz\r\n", 400), (b"5\r\nxxxxxx", 400)], ids=["no size", "wrong size"]
)
async def test_broken_body_is_answered_and_its_request_never_runs(rest: bytes, status: int) -> None:
    ran = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        ran.append(scope["path"])
        await hello(scope, receive, send)

    async with serving(RequestContext(BodyGuard(app))) as port, connected(port) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        await client.send(rest)
        assert (await client.answer())[0] == status
        assert await client.ends() == b""
        assert not ran


async def test_refusal_of_a_pipelined_request_follows_the_answers_before_it() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await elapse(LIMIT)
        await hello(scope, receive, send)

    async with serving(slow) as port, connected(port) as client:
        await client.send(REQUEST * 2 + b"NONSENSE\r\n\r\n")
        assert [(await client.answer())[0] for _ in range(3)] == [200, 200, 400]
        assert await client.ends() == b""


# --- idle connections ---------------------------------------------------------------------------


@pytest.mark.fault("F127")
def test_idle_connections_outlive_the_pause_of_clients_and_the_keep_alive_of_nginx() -> None:
    config = server_config(Settings(_env_file=None), hello)
    assert config.timeout_keep_alive == KEEP_ALIVE == 75


@pytest.mark.fault("F127")
async def test_header_timeout_leaves_an_idle_connection_alone() -> None:
    async with serving(header_timeout=0.1) as port, connected(port) as client:
        for _ in range(3):
            await client.send(REQUEST)
            assert (await client.answer())[0] == 200
            await elapse(0.3)


async def test_request_for_another_protocol_is_answered_as_the_last_one() -> None:
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with serving() as port, connected(port) as client:
        await client.send(upgrade)
        status, head, _ = await client.answer()
        assert (status, b"connection: close" in head) == (200, True)
        with suppress(ConnectionError):
            assert await client.ends() == b""
