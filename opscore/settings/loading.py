"""Load the settings; everything that is wrong with them is told at once, in our own sentences."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from opscore.exceptions import ConfigurationError
from opscore.settings.env_file import read_env_file
from opscore.settings.model import Settings
from opscore.settings.names import environment_names, find_unknown, is_service_link
from opscore.settings.values import accepted_values

ENV_FILE = Path(".env")


def load_settings() -> Settings:
    """Return the settings of the environment and of `.env`; the environment wins.

    Raise ConfigurationError with one sentence for each variable that is wrong or unknown.
    """
    variables = _read_variables()
    problems = list(find_unknown(variables))
    settings = None
    try:
        settings = Settings()
    except ValidationError as error:
        problems += _value_problems(error, variables)
    if settings is None or problems:
        # Without a cause: pydantic's own words hold the values, which may be secrets.
        raise ConfigurationError("\n".join(problems))
    return settings


def read_environment() -> Mapping[str, str]:
    """Return the variables of the environment and of `.env` for commands without the settings.

    Raise ConfigurationError for an unreadable `.env` and for a variable with an unknown name.
    """
    variables = _read_variables()
    if problems := list(find_unknown(variables)):
        raise ConfigurationError("\n".join(problems))
    return variables


def _read_variables() -> dict[str, str]:
    return {**read_env_file(ENV_FILE), **os.environ}


def _value_problems(error: ValidationError, variables: Mapping[str, str]) -> Iterator[str]:
    given = {name.upper(): value for name, value in variables.items()}
    for item in error.errors():
        field = _field_of(item)
        names = environment_names(field)
        name = next((name for name in names if name in given), names[0])
        yield f"{name}: {_explanation(item, field)}{_hint(given.get(name, ''))}"


def _field_of(item: ErrorDetails) -> str:
    """Return the field of an error, which pydantic names by its field or by its variable."""
    place = str(item["loc"][0])
    return next(
        field for field in Settings.model_fields if place in (field, *environment_names(field))
    )


def _explanation(item: ErrorDetails, field: str) -> str:
    if item["type"] == "secret":
        return item["msg"]
    return f"write {accepted_values(Settings.model_fields[field])}."


def _hint(value: str) -> str:
    if is_service_link(value):
        return (
            " Kubernetes set it for a Service of this name; set it in the pod, or set "
            "enableServiceLinks: false there."
        )
    return ""
