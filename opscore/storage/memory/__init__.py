"""The storage in this process's memory: the default, quick, and gone with the process."""

from opscore.storage.memory.store import MemoryStorage

__all__ = ["MemoryStorage"]
