"""A whole instance on its way out of the service, or into it before it begins."""

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import BinaryIO

from opscore.exceptions import ConfigurationError
from opscore.logging_config import log_operation
from opscore.storage import Storage
from opscore.storage.transfer import Writer, export_lines, import_lines


async def begin_export(storage: Storage, kind: str) -> AsyncIterator[bytes]:
    """The lines of an export; a storage that is away raises StorageError before the first."""
    lines = export_lines(storage, Writer(), kind)
    # The first part says only what this is, the second one is read from the storage.
    beginning = [await anext(lines), await anext(lines)]

    async def parts() -> AsyncIterator[bytes]:
        async with aclosing(lines):
            for part in beginning:
                yield part
            async for part in lines:
                yield part

    return parts()


async def take_in(file: Path, storage: Storage) -> None:
    """Begin with what an export holds; the storage must be empty."""
    with log_operation("import", file=str(file)), _opened(file) as lines:
        await import_lines(storage, lines)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    try:
        with file.open("rb") as lines:
            yield lines
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}.") from error
