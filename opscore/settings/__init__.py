"""Settings, read once from the environment and `.env`, and checked as a whole."""

from opscore.settings.loading import load_settings, read_environment
from opscore.settings.model import Settings
from opscore.settings.names import environment_name
from opscore.settings.secret_rules import MIN_SECRET_LENGTH
from opscore.settings.values import accepted_values

__all__ = [
    "MIN_SECRET_LENGTH",
    "Settings",
    "accepted_values",
    "environment_name",
    "load_settings",
    "read_environment",
]
