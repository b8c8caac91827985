"""Logging: one line for one thing, with its context, and never at the cost of a request."""

from opscore.logging_config.configure import LogSettings, configure_logging
from opscore.logging_config.context import LOG_CONTEXT, log_context
from opscore.logging_config.operation import log_operation
from opscore.logging_config.pipeline import LogPipeline

__all__ = [
    "LOG_CONTEXT",
    "LogPipeline",
    "LogSettings",
    "configure_logging",
    "log_context",
    "log_operation",
]
