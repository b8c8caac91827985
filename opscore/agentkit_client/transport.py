"""One POST, its answer, and a deadline over the whole of it."""

import asyncio

import httpcore

from opscore.agentkit_client.answers import MAX_ANSWER, HttpAnswer
from opscore.agentkit_client.connecting import (
    Connector,
    Target,
    broken_tls,
    too_slow_to_connect,
)
from opscore.agentkit_client.errors import ExchangeError
from opscore.agentkit_client.guarded_stream import Connection, NoControl, SendControl
from opscore.agentkit_client.pool import IdleConnections
from opscore.crash_points import crash_point
from opscore.models import FailureCode

Headers = list[tuple[bytes, bytes]]


class Transport:
    """Sends messages over connections of its own, and follows no redirect.

    httpcore speaks the protocol; its pool is not used, because the time it takes for a request
    grows with the number of connections.
    """

    def __init__(self, connector: Connector, max_connections: int, max_idle: int) -> None:
        self._connector = connector
        self._slots = asyncio.Semaphore(max_connections)
        self._idle = IdleConnections(max_idle)

    async def close(self) -> None:
        await self._idle.close()

    async def post(
        self,
        target: Target,
        headers: Headers,
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - the deadline is what this function is about
        control: SendControl | None = None,
    ) -> HttpAnswer:
        """The answer, whatever its status. Raise ExchangeError if there is none."""
        connection: Connection | None = None
        try:
            async with asyncio.timeout(timeout), self._slots:
                connection = await self._connection(target)
                crash_point("exchange.connected")
                connection.guard.begin(control or NoControl())
                answer = await _exchange(connection, _request(target, headers, body))
        except TimeoutError as error:
            raise _too_late(connected=connection is not None) from error
        await self._idle.give_back(target.origin, connection)
        return answer

    async def _connection(self, target: Target) -> Connection:
        idle = await self._idle.take(target.origin)
        return idle or await self._connector.connect(target)


async def _exchange(connection: Connection, request: httpcore.Request) -> HttpAnswer:
    try:
        response = await connection.handle_async_request(request)
        crash_point("exchange.head-read")
        return await _read(response)
    except httpcore.ProtocolError as error:
        raise _lost("the answer broke off or was not HTTP") from error
    except (httpcore.NetworkError, httpcore.TimeoutException, OSError) as error:
        broken = _lost("the connection broke before the answer was complete")
        raise broken_tls(error) or broken from error


async def _read(response: httpcore.Response) -> HttpAnswer:
    headers = {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers
    }
    try:
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            return HttpAnswer(response.status, headers, unread="it is compressed")
        body, complete = await _read_body(response)
    finally:
        await response.aclose()
    unread = None if complete else f"it is larger than {MAX_ANSWER // 1024} KiB"
    return HttpAnswer(response.status, headers, body, unread)


async def _read_body(response: httpcore.Response) -> tuple[bytes, bool]:
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > MAX_ANSWER:
            return bytes(body[:MAX_ANSWER]), False
    return bytes(body), True


def _request(target: Target, headers: Headers, body: bytes) -> httpcore.Request:
    origin = target.origin
    url = httpcore.URL(scheme=origin.scheme, host=origin.host, port=origin.port, target=target.path)
    length = (b"Content-Length", str(len(body)).encode())
    return httpcore.Request(
        "POST", url, headers=[(b"Host", target.host_header), length, *headers], content=body
    )


def _too_late(*, connected: bool) -> ExchangeError:
    return _lost("it did not answer in time") if connected else too_slow_to_connect()


def _lost(reason: str) -> ExchangeError:
    return ExchangeError(FailureCode.OUTCOME_UNKNOWN, reason)
