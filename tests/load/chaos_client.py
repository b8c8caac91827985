"""How clients of a chaos run send: to one replica after the other, until one answers."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence

import httpx

# A stopped replica takes connections and never answers.
_TIMEOUTS = {"connect": 1.0, "read": 4.0, "write": 4.0, "pool": 10.0}
_PAUSE = (0.05, 0.2)
_LONGEST_PAUSE = 1.0


class Insistent(httpx.AsyncBaseTransport):
    """Whatever the request's host, it goes to one of the replicas.

    No answer, and an answer that asks to come again, leads to another try within `patience`
    seconds; with 0 there is one try only. `answers` counts each status, and each silence.
    """

    def __init__(
        self, replicas: Sequence[str], draw: random.Random, answers: Counter[str], patience: float
    ) -> None:
        self._replicas = [httpx.URL(url) for url in replicas]
        self._draw = draw
        self._answers = answers
        self._patience = patience
        limits = httpx.Limits(max_connections=1000)
        self._inner = httpx.AsyncHTTPTransport(verify=False, limits=limits)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + self._patience
        pause = self._draw.uniform(*_PAUSE)
        while True:
            last = time.monotonic() >= deadline
            try:
                response = await self._send(request)
            except httpx.LocalProtocolError:
                raise
            except httpx.TransportError as error:
                self._answers[type(error).__name__] += 1
                if last:
                    raise
            else:
                self._answers[str(response.status_code)] += 1
                if last or not _asks_again(response):
                    return response
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _send(self, request: httpx.Request) -> httpx.Response:
        replica = self._draw.choice(self._replicas)
        url = request.url.copy_with(scheme="http", host=replica.host, port=replica.port)
        copy = httpx.Request(
            request.method,
            url,
            headers=request.headers,
            content=await request.aread(),
            extensions={"timeout": _TIMEOUTS},
        )
        response = await self._inner.handle_async_request(copy)
        content = await _read(response)
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _read(response: httpx.Response) -> bytes:
    try:
        return await response.aread()
    finally:
        await response.aclose()


def _asks_again(response: httpx.Response) -> bool:
    return response.status_code >= 500 or "retry-after" in response.headers
