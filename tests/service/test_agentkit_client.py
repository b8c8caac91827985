"""The client against real servers on loopback: every way an exchange can end."""

import asyncio
import gzip
import logging
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from opscore.agentkit_client import AgentKitClient, task_message
from opscore.agentkit_client.connecting import resolve
from opscore.agentkit_client.messages import encode
from opscore.exceptions import ConfigurationError
from opscore.models import (
    Accepted,
    Answered,
    Delivery,
    EndpointPolicy,
    Failure,
    FailureCode,
    MessageType,
    Outcome,
)
from opscore.settings import Settings
from tests.acceptance.processes import reserved_port
from tests.service.wire_server import (
    Reply,
    Request,
    WireServer,
    answer,
    raw_server,
    replying,
    wire_server,
)
from tests.unit.agentkit_values import make_claim, make_task

TLS = Path(__file__).parent / "tls"
PATIENCE = 10.0
KEY = "canary-key-0123456789"
CLAIM = make_claim(make_task())
ACCEPTED = answer(202, {"status": "success", "data": {"dispatch_status": "scheduled"}})


def failure(outcome: Outcome) -> Failure:
    assert isinstance(outcome, Failure)
    return outcome


def at(server: WireServer, path: str = "/task") -> Any:
    return make_claim(make_task(), endpoint=server.url + path)


@asynccontextmanager
async def served(reply: Reply, **options: Any) -> AsyncIterator[tuple[WireServer, AgentKitClient]]:
    async with wire_server(reply) as server, AgentKitClient(server.url, **options) as client:
        yield server, client


async def both_ways(reply: Reply, seconds: float = PATIENCE) -> list[Outcome]:
    """The same answer given by AgentKit and by an agent."""
    async with served(reply) as (server, client):
        return [await client.run(CLAIM, seconds), await client.deliver(at(server), seconds)]


# --- what is sent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1/agents/a1/run"),
        ("/", "/v1/agents/a1/run"),
        ("/v1", "/v1/agents/a1/run"),
        ("/v1/", "/v1/agents/a1/run"),
        ("/kit/v1", "/kit/v1/agents/a1/run"),
    ],
)
async def test_a_task_is_posted_to_agentkit(suffix: str, path: str) -> None:
    async with wire_server(replying(ACCEPTED)) as server:
        client = AgentKitClient(server.url + suffix, api_key=KEY)
        assert await client.run(CLAIM, PATIENCE) == Accepted()
        await client.close()
    (request,) = server.requests
    assert request.line == f"POST {path} HTTP/1.1"
    assert request.body == encode(task_message(CLAIM))
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("agent_id", "segment"),
    [
        ("5f9f43c5-2d88-4173-ba89-9a85aa1ff15f", "5f9f43c5-2d88-4173-ba89-9a85aa1ff15f"),
        ("a/../b", "a%2F..%2Fb"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("a b?c#d%", "a%20b%3Fc%23d%25"),
        ("a\r\nHost: x", "a%0D%0AHost%3A%20x"),
        ("\u00e4gent", "%C3%A4gent"),
    ],
)
async def test_F91_an_agent_id_is_one_segment_of_the_path(agent_id: str, segment: str) -> None:
    async with served(replying(ACCEPTED)) as (server, client):
        assert await client.run(make_claim(make_task(), agent_id), PATIENCE) == Accepted()
    assert server.requests[0].line == f"POST /v1/agents/{segment}/run HTTP/1.1"


async def test_F92_the_key_is_for_agentkit_alone() -> None:
    async with served(replying(ACCEPTED), api_key=KEY) as (server, client):
        assert await client.deliver(at(server, "/task?team=a%20b"), PATIENCE) == Accepted()
        await client.cancel(CLAIM.task, at(server).agent, Delivery.DIRECT)
        await client.cancel(CLAIM.task, CLAIM.agent, Delivery.AGENTKIT)
    direct, direct_cancel, cancel = server.requests
    assert direct.line == "POST /task?team=a%20b HTTP/1.1"
    assert direct.body == encode(task_message(CLAIM))
    assert "authorization" not in direct.headers
    assert "authorization" not in direct_cancel.headers
    assert cancel.headers["authorization"] == f"Bearer {KEY}"


async def test_without_a_key_nothing_is_authorized() -> None:
    async with served(replying(ACCEPTED), api_key="") as (server, client):
        assert await client.run(CLAIM, PATIENCE) == Accepted()
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize("status", [202, 401, 404, 422, 500])
async def test_F92_an_echoed_key_is_hidden(status: int) -> None:
    echo = answer(status, {"status": "error", "detail": KEY, "data": {"error_message": KEY}})
    async with served(replying(echo), api_key=KEY) as (_, client):
        outcome = await client.run(CLAIM, PATIENCE)
    assert "hidden" in repr(outcome)
    assert KEY not in repr(outcome)


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with reserved_port() as nobody:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{nobody}")
        assert await both_ways(replying(ACCEPTED)) == [Accepted(), Accepted()]


# --- what comes back ------------------------------------------------------------------------


async def test_a_tool_answers_its_result() -> None:
    done = answer(202, {"status": "success", "data": {"result": 3}})
    task = make_task(message_type=MessageType.TOOL_INVOCATION, tool_name="mock_tool")
    async with served(replying(done)) as (_, client):
        assert await client.run(make_claim(task), PATIENCE) == Answered(3)


async def test_an_agent_that_works_first_answers_its_result() -> None:
    async with served(replying(answer(200, {"status": "completed", "result": "x"}))) as (
        server,
        client,
    ):
        assert await client.deliver(at(server), PATIENCE) == Answered("x")


async def test_F26_503_with_retry_after_waits() -> None:
    for outcome in await both_ways(replying(answer(503, b"", "Retry-After: 7"))):
        failed = failure(outcome)
        assert (failed.code, failed.free) == (FailureCode.THROTTLED, True)
        assert failed.retry_after == timedelta(seconds=7)


async def test_F28_422_is_kept_up_to_4_kib() -> None:
    for outcome in await both_ways(replying(answer(422, b"y" * 10_000))):
        failed = failure(outcome)
        assert (failed.code, failed.terminal) == (FailureCode.REJECTED, True)
        assert failed.body == "y" * 4096


# --- no answer ------------------------------------------------------------------------------


async def test_F23_connection_refused() -> None:
    with reserved_port() as nobody:
        url = f"http://127.0.0.1:{nobody}"
        async with AgentKitClient(url) as client:
            claim = make_claim(make_task(), endpoint=url + "/task")
            outcomes = [await client.run(CLAIM, PATIENCE), await client.deliver(claim, PATIENCE)]
    assert [failure(outcome).code for outcome in outcomes] == [FailureCode.UNREACHABLE] * 2
    assert failure(outcomes[0]).message == "No answer from AgentKit: the connection was refused."
    assert "contact endpoint" in failure(outcomes[1]).message


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
async def test_F23_a_name_that_is_not_known(error: Exception) -> None:
    async def unknown(host: str, port: int) -> list[str]:
        raise error

    async with AgentKitClient("http://kit.test", resolver=unknown) as client:
        failed = failure(await client.run(CLAIM, PATIENCE))
    assert failed.code is FailureCode.UNREACHABLE
    assert "cannot be resolved" in failed.message


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), None])
async def test_F23_no_connection_for_another_reason(error: OSError | None) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        if error is not None:
            raise error
        return []

    async with AgentKitClient("http://kit.test", resolver=lookup) as client:
        failed = failure(await client.run(CLAIM, PATIENCE))
    assert failed.code is FailureCode.UNREACHABLE
    assert "no connection could be made" in failed.message


async def test_F23_the_next_address_is_tried() -> None:
    async def two(host: str, port: int) -> list[str]:
        return ["::1", "127.0.0.1"]

    async with wire_server(replying(ACCEPTED)) as server:
        url = f"http://kit.test:{server.port}"
        async with AgentKitClient(url, resolver=two) as client:
            assert await client.run(CLAIM, PATIENCE) == Accepted()


async def test_F24_connecting_takes_too_long() -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    async with AgentKitClient("http://kit.test", resolver=never) as client:
        failed = failure(await client.run(CLAIM, 0.05))
    assert failed.code is FailureCode.UNREACHABLE
    assert "could not connect in time" in failed.message


async def test_F24_a_system_that_gives_up_connecting() -> None:
    async def gives_up(host: str, port: int) -> list[str]:
        raise TimeoutError(110, "Connection timed out")

    async with AgentKitClient("http://kit.test", resolver=gives_up) as client:
        failed = failure(await client.run(CLAIM, PATIENCE))
    assert failed.code is FailureCode.UNREACHABLE
    assert "could not connect in time" in failed.message


async def silence(_: Request, writer: asyncio.StreamWriter) -> None:
    """Never answers; ends when the other side closes."""
    await asyncio.Event().wait()


async def test_F24_no_answer_in_time() -> None:
    started = time.monotonic()
    for outcome in await both_ways(silence, 0.5):
        failed = failure(outcome)
        assert failed.code is FailureCode.OUTCOME_UNKNOWN
        assert "did not answer in time" in failed.message
    assert time.monotonic() - started < 5


async def reset(_: Request, writer: asyncio.StreamWriter) -> None:
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


BROKEN_OFF = {
    "nothing": b"",
    "half a head": b"HTTP/1.1 202 Acc",
    "half a body": b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\n{",
    "half a chunk": b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{",
    "no last chunk": b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.7\r\n\r\n",
    "no status": b"HTTP/1.1 abc\r\n\r\n",
    "two lengths": b"HTTP/1.1 202 A\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "endless head": b"HTTP/1.1 202 A\r\nX: " + b"x" * 200_000,
    "bare line feeds": b"\n\n\n\n",
}


@pytest.mark.parametrize(
    "reply",
    [reset, *(replying(raw, close=True) for raw in BROKEN_OFF.values())],
    ids=["reset", *BROKEN_OFF],
)
async def test_F25_a_reset_or_truncated_answer(reply: Reply) -> None:
    for outcome in await both_ways(reply):
        failed = failure(outcome)
        assert failed.code is FailureCode.OUTCOME_UNKNOWN
        assert not failed.terminal


@pytest.mark.parametrize(
    "body",
    [b"<html>Welcome</html>", b"{broken", b'{"status":NaN}', b'{"status":"\\u0000"}'],
)
async def test_F32_2xx_without_json(body: bytes) -> None:
    for outcome in await both_ways(replying(answer(202, body))):
        assert failure(outcome).code is FailureCode.OUTCOME_UNKNOWN


async def test_F32_nothing_at_all() -> None:
    from_agentkit, from_agent = await both_ways(replying(answer(202)))
    assert failure(from_agentkit).code is FailureCode.OUTCOME_UNKNOWN
    assert from_agent == Accepted()


@pytest.mark.parametrize("status", [202, 422])
@pytest.mark.parametrize("chunked", [False, True])
async def test_F32_50_mb_are_not_read(status: int, chunked: bool) -> None:
    written = []
    block = b" " * 65_536
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(block) * 800}"

    async def flood(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} Whatever\r\n{framing}\r\n\r\n".encode())
        for _block in range(800):
            writer.write(b"%x\r\n%s\r\n" % (len(block), block) if chunked else block)
            await writer.drain()
            written.append(len(block))

    outcomes = await both_ways(flood)
    expected = FailureCode.OUTCOME_UNKNOWN if status == 202 else FailureCode.REJECTED
    assert [failure(outcome).code for outcome in outcomes] == [expected, expected]
    assert sum(written) < 40 * 1024 * 1024


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "identity, gzip"])
async def test_F32_a_gzip_bomb_is_not_unpacked(coding: str) -> None:
    bomb = gzip.compress(b" " * 20_000_000)
    started = time.monotonic()
    for outcome in await both_ways(replying(answer(202, bomb, f"Content-Encoding: {coding}"))):
        failed = failure(outcome)
        assert failed.code is FailureCode.OUTCOME_UNKNOWN
        assert "compressed" in failed.message
    assert time.monotonic() - started < 5


async def test_identity_is_no_compression() -> None:
    body = b'{"status":"success"}'
    reply = replying(answer(202, body, "Content-Encoding: identity"))
    assert await both_ways(reply) == [Accepted(), Accepted()]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_F33_a_redirect_is_not_followed(status: int) -> None:
    async with wire_server(replying(ACCEPTED)) as elsewhere:
        for place in (elsewhere.url, "http://169.254.169.254/latest/meta-data"):
            for outcome in await both_ways(replying(answer(status, b"", f"Location: {place}"))):
                failed = failure(outcome)
                assert (failed.code, failed.terminal) == (FailureCode.REDIRECTED, True)
                assert "redirect" in failed.message
    assert elsewhere.opened == 0


async def test_F34_one_byte_at_a_time() -> None:
    async def trickle(_: Request, writer: asyncio.StreamWriter) -> None:
        for position in range(len(ACCEPTED)):
            writer.write(ACCEPTED[position : position + 1])
            await writer.drain()
            await asyncio.sleep(0.05)

    started = time.monotonic()
    for outcome in await both_ways(trickle, 0.3):
        assert failure(outcome).code is FailureCode.OUTCOME_UNKNOWN
        assert "in time" in failure(outcome).message
    assert time.monotonic() - started < 3


# --- TLS ------------------------------------------------------------------------------------


def tls_server(certificate: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / f"{certificate}.pem")
    return context


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=TLS / "ca.pem")


async def to_loopback(host: str, port: int) -> list[str]:
    return ["127.0.0.1"]


async def over_tls(certificate: str, tls: ssl.SSLContext | None) -> list[Outcome]:
    async with wire_server(replying(ACCEPTED), tls_server(certificate)) as server:
        url = f"https://agent.test:{server.port}"
        async with AgentKitClient(url, tls=tls, resolver=to_loopback) as client:
            claim = make_claim(make_task(), endpoint=url + "/task")
            outcomes = [await client.run(CLAIM, PATIENCE), await client.deliver(claim, PATIENCE)]
            outcomes.append(await client.run(CLAIM, PATIENCE))
    assert len(server.requests) == outcomes.count(Accepted())
    return outcomes


async def test_a_good_certificate_is_trusted() -> None:
    assert await over_tls("valid", trusting()) == [Accepted()] * 3


@pytest.mark.parametrize(
    ("certificate", "trusted", "named"),
    [
        ("expired", True, "expired"),
        ("other_host", True, "agent.test"),
        ("valid", False, "unable to get local issuer"),
    ],
)
async def test_F35_a_bad_certificate_is_named(certificate: str, trusted: bool, named: str) -> None:
    for outcome in await over_tls(certificate, trusting() if trusted else None):
        failed = failure(outcome)
        assert (failed.code, failed.free) == (FailureCode.TLS, False)
        assert named in failed.message


async def demand_certificate(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Does the handshake, tells the client why it failed, and listens until the client goes."""
    context = tls_server("valid")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(TLS / "ca.pem")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(incoming, outgoing, server_side=True)
    while data := await reader.read(65_536):
        incoming.write(data)
        with suppress(ssl.SSLError):
            session.do_handshake()
        writer.write(outgoing.read())


async def test_F35_a_server_that_wants_a_certificate_of_ours() -> None:
    async with raw_server(demand_certificate) as port:
        url = f"https://agent.test:{port}"
        async with AgentKitClient(url, tls=trusting(), resolver=to_loopback) as client:
            failed = failure(await client.run(CLAIM, PATIENCE))
    assert failed.code is FailureCode.TLS
    assert "certificate required" in failed.message.lower().replace("_", " ")


async def test_F35_a_server_without_tls() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(1) == b"\x16"
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()

    async with raw_server(plain) as port, AgentKitClient(f"https://127.0.0.1:{port}") as client:
        failed = failure(await client.run(CLAIM, PATIENCE))
    assert failed.code is FailureCode.TLS


async def test_F24_a_handshake_that_never_ends() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.read(1) == b"\x16"
        await reader.read()
        given_up.set()

    given_up = asyncio.Event()
    async with raw_server(mute) as port, AgentKitClient(f"https://127.0.0.1:{port}") as client:
        failed = failure(await client.run(CLAIM, 0.5))
        async with asyncio.timeout(PATIENCE):
            await given_up.wait()
    assert failed.code is FailureCode.UNREACHABLE
    assert "could not connect in time" in failed.message


# --- where agents may live ------------------------------------------------------------------


@pytest.mark.parametrize(
    "addresses",
    [
        ["169.254.169.254"],
        ["::ffff:169.254.169.254"],
        ["fe80::1%lo"],
        ["127.0.0.1", "169.254.169.254"],
        ["100.100.100.200"],
    ],
)
async def test_F90_a_name_that_leads_to_a_forbidden_address(addresses: list[str]) -> None:
    async def trap(host: str, port: int) -> list[str]:
        return addresses

    async with wire_server(replying(ACCEPTED)) as server:
        url = f"http://innocent.test:{server.port}"
        claim = make_claim(make_task(), endpoint=url + "/task")
        async with AgentKitClient(url, resolver=trap) as client:
            outcomes = [await client.run(CLAIM, PATIENCE), await client.deliver(claim, PATIENCE)]
    for outcome in outcomes:
        failed = failure(outcome)
        assert (failed.code, failed.terminal) == (FailureCode.FORBIDDEN_ENDPOINT, True)
    assert server.opened == 0


async def test_F90_the_checked_address_is_the_one_that_is_called() -> None:
    asked = []

    async def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    async with wire_server(replying(answer(202, {}), close=True)) as server:
        claim = make_claim(make_task(), endpoint=f"http://rebound.test:{server.port}/task")
        async with AgentKitClient(server.url, resolver=rebinding) as client:
            assert await client.deliver(claim, PATIENCE) == Accepted()
            await server.until(lambda wire: wire.open == 0)
            failed = failure(await client.deliver(claim, PATIENCE))
    assert failed.code is FailureCode.FORBIDDEN_ENDPOINT
    assert server.requests[0].headers["host"] == f"rebound.test:{server.port}"
    assert len(server.requests) == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "innocent.test", "0x7f.1"])
async def test_F90_private_agents_are_refused_by_the_setting(host: str) -> None:
    async with wire_server(replying(ACCEPTED)) as server:
        claim = make_claim(make_task(), endpoint=f"http://{host}:{server.port}/task")
        async with AgentKitClient(
            server.url, endpoints=EndpointPolicy(allow_private=False), resolver=to_loopback
        ) as client:
            failed = failure(await client.deliver(claim, PATIENCE))
            assert await client.run(CLAIM, PATIENCE) == Accepted()
            again = failure(await client.deliver(claim, PATIENCE))
    assert failed == again
    assert (failed.code, failed.terminal) == (FailureCode.FORBIDDEN_ENDPOINT, True)
    assert "OPSCORE_ALLOW_PRIVATE_ENDPOINTS" in failed.message


@pytest.mark.parametrize(
    ("allowlist", "delivered"),
    [(["innocent.test"], True), (["127.0.0.0/8"], True), (["10.0.0.0/8"], False)],
)
async def test_name_is_called_where_the_allow_list_has_it_or_its_address(
    allowlist: list[str], delivered: bool
) -> None:
    async with wire_server(replying(ACCEPTED)) as server:
        claim = make_claim(make_task(), endpoint=f"http://innocent.test:{server.port}/task")
        policy = EndpointPolicy.of(False, allowlist)
        async with AgentKitClient(server.url, endpoints=policy, resolver=to_loopback) as client:
            outcome = await client.deliver(claim, PATIENCE)
    assert (outcome == Accepted()) is delivered
    if not delivered:
        assert failure(outcome).code is FailureCode.FORBIDDEN_ENDPOINT


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1"])
async def test_F90_other_spellings_of_loopback_are_called_if_allowed(host: str) -> None:
    async with served(replying(ACCEPTED)) as (server, client):
        claim = make_claim(make_task(), endpoint=f"http://{host}:{server.port}/task")
        assert await client.deliver(claim, PATIENCE) == Accepted()


@pytest.mark.parametrize(
    "endpoint",
    ["http://169.254.169.254/", "ftp://a.test/", "http://xn--\u00fc.test/", "http://[::"],
)
async def test_F90_a_stored_endpoint_is_checked_again(endpoint: str) -> None:
    async with AgentKitClient("http://kit.test") as client:
        failed = failure(await client.deliver(make_claim(make_task(), endpoint=endpoint), PATIENCE))
    assert (failed.code, failed.terminal) == (FailureCode.FORBIDDEN_ENDPOINT, True)


@pytest.mark.parametrize("endpoint", [None, ""])
async def test_an_agent_without_an_endpoint_cannot_be_called(endpoint: str | None) -> None:
    async with AgentKitClient("http://kit.test") as client:
        failed = failure(await client.deliver(make_claim(make_task(), endpoint=endpoint), PATIENCE))
    assert failed.code is FailureCode.NO_ENDPOINT


async def test_names_are_resolved_by_the_system() -> None:
    assert set(await resolve("localhost", 80)) & {"127.0.0.1", "::1"}


# --- connections ----------------------------------------------------------------------------


async def test_a_connection_is_used_again() -> None:
    async with served(replying(ACCEPTED)) as (server, client):
        for _ in range(5):
            assert await client.run(CLAIM, PATIENCE) == Accepted()
        assert server.opened == 1
        await client.close()
        await server.until(lambda wire: wire.open == 0)


async def test_F25_a_connection_closed_while_idle_loses_no_task() -> None:
    async with served(replying(ACCEPTED)) as (server, client):
        for _ in range(3):
            assert await client.run(CLAIM, PATIENCE) == Accepted()
            await server.drop_connections()
        assert server.opened == 3


async def test_an_old_connection_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opscore.agentkit_client.connecting.KEEP_ALIVE", 0.0)
    async with served(replying(ACCEPTED)) as (server, client):
        for _ in range(3):
            assert await client.run(CLAIM, PATIENCE) == Accepted()
        assert server.opened == 3
        await server.until(lambda wire: wire.open <= 1)


@pytest.mark.parametrize(
    "raw",
    [
        answer(202, {"status": "success"}, "Connection: close"),
        b'HTTP/1.0 202 Accepted\r\n\r\n{"status":"success"}',
        b'HTTP/1.1 202 Accepted\r\n\r\n{"status":"success"}',
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(202, {"status": "success"}),
    ],
)
async def test_old_and_simple_servers_are_understood(raw: bytes) -> None:
    assert await both_ways(replying(raw, close=True)) == [Accepted(), Accepted()]


async def test_connections_are_bounded_and_shared() -> None:
    seen: list[int] = []

    async with wire_server(silence) as server:

        async def reply(request: Request, writer: asyncio.StreamWriter) -> None:
            seen.append(server.open)
            await replying(ACCEPTED)(request, writer)

        server.reply = reply
        async with AgentKitClient(server.url, max_connections=4) as client:
            outcomes = await asyncio.gather(*(client.run(CLAIM, PATIENCE) for _ in range(50)))
    assert outcomes == [Accepted()] * 50
    assert len(seen) == 50
    assert max(seen) <= 4


async def test_idle_connections_to_many_agents_are_bounded() -> None:
    reply = replying(ACCEPTED)
    async with served(reply, max_connections=1) as (first, client), wire_server(reply) as second:
        assert await client.deliver(at(first), PATIENCE) == Accepted()
        assert await client.deliver(at(second), PATIENCE) == Accepted()
        await first.until(lambda wire: wire.open == 0)
        assert second.open == 1


async def test_a_cancelled_run_closes_its_connection() -> None:
    async with served(silence) as (server, client):
        running = asyncio.create_task(client.run(CLAIM, PATIENCE))
        await server.until(lambda wire: len(wire.requests) == 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        server.reply = replying(ACCEPTED)
        assert await client.run(CLAIM, PATIENCE) == Accepted()
        assert server.opened == 2


async def test_what_ends_after_closing_keeps_no_connection() -> None:
    proceed = asyncio.Event()

    async def late(request: Request, writer: asyncio.StreamWriter) -> None:
        await proceed.wait()
        await replying(ACCEPTED)(request, writer)

    async with served(late) as (server, client):
        running = asyncio.create_task(client.run(CLAIM, PATIENCE))
        await server.until(lambda wire: len(wire.requests) == 1)
        await client.close()
        proceed.set()
        assert await running == Accepted()
        await server.until(lambda wire: wire.open == 0)


# --- cancelling, bad parameters, settings ---------------------------------------------------


async def test_an_agent_is_told_of_a_cancelled_task() -> None:
    async with served(replying(answer(200))) as (server, client):
        await client.cancel(CLAIM.task, CLAIM.agent, Delivery.AGENTKIT)
        await client.cancel(CLAIM.task, at(server).agent, Delivery.DIRECT)
    lines = [request.line for request in server.requests]
    assert lines == ["POST /v1/agents/a1/run HTTP/1.1", "POST /task HTTP/1.1"]
    for request in server.requests:
        assert request.json["messageType"] == "task_cancel"
        assert request.json["opscore_task_id"] == CLAIM.task.id


@pytest.mark.parametrize("via", list(Delivery))
@pytest.mark.parametrize("reply", [reset, replying(answer(500)), replying(answer(404))])
async def test_a_cancellation_that_fails_is_only_logged(
    via: Delivery, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "opscore.agentkit_client")
    async with served(reply, api_key=KEY) as (server, client):
        await client.cancel(CLAIM.task, at(server).agent, via)
    (record,) = (entry for entry in caplog.records if entry.name.startswith("opscore"))
    assert record.levelno == logging.INFO
    assert record.__dict__["task_id"] == CLAIM.task.id
    assert KEY not in caplog.text


async def test_a_cancellation_without_an_endpoint_is_only_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "opscore.agentkit_client")
    async with AgentKitClient("http://kit.test") as client:
        await client.cancel(CLAIM.task, CLAIM.agent, Delivery.DIRECT)
    assert "no contact endpoint" in caplog.text


async def test_F15_parameters_that_are_no_json_are_rejected() -> None:
    claim = make_claim(replace(CLAIM.task, parameters={"value": object()}))
    async with served(replying(ACCEPTED)) as (server, client):
        failed = failure(await client.run(claim, PATIENCE))
    assert (failed.code, failed.terminal) == (FailureCode.REJECTED, True)
    assert server.requests == []


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "kit.test:8080",
        "ftp://kit.test",
        "http://user:pass@kit.test",
        "http://kit.test/?a=b",
        "http://kit.test/#a",
        "http://169.254.169.254/",
        "http://256.1.1.1/",
        "http://xn--\u00fc.test/",
    ],
)
def test_a_base_url_that_cannot_be_used_is_refused_at_once(base_url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AgentKitClient(base_url)
    assert "AGENTKIT_API_URL" in refused.value.detail
    assert "pass" not in refused.value.detail


@pytest.mark.parametrize("key", ["two words", "line\nfeed", "\u00fcmlaut", "tab\t"])
def test_F92_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        AgentKitClient("http://kit.test", api_key=key)
    assert key not in refused.value.detail


@pytest.mark.parametrize("key", [None, KEY])
async def test_the_settings_make_a_client(key: str | None) -> None:
    async with wire_server(replying(ACCEPTED)) as server:
        settings = Settings(
            agentkit_api_url=server.url + "/v1",
            agentkit_api_key=SecretStr(key) if key else None,
            allow_private_endpoints=False,
        )
        async with AgentKitClient.from_settings(settings) as client:
            assert await client.run(CLAIM, PATIENCE) == Accepted()
            failed = failure(await client.deliver(at(server), PATIENCE))
    assert server.requests[0].headers.get("authorization") == (f"Bearer {key}" if key else None)
    assert failed.code is FailureCode.FORBIDDEN_ENDPOINT
