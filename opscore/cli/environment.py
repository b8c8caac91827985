"""The environment of commands that read variables without the service's settings."""

import os
import sys

from opscore.exceptions import ConfigurationError
from opscore.settings import read_environment

BAD_SETTINGS = 2


def use_env_file() -> None:
    """Add the variables of `.env` to the environment; end with status 2 if one is wrong."""
    try:
        variables = read_environment()
    except ConfigurationError as error:
        print(error.detail, file=sys.stderr)
        sys.exit(BAD_SETTINGS)
    for name, value in variables.items():
        os.environ.setdefault(name, value)
