"""The limit of open files: raised at start, and shared out between connections and the rest."""

import asyncio
import logging
import resource
from typing import Any

from opscore.api.http_server.admission import HEALTH_RESERVE
from opscore.api.http_server.shortage_log import ShortageLog

# More is never needed, and some programs walk through all numbers up to the limit.
WANTED = 65_536
MAX_CONNECTIONS = 16_384
# Accepted in one turn of the event loop, before the cap on connections sees any of them.
ACCEPT_BACKLOG = 256
# Below this, connections and deliveries have to share what is there.
FEW = 8192

_BASE = 64
_ACCEPT_FAILED = "socket.accept() out of system resource"

logger = logging.getLogger(__name__)


def raise_open_file_limit(wanted: int = WANTED) -> int:
    """Raise the soft limit towards the hard one and return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft == resource.RLIM_INFINITY or soft >= target:
        return wanted if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    except (OSError, ValueError):
        # Some systems have a further limit of their own.
        return soft
    return target


def max_connections(open_files: int, storage_connections: int, deliveries: int) -> int:
    """Return how many connections fit beside what storage, deliveries and the process need."""
    reserve = _BASE + HEALTH_RESERVE + ACCEPT_BACKLOG + storage_connections + deliveries
    return min(MAX_CONNECTIONS, max(open_files // 4, open_files - reserve))


def warn_of_low_limit(open_files: int, connections: int) -> None:
    if open_files < FEW:
        logger.warning(
            "The limit of open files is %d: at most %d clients may be connected at once; raise it "
            "with ulimit -n or LimitNOFILE.",
            open_files,
            connections,
        )


def limit_accept_errors(loop: asyncio.AbstractEventLoop) -> None:
    """Log once a minute that no connection can be accepted; asyncio logs it thousands of times."""
    shortage = ShortageLog(
        logger,
        "New connections wait because the process or the machine has too many open files; raise "
        "the limit with ulimit -n or LimitNOFILE",
    )

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if context.get("message") == _ACCEPT_FAILED:
            shortage.note()
        else:
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
