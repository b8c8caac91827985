"""Bounds of the client: leases, connect timeouts, and the size of an answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpcore
import pytest

from opscore.agentkit_client import AgentKitClient
from opscore.agentkit_client.errors import ExchangeError
from opscore.agentkit_client.guarded_stream import (
    MAX_INTERIM_ANSWERS,
    MAX_RAW_ANSWER,
    GuardedStream,
    SlowLane,
)
from opscore.models import Accepted, Answered, Failure, FailureCode, Outcome
from tests.full_backlog import full_backlog
from tests.service.wire_server import answer, raw_server, replying, wire_server
from tests.unit.agentkit_values import make_claim, make_task

TIMEOUT = 10.0
DONE = answer(200, {"status": "completed", "result": "done"})


class Control:
    """Allows so many writes, and notes when the message was sent."""

    def __init__(self, writes: int = 99) -> None:
        self.writes = writes
        self.sent = asyncio.Event()

    def may_send(self) -> bool:
        self.writes -= 1
        return self.writes >= 0

    def mark_sent(self) -> None:
        self.sent.set()


@pytest.fixture
async def client() -> AsyncIterator[AgentKitClient]:
    async with AgentKitClient("http://kit.test", connect_timeout=0.2) as one:
        yield one


class Pieces(httpcore.AsyncNetworkStream):
    """A stream whose every read returns the next piece."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = iter(pieces)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - of httpcore
        return next(self._pieces)


def at(port: int) -> Any:
    return make_claim(make_task(), endpoint=f"http://127.0.0.1:{port}/task")


def failure(outcome: Outcome) -> Failure:
    assert isinstance(outcome, Failure)
    return outcome


# --- leases -----------------------------------------------------------------------------------


@pytest.mark.fault("F105")
@pytest.mark.parametrize("writes", [0, 1])
async def test_message_without_a_lease_is_not_sent(client: AgentKitClient, writes: int) -> None:
    received = bytearray()

    async def read_all(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.extend(await reader.read())
        closed.set()

    closed = asyncio.Event()
    async with raw_server(read_all) as port:
        failed = failure(await client.deliver(at(port), TIMEOUT, Control(writes)))
        async with asyncio.timeout(TIMEOUT):
            await closed.wait()
    assert failed.code is FailureCode.NOT_SENT
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert bool(head) is bool(writes)
    assert body == b""


@pytest.mark.fault("F105")
async def test_lease_is_checked_on_a_used_connection_too(client: AgentKitClient) -> None:
    async with wire_server(replying(DONE)) as server:
        assert await client.deliver(at(server.port), TIMEOUT, Control()) == Answered("done")
        failed = failure(await client.deliver(at(server.port), TIMEOUT, Control(0)))
        assert failed.code is FailureCode.NOT_SENT
        assert await client.deliver(at(server.port), TIMEOUT, Control()) == Answered("done")
        assert len(server.requests) == 2


async def test_message_is_marked_sent_while_its_answer_is_awaited(client: AgentKitClient) -> None:
    asked, may_answer, control = asyncio.Event(), asyncio.Event(), Control()

    async def reply(_: Any, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await may_answer.wait()
        writer.write(DONE)

    async with wire_server(reply) as server:
        running = asyncio.create_task(client.deliver(at(server.port), TIMEOUT, control))
        async with asyncio.timeout(TIMEOUT):
            await asked.wait()
            await control.sent.wait()
        assert not running.done()
        may_answer.set()
        assert await running == Answered("done")


# --- connecting -------------------------------------------------------------------------------


@pytest.mark.fault("F104")
async def test_host_that_drops_packets_is_unreachable_in_time(client: AgentKitClient) -> None:
    control = Control()
    with full_backlog() as backlog:
        async with asyncio.timeout(TIMEOUT):
            failed = failure(await client.deliver(at(backlog.port), 300, control))
    assert failed.code is FailureCode.UNREACHABLE
    assert "could not connect in time" in failed.message
    assert not control.sent.is_set()


# --- the bounds of an answer ------------------------------------------------------------------


async def answered(client: AgentKitClient, *parts: bytes, times: int = 1) -> Outcome:
    """The outcome of a message that is answered with these bytes, the last so many times."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts[:-1]:
            writer.write(part)
        try:
            for _ in range(times):
                writer.write(parts[-1])
                await writer.drain()
        except ConnectionError:
            return

    async with raw_server(serve) as port:
        return await client.deliver(at(port), TIMEOUT)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.fault("F109")
async def test_answer_over_2_mib_on_the_wire_is_ended(client: AgentKitClient) -> None:
    # A chunk of one byte with an extension: 1 KiB on the wire, one byte of body.
    chunk = b"1;" + b"x" * 1017 + b"\r\nx\r\n"
    outcome = await answered(client, CHUNKED, chunk * 16, times=MAX_RAW_ANSWER // 1024)
    failed = failure(outcome)
    assert failed.code is FailureCode.OUTCOME_UNKNOWN
    assert "more than 2048 KiB on the wire" in failed.message


@pytest.mark.fault("F109")
async def test_interim_answers_are_bounded(client: AgentKitClient) -> None:
    assert await answered(client, INTERIM * MAX_INTERIM_ANSWERS + DONE) == Answered("done")
    failed = failure(await answered(client, INTERIM * (MAX_INTERIM_ANSWERS + 1) + DONE))
    assert failed.code is FailureCode.OUTCOME_UNKNOWN
    assert "more than 20 interim answers" in failed.message


@pytest.mark.fault("F109")
@pytest.mark.parametrize("split", range(1, 25))
async def test_interim_answers_are_counted_wherever_they_are_split(split: int) -> None:
    pieces = [INTERIM[:split], INTERIM[split:]] * (MAX_INTERIM_ANSWERS + 1)
    guard = GuardedStream(Pieces(pieces), SlowLane())
    for _ in pieces[2:]:
        await guard.read(65536)
    reads = asyncio.gather(guard.read(65536), guard.read(65536))
    with pytest.raises(ExchangeError, match="more than 20 interim answers"):
        await reads


async def test_status_lines_in_a_body_are_no_interim_answers(client: AgentKitClient) -> None:
    body = b"HTTP/1.1 100 Continue\r\n" * 50
    outcome = await answered(client, answer(500, body))
    assert failure(outcome).code is FailureCode.AGENT_ERROR


async def test_many_small_chunks_are_read_to_their_end(client: AgentKitClient) -> None:
    body = b'{"status":"completed","result":"' + b"x" * 2000 + b'"}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    assert await answered(client, CHUNKED, chunks + b"0\r\n\r\n") == Answered("x" * 2000)


async def test_bounds_start_anew_for_each_message(client: AgentKitClient) -> None:
    large = answer(200, b" " * (1024 * 1024))
    async with wire_server(replying(large)) as server:
        for _ in range(3):
            assert await client.deliver(at(server.port), TIMEOUT) == Accepted()
        assert server.opened == 1
