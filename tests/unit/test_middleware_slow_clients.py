"""A real uvicorn server on loopback, and clients that are slow, silent or broken."""

import asyncio
from contextlib import suppress

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from opscore.api.http_server import (
    GuardedProtocol,
)
from opscore.middleware import ApiKeyGate, BodyGuard, RequestContext
from tests.unit.http_server import LIMIT, REQUEST, connected, elapse, hello, serving

KEY = b"Authorization: Bearer key-123\r\n"


def stack(app: ASGIApp = hello, timeout: float = 20.0) -> ASGIApp:
    guarded = BodyGuard(app, limit=100_000, timeout=timeout)
    return RequestContext(ApiKeyGate(guarded, keys=["key-123"]))


def test_F86_the_default_is_well_under_30_seconds() -> None:
    assert GuardedProtocol.limits.header_timeout == 15


@pytest.mark.parametrize("begin", [b"", b"\r\n", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow"])
async def test_F86_silent_sockets_and_unfinished_headers_are_closed(begin: bytes) -> None:
    async with serving() as port, connected(port) as client:
        await client.send(begin)
        assert await client.ends() == b""


async def test_F86_one_byte_at_a_time_does_not_win_time() -> None:
    async with serving() as port, connected(port) as client:
        closing = asyncio.create_task(client.ends())
        for byte in b"GET / HTTP/1.1\r\n" + b"X-Slow: 1\r\n" * 1000:
            done, _ = await asyncio.wait([closing], timeout=0.01)
            if done:
                break
            await client.send(bytes([byte]))
        assert closing.done()


async def test_F86_many_silent_sockets_leave_others_served() -> None:
    async with serving() as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(200)]
        async with connected(port) as client:
            await client.send(REQUEST)
            assert (await client.answer())[0] == 200
        async with asyncio.timeout(5):
            assert [await reader.read() for reader, _ in silent] == [b""] * 200
        for _, writer in silent:
            writer.close()


async def test_keep_alive_is_left_as_it_is() -> None:
    async with serving() as port, connected(port) as client:
        await client.send(REQUEST)
        assert (await client.answer())[0] == 200
        await elapse(LIMIT * 2)
        await client.send(REQUEST)
        assert (await client.answer())[0] == 200


async def test_F86_the_second_request_of_a_connection_has_its_time_too() -> None:
    async with serving() as port, connected(port) as client:
        await client.send(REQUEST)
        await client.answer()
        await client.send(REQUEST[:10])
        assert await client.ends() == b""


async def test_F86_a_slow_answer_is_not_a_slow_client() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await elapse(LIMIT * 2)
        await hello(scope, receive, send)

    async with serving(slow) as port, connected(port) as client:
        await client.send(REQUEST + REQUEST[:10])
        assert (await client.answer())[0] == 200
        assert await client.ends() == b""


async def test_endless_headers_are_refused_in_the_one_shape() -> None:
    async with serving(header_timeout=10) as port, connected(port) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-Long: " + b"x" * 10_000)
        status, head, body = await client.answer()
        assert status == 431
        assert b"application/problem+json" in head
        assert b'"code":"headers_too_large"' in body
        assert await client.ends() == b""


async def test_requests_written_at_once_are_not_taken_for_endless_headers() -> None:
    async with serving(header_timeout=10) as port, connected(port) as client:
        await client.send(REQUEST * 1000 + REQUEST[:-2])
        for _ in range(1000):
            assert (await client.answer())[0] == 200
        await client.send(REQUEST[-2:])
        assert (await client.answer())[0] == 200


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01 tls\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n", b"NONSENSE\r\n\r\n"]
)
async def test_what_is_not_http_gets_the_one_shape(garbage: bytes) -> None:
    async with serving() as port, connected(port) as client:
        await client.send(garbage)
        status, _, body = await client.answer()
        assert (status, b'"code":"bad_request"' in body) == (400, True)
        assert await client.ends() == b""


def post(body: bytes, *, key: bytes = KEY, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return head + key + b"Content-Length: %d\r\n\r\n" % size + body


async def test_a_401_leaves_the_connection_usable_after_a_body() -> None:
    async with serving(stack()) as port, connected(port) as client:
        await client.send(post(b'{"a":1}', key=b""))
        assert (await client.answer())[0] == 401
        await client.send(post(b'{"a":1}'))
        assert (await client.answer())[0] == 200


async def test_F86_a_body_that_trickles_in_after_its_401_ends() -> None:
    async with serving(stack()) as port, connected(port) as client:
        await client.send(post(b"{", key=b"", length=1000))
        assert (await client.answer())[0] == 401
        await client.send(b" ")
        assert await client.ends() == b""


async def test_F86_a_body_that_never_comes_is_408_and_the_end() -> None:
    async with serving(stack(timeout=LIMIT)) as port, connected(port) as client:
        await client.send(post(b"{", length=1000))
        status, head, _ = await client.answer()
        assert (status, b"connection: close" in head) == (408, True)
        assert await client.ends() == b""


@pytest.mark.parametrize("size", [100_001, 3_000_000])
async def test_F85_a_client_that_sends_too_much_reads_its_413(size: int) -> None:
    async with serving(stack()) as port, connected(port) as client:
        with suppress(ConnectionError):
            await client.send(post(b"x" * size))
        assert (await client.answer())[0] == 413
