"""The transport as the answer to a request with a body sees it."""

import asyncio
from collections.abc import Callable


class AnsweringTransport(asyncio.Transport):
    """Passes everything on but the closing, which has to wait for the rest of the request."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        super().__init__()
        self._transport = transport
        self._close = close

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._transport.write(data)

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._close()
