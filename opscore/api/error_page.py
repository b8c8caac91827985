"""The page behind the `type` of every error, and the errors that it must have a place for."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from opscore.api.markdown import to_html
from opscore.exceptions import (
    ConfigurationError,
    IdempotencyKeyUsedError,
    OpsCoreError,
    WebhookReplayedError,
)

PATH = "/docs/errors"

# These never become an answer of their own.
_INTERNAL = (ConfigurationError, IdempotencyKeyUsedError, WebhookReplayedError)

# A wheel has the page beside this module, a checkout only where all pages are.
_PACKAGED = Path(__file__).with_name("errors.md")
_IN_CHECKOUT = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Errors of Ops-Core</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto }}
:target {{ background: #fff3c4 }}
pre {{ overflow-x: auto; background: #f4f4f4; padding: 0.5rem }}
code {{ font-size: 0.95em }}
</style>
</head>
<body>
{text}
</body>
</html>
"""


def answered_errors() -> list[type[OpsCoreError]]:
    """Every error that a client may be answered, by status and code."""
    kinds: list[type[OpsCoreError]] = [OpsCoreError, *_below(OpsCoreError)]
    answered = [kind for kind in kinds if kind not in _INTERNAL]
    return sorted(answered, key=lambda kind: (kind.status, kind.code))


@cache
def error_page() -> str:
    """The whole text of docs/reference/errors.md."""
    source = _PACKAGED if _PACKAGED.is_file() else _IN_CHECKOUT
    return _PAGE.format(text=to_html(source.read_text(encoding="utf-8")))


def _below(kind: type[OpsCoreError]) -> Iterator[type[OpsCoreError]]:
    for child in kind.__subclasses__():
        # Whoever imports the service may have errors of their own.
        if child.__module__ == OpsCoreError.__module__:
            yield child
            yield from _below(child)
