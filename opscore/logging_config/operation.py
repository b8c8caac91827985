"""One operation in the log: that it began, how it ended and how long it took."""

import logging
import time
from asyncio import CancelledError
from collections.abc import Iterator
from contextlib import contextmanager

from opscore.logging_config.context import log_context

logger = logging.getLogger("opscore.operation")


@contextmanager
def log_operation(operation: str, **context: object) -> Iterator[None]:
    """Log the start at DEBUG, the end at INFO or ERROR, and give every line within the context.

    Also a decorator of plain functions. The error goes on to the caller, who knows what it means;
    the traceback is not logged here.
    """
    with log_context(operation=operation, **context):
        logger.debug("%s started", operation)
        started = time.perf_counter()
        try:
            yield
        except CancelledError:
            logger.info("%s was cancelled", operation, extra=_outcome("cancelled", started))
            raise
        except Exception as error:
            extra = {**_outcome("failed", started), "error": type(error).__name__}
            logger.error("%s failed", operation, extra=extra)
            raise
        logger.info("%s done", operation, extra=_outcome("done", started))


def _outcome(outcome: str, started: float) -> dict[str, object]:
    milliseconds = (time.perf_counter() - started) * 1000
    return {"outcome": outcome, "duration_ms": round(milliseconds, 3)}
