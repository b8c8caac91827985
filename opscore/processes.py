"""Processes of this machine: where a process id is valid, and whether its process runs."""

import os
from pathlib import Path

from opscore.models import Replica

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def place_of_processes() -> str:
    """Return what tells a machine since its start, and a container in it, from all others.

    Names of hosts do not: containers may share one, and strangers too. Empty if unknown.
    """
    try:
        return f"{_BOOT.read_text('ascii').strip()} {os.readlink(_NAMESPACE)}"
    except OSError:
        return ""


def has_exited(replica: Replica, place: str) -> bool:
    """Return whether the process of another replica of this place is gone.

    False where that cannot be known, because the replica runs elsewhere.
    """
    return replica.place == place != "" and not _is_running(replica.pid)


def _is_running(pid: int) -> bool:
    """Return whether a process other than this one has the number."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
