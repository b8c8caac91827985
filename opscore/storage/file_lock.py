"""An exclusive lock on a database file, held as long as its process lives."""

import fcntl
import os
from pathlib import Path

from opscore.exceptions import ConfigurationError

_PRIVATE = 0o600


class FileLock:
    """A lock on the file `path.lock`: two processes on one database would not see each other.

    The file is removed with the lock if this lock has made it. The holder alone removes it, so
    a process that has opened it just before finds another file under the name, and tries again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = Path(f"{path}.lock")
        self._descriptor: int | None = None
        self._is_ours = False

    def acquire(self) -> None:
        """Raise ConfigurationError if another process holds the lock, or no file can be made."""
        while True:
            descriptor = self._open()
            if self._lock(descriptor):
                self._descriptor = descriptor
                return
            os.close(descriptor)

    def release(self) -> None:
        """Does nothing if the lock is not held."""
        if self._descriptor is None:
            return
        if self._is_ours:
            # Before the lock ends: afterwards the file may be another process's.
            self._file.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            try:
                descriptor = os.open(self._file, flags | os.O_CREAT | os.O_EXCL, _PRIVATE)
                self._is_ours = True
            except FileExistsError:
                descriptor = os.open(self._file, flags | os.O_CREAT, _PRIVATE)
                self._is_ours = False
        except OSError as error:
            raise ConfigurationError(
                f"OPSCORE_STORAGE_URL: {self._path} cannot be opened ({error.strerror}); name a "
                "file in a folder that exists and may be written to."
            ) from error
        return descriptor

    def _lock(self, descriptor: int) -> bool:
        """Return whether the locked file still has its name; close it where that is refused."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise ConfigurationError(
                f"OPSCORE_STORAGE_URL: another process uses {self._path}; stop it, or use "
                "PostgreSQL for several replicas."
            ) from error
        try:
            return os.path.samestat(os.fstat(descriptor), self._file.stat())
        except FileNotFoundError:
            return False
