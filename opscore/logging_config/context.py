"""The ids that every log line of a piece of work carries."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

NO_CONTEXT: Mapping[str, object] = MappingProxyType({})

LOG_CONTEXT: ContextVar[Mapping[str, object]] = ContextVar("LOG_CONTEXT", default=NO_CONTEXT)


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Add ids, such as request_id, agent_id, session_id or task_id, to the log lines within."""
    token = LOG_CONTEXT.set({**LOG_CONTEXT.get(), **ids})
    try:
        yield
    finally:
        LOG_CONTEXT.reset(token)
