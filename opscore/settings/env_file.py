"""Read a `.env` file strictly: a line that cannot be read stops the start instead of being skipped.

A lenient reader drops such a line with a warning, and the service then runs with a default that
the operator did not choose.
"""

from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from opscore.exceptions import ConfigurationError
from opscore.settings.names import PREFIXES

_BYTE_ORDER_MARKS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def read_env_file(path: Path) -> Mapping[str, str]:
    """Return the variables of the file; a file that does not exist has none.

    Raise ConfigurationError with one sentence for each line that cannot be read.
    """
    text = _read_text(path)
    problems = list(_problems(path, text))
    if problems:
        raise ConfigurationError("\n".join(problems))
    values = dotenv_values(stream=StringIO(text))
    return {name: value for name, value in values.items() if value is not None}


def _read_text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the file cannot be read ({error.strerror}); make it a file that the service "
            "may read, or remove it."
        ) from error
    if raw.startswith(_BYTE_ORDER_MARKS):
        raise ConfigurationError(f"{path}, line 1: save the file as UTF-8 without byte order mark.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}, line {line}: save the file as UTF-8.") from error


def _problems(path: Path, text: str) -> Iterator[str]:
    for binding in parse_stream(StringIO(text)):
        if (problem := _problem(binding)) is not None:
            yield f"{path}, line {_line(binding)}: {problem}"


def _problem(binding: Binding) -> str | None:
    content = binding.original.string.strip()
    if binding.error:
        return "write NAME=value; a quoted value ends with the same quote, on the same line."
    if binding.key is not None and binding.value is None:
        return "write NAME=value; the = is missing."
    if "\n" in content and any(f"\n{prefix}" in content for prefix in PREFIXES):
        return "close the quoted value; it takes in the settings on the lines after it."
    return None


def _line(binding: Binding) -> int:
    """Return the line of the content: blank lines before it belong to the binding too."""
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return binding.original.line + blank.count("\n")
