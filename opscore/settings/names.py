"""Names of variables: the ones that the project reads, and what a wrong one was meant to be."""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from pydantic import AliasChoices

from opscore.settings.model import Settings

PREFIXES = ("OPSCORE_", "AGENTKIT_")

# Variables with our prefixes that are no settings of the service. A new one is added here.
OTHER_VARIABLES: Mapping[str, str] = {
    "AGENTKIT_IMAGE": "the image of AgentKit, for Docker Compose",
    "OPSCORE_API_URL": "where a simulated agent reports",
    "OPSCORE_CRASH_POINT": "where the process ends itself, for tests",
    "OPSCORE_PG_BIN": "the folder of PostgreSQL's programs, for the demo and tests",
    "OPSCORE_WEBHOOK_URL": "where AgentKit announces registrations",
}
_TEST_PREFIX = "OPSCORE_TEST_"

# Kubernetes sets such variables in every pod for each Service, here one named opscore or agentkit.
_SERVICE_LINK = re.compile(
    r".+_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_LINK_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://")


def environment_name(field: str) -> str:
    """Return the variable that sets a field, as the documentation writes it."""
    return environment_names(field)[0]


def environment_names(field: str) -> tuple[str, ...]:
    """Return every variable that sets a field, the preferred one first."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (alias if isinstance(alias, str) else f"OPSCORE_{field.upper()}",)


def find_unknown(variables: Mapping[str, str]) -> Iterator[str]:
    """Return a sentence for each variable with one of our prefixes that nothing reads."""
    settings = {environment_name(field) for field in Settings.model_fields}
    known = settings | OTHER_VARIABLES.keys()
    for name, value in variables.items():
        upper = name.upper()
        if upper.startswith(PREFIXES) and upper not in known and not _is_foreign(upper, value):
            yield f"{name}: no setting has this name. {_advice(upper, settings)}"


def is_service_link(value: str) -> bool:
    """Tell whether Kubernetes wrote this value for a Service."""
    return _LINK_ADDRESS.match(value) is not None


def _is_foreign(name: str, value: str) -> bool:
    if name.startswith(_TEST_PREFIX) or _SERVICE_LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and is_service_link(value)


def _advice(name: str, settings: set[str]) -> str:
    """Compare without the prefix that all share; a name with both prefixes keeps its second."""
    prefix, _, rest = name.partition("_")
    # Of two settings with the same rest, the one with the same prefix comes last and stays.
    ordered = sorted(settings, key=lambda setting: (setting.startswith(prefix), setting))
    forms = {form: each for each in ordered for form in (each, each.partition("_")[2])}
    close = get_close_matches(rest, forms, n=1)
    if close:
        return f"Did you mean {forms[close[0]]}?"
    return "Remove it, or take a name of docs/reference/settings.md."
