"""Where an export comes from: a database, or a running service."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

import httpx
import orjson

from opscore.exceptions import ConfigurationError
from opscore.models import Retention
from opscore.storage import storage_of
from opscore.storage.location import is_in_memory, location
from opscore.storage.transfer import TransferError, Writer, export_lines
from opscore.storage.upkeep import IN_MEMORY

_ROUTE = "/v1/opscore/export"
_SCHEMES = ("http://", "https://")
# The service answers with the first lines at once, and never pauses for long.
_SILENCE = 60.0
_LAST_LINE_WITHIN = 16 * 1024


class Source(Protocol):
    """`total` and `counts` are of the records that have come until now."""

    def parts(self) -> AsyncGenerator[bytes, None]: ...

    @property
    def total(self) -> int: ...

    @property
    def counts(self) -> Mapping[str, int]: ...


def source_of(url: str) -> Source:
    if url.startswith(_SCHEMES):
        return Service(url.rstrip("/"), os.environ.get("OPSCORE_API_KEY", ""))
    if is_in_memory(url):
        raise ConfigurationError(
            f"{IN_MEMORY} To export what a running service keeps in memory, name the service: "
            "--url http://127.0.0.1:8000, with its key in OPSCORE_API_KEY."
        )
    return Database(url)


class Database:
    def __init__(self, url: str) -> None:
        self._url = url
        self._writer = Writer()

    def parts(self) -> AsyncGenerator[bytes, None]:
        kind = location(self._url).partition(" ")[0].lower()
        return export_lines(storage_of(self._url, Retention()), self._writer, kind)

    @property
    def total(self) -> int:
        return self._writer.inventory.total

    @property
    def counts(self) -> Mapping[str, int]:
        return self._writer.inventory.counts


class Service:
    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"}
        self._end = b""
        self.total = 0

    async def parts(self) -> AsyncGenerator[bytes, None]:
        try:
            async with self._answer() as answer:
                async for part in answer.aiter_bytes():
                    self._end = (self._end + part)[-_LAST_LINE_WITHIN:]
                    self.total += part.count(b"\n")
                    yield part
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise TransferError(
                f"The service at {self._url} did not send all of its export "
                f"({str(error) or type(error).__name__}); see that it runs, and export again."
            ) from error

    @property
    def counts(self) -> Mapping[str, int]:
        records = orjson.loads(self._end.rstrip(b"\n").rpartition(b"\n")[2])["records"]
        return {kind: entry["count"] for kind, entry in records.items()}

    @asynccontextmanager
    async def _answer(self) -> AsyncIterator[httpx.Response]:
        async with (
            httpx.AsyncClient(timeout=_SILENCE, trust_env=False) as http,
            http.stream("GET", self._url + _ROUTE, headers=self._headers) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                await answer.aread()
                raise TransferError(
                    f"The service at {self._url} answered {answer.status_code}{_detail(answer)}"
                )
            yield answer


def _detail(answer: httpx.Response) -> str:
    """What the service said of it; nobody else's page is shown."""
    if "problem+json" not in answer.headers.get("content-type", ""):
        return ", which is no answer of Ops-Core; name the address of the service."
    return f": {orjson.loads(answer.content).get('detail', '')}"
