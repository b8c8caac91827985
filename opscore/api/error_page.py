"""The page behind the `type` of every error: made from the exception tree, so never behind it."""

import inspect
from collections.abc import Iterator
from html import escape

from opscore.exceptions import (
    ConfigurationError,
    IdempotencyKeyUsedError,
    OpsCoreError,
    WebhookReplayedError,
)

PATH = "/docs/errors"

# These never become an answer of their own.
_INTERNAL = (ConfigurationError, IdempotencyKeyUsedError, WebhookReplayedError)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Errors of Ops-Core</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto }}
section:target {{ background: #fff3c4 }}
code {{ font-size: 0.95em }}
</style>
</head>
<body>
<h1>Errors of Ops-Core</h1>
<p>Every error answer is <code>application/problem+json</code>. Its <code>detail</code> says what to
do, its <code>code</code> is one of those below, and its <code>requestId</code> is in the log.</p>
{sections}
</body>
</html>
"""
_SECTION = """<section id="{code}">
<h2><code>{code}</code></h2>
<p>Status {status}. {title}.</p>{meaning}
</section>"""


def answered_errors() -> list[type[OpsCoreError]]:
    """Every error that a client may be answered, by status and code."""
    kinds: list[type[OpsCoreError]] = [OpsCoreError, *_below(OpsCoreError)]
    answered = [kind for kind in kinds if kind not in _INTERNAL]
    return sorted(answered, key=lambda kind: (kind.status, kind.code))


def error_page() -> str:
    return _PAGE.format(sections="\n".join(map(_section, answered_errors())))


def _below(kind: type[OpsCoreError]) -> Iterator[type[OpsCoreError]]:
    for child in kind.__subclasses__():
        # Whoever imports the service may have errors of their own.
        if child.__module__ == OpsCoreError.__module__:
            yield child
            yield from _below(child)


def _section(kind: type[OpsCoreError]) -> str:
    text = inspect.cleandoc(kind.__doc__) if "__doc__" in vars(kind) and kind.__doc__ else ""
    # What stands there without words of its own is inherited, or said by the title.
    meaning = f"\n<p>{escape(text)}</p>" if text and kind is not OpsCoreError else ""
    title = escape(kind.title)
    return _SECTION.format(code=kind.code, status=kind.status, title=title, meaning=meaning)
