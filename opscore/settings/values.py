"""Values of settings: how a duration is read, and what a setting accepts, in words.

The words stand in the documentation and in the error for a wrong value, so that both agree with
the check.
"""

from collections.abc import Callable
from datetime import timedelta
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, SecretStr, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_settings import NoDecode

from opscore.durations import format_duration, parse_duration
from opscore.models import EndpointPolicy
from opscore.settings.secret_rules import MIN_SECRET_LENGTH, check_secret, split_secrets


def _read_key(value: object, info: ValidationInfo) -> object:
    return check_secret(value, dev=_in_dev(info)) if isinstance(value, str) else value


def _read_secrets(value: object, info: ValidationInfo) -> object:
    return split_secrets(value, dev=_in_dev(info)) if isinstance(value, str) else value


def _read_allowlist(value: object) -> object:
    if not isinstance(value, str):
        return value
    entries = tuple(part.strip().lower() for part in value.split(",") if part.strip())
    EndpointPolicy.of(False, entries)
    return entries


def _in_dev(info: ValidationInfo) -> bool:
    return bool(info.data.get("dev"))


def _read_duration(value: object) -> object:
    if value == "":
        return None
    return parse_duration(value).total_seconds() if isinstance(value, str) else value


_DURATION = BeforeValidator(_read_duration)
_KEY = BeforeValidator(_read_key)
_SECRETS = BeforeValidator(_read_secrets)
_ALLOWLIST = BeforeValidator(_read_allowlist)

# Seconds as a number; written as a number of seconds, or as 30s, 5m, 1h30m.
Seconds = Annotated[float, _DURATION]
OptionalSeconds = Annotated[float | None, _DURATION]
# Secrets guard the service; the field `dev` must come before them.
ApiKey = Annotated[SecretStr | None, _KEY]
WebhookSecrets = Annotated[tuple[SecretStr, ...], NoDecode, _SECRETS]

Allowlist = Annotated[tuple[str, ...], NoDecode, _ALLOWLIST]


def accepted_values(field: FieldInfo) -> str:
    """Return what may be written for a setting, such as `a whole number from 1 to 10,000`."""
    kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind = kinds[0] if kinds else field.annotation
    if _DURATION in field.metadata:
        return f"a duration {_range(field, _as_duration)}"
    if _KEY in field.metadata or _SECRETS in field.metadata:
        return f"at least {MIN_SECRET_LENGTH} characters"
    if _ALLOWLIST in field.metadata:
        return "networks such as 10.1.0.0/16 and host names such as *.example.org, with commas"
    if kind is int:
        return f"a whole number {_range(field, _as_number)}"
    if kind is float:
        return f"a number {_range(field, _as_number)}"
    if choices := _choices(kind, kinds):
        return f"{', '.join(choices[:-1])} or {choices[-1]}"
    return _TEXTS.get(kind, "a text that is not empty")


_TEXTS: dict[Any, str] = {
    bool: "true or false",
    Path: "a path",
    SecretStr: "a text without blanks",
}


def _choices(kind: Any, kinds: list[Any]) -> list[str]:
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(choice.value) for choice in kind]
    return kinds if isinstance(kind, str) else []


def _range(field: FieldInfo, show: Callable[[float], str]) -> str:
    above, least, most = (_bound(field, name) for name in ("gt", "ge", "le"))
    if most is None:
        return f"of {show(least or 0)} or more"
    lower = f"above {show(above)}, at most" if above is not None else f"from {show(least or 0)} to"
    return f"{lower} {show(most)}"


def _bound(field: FieldInfo, name: str) -> float | None:
    return next((getattr(each, name) for each in field.metadata if hasattr(each, name)), None)


def _as_duration(seconds: float) -> str:
    return format_duration(timedelta(seconds=seconds)) if seconds else "0"


def _as_number(number: float) -> str:
    return f"{number:,}"
