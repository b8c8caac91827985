"""Sets up logging for the whole process, from the settings."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from opscore.exceptions import ConfigurationError
from opscore.logging_config.formats import ConsoleFormat, JsonFormat, LineFormat
from opscore.logging_config.pipeline import LogPipeline, PipelineHandler
from opscore.logging_config.redaction import Redactor
from opscore.logging_config.sinks import DescriptorSink, RotatingFileSink, Sink

STANDARD_ERROR = 2
# Each logs a line for every request it makes, which says nothing that ours do not say.
TALKATIVE = ("httpx", "httpcore")


class LogSettings(Protocol):
    @property
    def log_level(self) -> str: ...
    @property
    def log_format(self) -> str: ...
    @property
    def log_file(self) -> Path | None: ...
    @property
    def api_key(self) -> SecretStr | None: ...
    @property
    def webhook_secret(self) -> tuple[SecretStr, ...]: ...
    @property
    def agentkit_api_key(self) -> SecretStr | None: ...


def configure_logging(settings: LogSettings, *, descriptor: int = STANDARD_ERROR) -> LogPipeline:
    """Route every logger of the process through one pipeline, which the caller closes at the end.

    Handlers that were there before are taken off. Raises ConfigurationError when the log file
    cannot be opened.
    """
    line_format = _line_format(settings.log_format, descriptor)
    redactor = Redactor(_secrets(settings))
    pipeline = LogPipeline(_sinks(settings.log_file, descriptor), line_format, redactor)
    root = logging.getLogger()
    root.handlers[:] = [PipelineHandler(pipeline)]
    root.setLevel(settings.log_level)
    _tame_others(settings.log_level)
    return pipeline


def _line_format(name: str, descriptor: int) -> LineFormat:
    """Return the format of that name; `auto` means console on a terminal, and JSON elsewhere."""
    if name == "auto":
        name = "console" if os.isatty(descriptor) else "json"
    return JsonFormat() if name == "json" else ConsoleFormat()


def _sinks(path: Path | None, descriptor: int) -> list[Sink]:
    sinks: list[Sink] = [DescriptorSink(descriptor)]
    if path is not None:
        try:
            sinks.append(RotatingFileSink(path))
        except OSError as error:
            raise ConfigurationError(
                f"OPSCORE_LOG_FILE: {path} cannot be opened ({error.strerror}); "
                "name a file in a folder that exists and may be written to."
            ) from error
    return sinks


def _secrets(settings: LogSettings) -> Iterator[str]:
    for secret in (settings.api_key, settings.agentkit_api_key, *settings.webhook_secret):
        if secret is not None:
            yield secret.get_secret_value()


def _tame_others(level: str) -> None:
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        # Set here as well: uvicorn asks this very logger before it builds its trace lines.
        logger.setLevel(level)
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
