"""The HTTP API. `uvicorn opscore.api:app` serves it; importing it does nothing."""

import logging
import os
import sys
from functools import cache
from typing import Any

from fastapi import FastAPI

logger = logging.getLogger(__name__)

_UNGUARDED = (
    "This server was not started by 'opscore serve': it bounds neither connections nor the time "
    "for headers and for reading answers, and does not drain on SIGTERM; start it with 'opscore "
    "serve', or keep it behind a proxy that bounds them."
)


@cache
def _app() -> FastAPI:
    # Loaded here, so that importing the package neither reads settings nor builds anything.
    from opscore import crash_points  # noqa: PLC0415 - see above
    from opscore.api.application import create_app  # noqa: PLC0415 - see above
    from opscore.exceptions import ConfigurationError  # noqa: PLC0415 - see above
    from opscore.logging_config import configure_logging  # noqa: PLC0415 - see above
    from opscore.settings import load_settings  # noqa: PLC0415 - see above

    try:
        crash_points.arm(os.environ.get(crash_points.VARIABLE))
        settings = load_settings()
        app = create_app(settings, log=configure_logging(settings))
    except ConfigurationError as error:
        print(error.detail, file=sys.stderr)
        raise SystemExit(2) from error
    logger.warning(_UNGUARDED)
    return app


def __getattr__(name: str) -> Any:
    if name == "app":
        return _app()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
