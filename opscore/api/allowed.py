"""Which methods a path knows. The framework names those of one route only."""

import re
from collections.abc import Iterator

from fastapi import FastAPI

_PARAMETER = re.compile(r"\\{[^/]*?\\}")


def allowed_methods(app: FastAPI, path: str) -> list[str]:
    """The methods of every documented route that matches, sorted; none for other paths."""
    known: list[tuple[re.Pattern[str], list[str]]] | None
    known = getattr(app.state, "allowed_methods", None)
    if known is None:
        known = app.state.allowed_methods = list(_patterns(app))
    found = {method for pattern, methods in known if pattern.fullmatch(path) for method in methods}
    return sorted(found)


def _patterns(app: FastAPI) -> Iterator[tuple[re.Pattern[str], list[str]]]:
    for template, operations in app.openapi()["paths"].items():
        pattern = _PARAMETER.sub("[^/]+", re.escape(template))
        yield re.compile(pattern), [method.upper() for method in operations]
