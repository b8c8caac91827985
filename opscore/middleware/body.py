"""Reading a request's body: bounded in size and in time."""

import asyncio
from collections.abc import Generator
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from opscore.exceptions import PayloadTooLargeError, RequestTimeoutError


async def read_body(receive: Receive, limit: int, seconds: float) -> bytes:
    """Return the whole body.

    Raises PayloadTooLargeError, RequestTimeoutError, or ClientDisconnect when nobody is left to
    answer.
    """
    # Mostly the body is here already, and setting up a timeout costs more than all the rest.
    steps = receive().__await__()
    try:
        pending = next(steps)
    except StopIteration as done:
        message: Message = done.value
        if not message.get("more_body"):
            return _chunk(message, 0, limit)
        return await _read_rest(receive, message, limit, seconds)
    return await _read_rest(receive, _Begun(steps, pending), limit, seconds)


def replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once, as one message, and then what the client does next."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


class _Begun:
    """An awaitable that was driven to its first wait, and goes on from there."""

    def __init__(self, steps: Generator[Any, None, Message], pending: Any) -> None:
        self._steps = steps
        self._pending = pending

    def __await__(self) -> Generator[Any, None, Message]:
        try:
            yield self._pending
            return (yield from self._steps)
        finally:
            self._steps.close()


async def _read_rest(
    receive: Receive, first: Message | _Begun, limit: int, seconds: float
) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            message = await first if isinstance(first, _Begun) else first
            body += _chunk(message, 0, limit)
            while message.get("more_body"):
                message = await receive()
                body += _chunk(message, len(body), limit)
    except TimeoutError as error:
        raise RequestTimeoutError(
            f"The body did not arrive within {seconds:g} seconds; send it faster or in parts."
        ) from error
    return bytes(body)


def _chunk(message: Message, held: int, limit: int) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    chunk: bytes = message.get("body", b"")
    if held + len(chunk) > limit:
        raise too_large(limit)
    return chunk


def too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The body is too large; send at most {limit} bytes.")
