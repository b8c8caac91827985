"""Heads of requests that are refused."""

import pytest

from opscore.api.http_server.request_head import MAX_HEADERS, check_head
from opscore.exceptions import OpsCoreError
from tests.unit.http_server import connected, serving

HOST = (b"host", b"opscore:8000")


@pytest.mark.parametrize(
    "host",
    [b"a", b"a.example:80", b"127.0.0.1:8000", b"[::1]", b"[::1]:8000", b"[v1.a:b]", b"a_b", b"a:"],
)
def test_hosts_of_every_form_are_accepted(host: bytes) -> None:
    assert check_head([(b"host", host)], "1.1") is False


@pytest.mark.parametrize(
    ("headers", "version", "status"),
    [
        ([], "1.1", 400),
        ([HOST, HOST], "1.1", 400),
        ([HOST, (b"host", b"other")], "1.0", 400),
        ([(b"host", b"")], "1.1", 400),
        ([(b"host", b"a b")], "1.1", 400),
        ([(b"host", b"a/b")], "1.1", 400),
        ([(b"host", b"user@a")], "1.1", 400),
        ([(b"host", b"a:b")], "1.1", 400),
        ([(b"host", b"a:123456")], "1.1", 400),
        ([(b"host", b"[::1")], "1.1", 400),
        ([(b"host", b"[::g]")], "1.1", 400),
        ([(b"host", b"[fe80::1%eth0]")], "1.1", 400),
        ([(b"host", b"\xc3\xa9")], "1.1", 400),
        ([HOST, (b"transfer-encoding", b"gzip")], "1.1", 501),
        ([HOST, (b"transfer-encoding", b"gzip, chunked")], "1.1", 501),
        ([HOST, (b"transfer-encoding", b"identity")], "1.1", 501),
        ([HOST, (b"transfer-encoding", b"chunked, chunked")], "1.1", 400),
        ([HOST, (b"transfer-encoding", b"chunked")], "1.0", 400),
        ([HOST, *[(b"x-a", b"b")] * MAX_HEADERS], "1.1", 431),
    ],
)
def test_bad_heads_are_refused(
    headers: list[tuple[bytes, bytes]], version: str, status: int
) -> None:
    with pytest.raises(OpsCoreError) as raised:
        check_head(headers, version)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("headers", "has_body"),
    [
        ([HOST], False),
        ([HOST, (b"content-length", b"0")], False),
        ([HOST, (b"content-length", b"7")], True),
        ([HOST, (b"transfer-encoding", b"Chunked")], True),
    ],
)
def test_a_body_is_announced_by_length_or_coding(
    headers: list[tuple[bytes, bytes]], has_body: bool
) -> None:
    assert check_head(headers, "1.1") is has_body


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * MAX_HEADERS + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 9000 + b"\r\n\r\n", 431),
    ],
)
async def test_bad_heads_are_answered_in_the_shape_of_every_error(raw: bytes, status: int) -> None:
    async with serving() as port, connected(port) as client:
        await client.send(raw)
        answered, head, body = await client.answer()
        assert answered == status
        assert b'"status":%d' % status in body
        assert b"x-content-type-options: nosniff" in head
        assert await client.ends() == b""


async def test_http_1_0_needs_no_host() -> None:
    async with serving() as port, connected(port) as client:
        await client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert (await client.answer())[0] == 200
