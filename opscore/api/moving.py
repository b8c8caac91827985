"""A whole instance on its way out of the service, or into it before it begins."""

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from opscore.api.importing import import_lines, read_lines
from opscore.exceptions import ConfigurationError, ExportInProgressError
from opscore.logging_config import log_operation
from opscore.storage import Storage
from opscore.storage.transfer import Writer, export_lines

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/jsonl"
_RETRY_AFTER = 30


class ExportResponse(Response):
    """The lines of an export, one export at a time.

    An export holds a transaction open, so it ends when the client takes no part for
    `part_timeout` seconds, and when the client disconnects. An error before the first part,
    such as a storage that is away, is answered like any other.
    """

    media_type = MEDIA_TYPE

    def __init__(
        self, storage: Storage, kind: str, lock: asyncio.Lock, part_timeout: float
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers()
        self._storage = storage
        self._kind = kind
        self._lock = lock
        self._part_timeout = part_timeout

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        if self._lock.locked():
            raise ExportInProgressError(
                "Another export is under way, and one runs at a time; try again when it has ended.",
                retry_after=_RETRY_AFTER,
            )
        async with self._lock:
            await _while_client_listens(self._send_parts(send), receive)

    async def _send_parts(self, send: Send) -> None:
        async with aclosing(export_lines(self._storage, Writer(), self._kind)) as parts:
            first = await anext(parts)
            head = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await self._send(send, head)
            await self._send(send, _body(first))
            async for part in parts:
                await self._send(send, _body(part))
                # A fast client and a storage in memory would never let others run.
                await asyncio.sleep(0)
        await self._send(send, _body(b"", more=False))

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._part_timeout):
                await send(message)
        except TimeoutError as error:
            logger.warning(
                "Export ended: the client took nothing for %g s; its connection is closed.",
                self._part_timeout,
            )
            raise ClientDisconnect from error


def _body(part: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": part, "more_body": more}


async def _while_client_listens(sending: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Send until the end; raise ClientDisconnect as soon as the client is gone."""
    work = asyncio.create_task(sending, name="export")
    watch = asyncio.create_task(_until_disconnect(receive), name="export client")
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        work.result()
    finally:
        work.cancel()
        watch.cancel()
        # The transaction has ended before the next export may begin.
        await asyncio.gather(work, watch, return_exceptions=True)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def take_in(file: Path, storage: Storage) -> None:
    """Begin with what an export holds; the storage must be empty."""
    with log_operation("import", file=str(file)), _opened(file) as opened:
        await import_lines(storage, read_lines(opened))


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        with file.open("rb") as lines:
            yield lines
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.") from error
