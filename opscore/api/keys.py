"""The API keys the service accepts, and the refusal to start without one."""

import secrets
import sys

from pydantic import SecretStr

from opscore.exceptions import ConfigurationError
from opscore.settings import Settings


def with_api_key(settings: Settings) -> Settings:
    """The settings with a key in them: the configured one, or in development a random one."""
    if settings.api_key is not None:
        return settings
    if not settings.dev:
        raise ConfigurationError(
            "OPSCORE_API_KEY: not set. Set it to a long random value, or set OPSCORE_DEV=1 to "
            "have a random key made and printed at every start."
        )
    key = secrets.token_urlsafe(24)
    # To the person at the terminal only: the log hides keys.
    print(f"API key of this run: {key}", file=sys.stderr)
    return settings.model_copy(update={"api_key": SecretStr(key)})
