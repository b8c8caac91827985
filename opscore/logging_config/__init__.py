"""Logging: one line for one thing, with its context, and never at the cost of a request."""

from opscore.logging_config.context import LOG_CONTEXT, log_context

__all__ = ["LOG_CONTEXT", "log_context"]
