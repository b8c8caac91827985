"""A wire to PostgreSQL that can be cut where a commit passes it."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

SOCKET = ".s.PGSQL.5432"
COMMIT = b"COMMIT\0"


@dataclass
class Wire:
    """`before` cuts it before the database hears of a commit, `after` before its answer."""

    place: Path
    folder: Path
    before: bool = False
    after: bool = False
    _server: asyncio.Server | None = None
    _links: set[asyncio.Task[None]] = field(default_factory=set)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._link, self.folder / SOCKET)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)
        await self._server.wait_closed()

    def mend(self) -> None:
        self.before = self.after = False

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        there, to_there = await asyncio.open_unix_connection(self.place / SOCKET)
        back = asyncio.create_task(_carry(there, writer))
        try:
            await self._forth(reader, to_there, back)
        finally:
            back.cancel()
            for end in (writer, to_there):
                end.close()
                with suppress(OSError, asyncio.CancelledError):
                    await end.wait_closed()
            self._links.discard(task)

    async def _forth(
        self,
        reader: asyncio.StreamReader,
        to_there: asyncio.StreamWriter,
        back: "asyncio.Task[None]",
    ) -> None:
        while data := await reader.read(65536):
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
