"""Where log lines end: a file descriptor such as standard error, or a file that rotates."""

import os
import select
import stat
from pathlib import Path
from typing import Protocol

TEN_MEGABYTES = 10_000_000
_PRIVATE = 0o600


class Sink(Protocol):
    def write(self, data: bytes) -> None:
        """Write whole lines. May block as long as it likes; raises OSError when they are lost."""

    def close(self) -> None:
        """Give back what was opened."""


class DescriptorSink:
    """Writes without buffers: what failed is known at once, and nothing is kept to fail again."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False

    def write(self, data: bytes) -> None:
        view = memoryview(b"\n" + data if self._torn else data)
        total = len(view)
        try:
            while view:
                view = view[self._write_some(view) :]
        finally:
            # After half a line, the next one must not go on where it ended.
            self._torn = 0 < len(view) < total or (self._torn and len(view) == total)

    def close(self) -> None:
        """Standard error is not ours to close."""

    def _write_some(self, view: memoryview) -> int:
        try:
            return os.write(self._descriptor, view)
        except BlockingIOError:
            select.select([], [self._descriptor], [], 1.0)
            return 0


class RotatingFileSink:
    """Keeps `path` below a size; older lines move to `path.1`, `path.2` and so on.

    A file that is made is for its owner alone; a file that exists keeps its mode, and the
    files that follow it have the same.
    """

    def __init__(self, path: Path, *, max_bytes: int = TEN_MEGABYTES, kept: int = 5) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._kept = kept
        self._open(_PRIVATE)

    def write(self, data: bytes) -> None:
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        self._sink.write(data)
        self._size += len(data)

    def close(self) -> None:
        os.close(self._descriptor)

    def _open(self, mode: int) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, mode)
        self._sink = DescriptorSink(self._descriptor)
        self._size = os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        names = [self._path, *(Path(f"{self._path}.{n}") for n in range(1, self._kept + 1))]
        for older, newer in zip(reversed(names[1:]), reversed(names[:-1]), strict=True):
            if newer.exists():
                newer.replace(older)
        mode = stat.S_IMODE(os.fstat(self._descriptor).st_mode)
        os.close(self._descriptor)
        self._open(_PRIVATE)
        os.fchmod(self._descriptor, mode)
