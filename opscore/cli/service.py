"""Starts the service. Each wrong setting becomes a sentence, and the exit status is 2."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from opscore import crash_points
from opscore.api.serve import run
from opscore.cli.environment import BAD_SETTINGS
from opscore.exceptions import ConfigurationError
from opscore.settings import load_settings


def run_service(host: str | None, port: int | None, imported: Path | None = None) -> int:
    given: dict[str, Any] = {"host": host, "port": port}
    chosen = {name: value for name, value in given.items() if value is not None}
    # Until the server handles signals, an interrupt ends the process without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        crash_points.arm(os.environ.get(crash_points.VARIABLE))
        return run(load_settings().model_copy(update=chosen), imported)
    except ConfigurationError as error:
        print(error.detail, file=sys.stderr)
        return BAD_SETTINGS
