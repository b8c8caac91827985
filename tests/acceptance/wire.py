"""A wire to PostgreSQL that can be cut where a commit passes it, or carry nothing any more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

SOCKET = ".s.PGSQL.5432"
COMMIT = b"COMMIT\0"


@dataclass
class Wire:
    """`before` cuts it before the database hears of a commit, `after` before its answer.

    A link falls silent at the first message with `silencer` in it, which is lost as well.
    """

    place: Path
    folder: Path
    before: bool = False
    after: bool = False
    silencer: bytes | None = None
    silent: "set[asyncio.Task[None]]" = field(default_factory=set)
    _server: asyncio.Server | None = None
    links: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._link, self.folder / SOCKET)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in self.links:
            link.cancel()
        await asyncio.gather(*self.links, return_exceptions=True)
        await self._server.wait_closed()

    def mend(self) -> None:
        self.before = self.after = False

    def fall_silent(self) -> None:
        """Nobody who is connected hears anything any more; those who come later do."""
        self.silent |= self.links

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.links.add(task)
        there, to_there = await asyncio.open_unix_connection(self.place / SOCKET)
        back = asyncio.create_task(_carry(there, writer))
        try:
            await self._forth(self._heard(task, reader), to_there, back)
        finally:
            back.cancel()
            for end in (writer, to_there):
                end.close()
                with suppress(OSError, asyncio.CancelledError):
                    await end.wait_closed()
            self.links.discard(task)

    async def _heard(
        self, link: "asyncio.Task[None]", reader: asyncio.StreamReader
    ) -> AsyncIterator[bytes]:
        while data := await reader.read(65536):
            if self.silencer is not None and self.silencer in data:
                self.silent.add(link)
            if link not in self.silent:
                yield data

    async def _forth(
        self,
        heard: AsyncIterator[bytes],
        to_there: asyncio.StreamWriter,
        back: "asyncio.Task[None]",
    ) -> None:
        async for data in heard:
            commits = COMMIT in data
            if commits and self.before:
                return
            if commits and self.after:
                back.cancel()
            to_there.write(data)
            await to_there.drain()
            if commits and self.after:
                return


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    # Whoever waits for more is told that there is none.
    writer.close()
