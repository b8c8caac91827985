"""What the Content-Type header says of a body."""

import re
from enum import Enum, auto
from functools import lru_cache

from opscore.exceptions import OpsCoreError, UnsupportedMediaTypeError

_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
_YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii"})


class Kind(Enum):
    JSON = auto()
    YAML = auto()
    OTHER = auto()


@lru_cache(maxsize=128)
def kind_of(content_type: bytes) -> Kind:
    """Which kind of text it is; raise UnsupportedMediaTypeError for another charset than UTF-8."""
    text = content_type.decode("latin-1")
    charset = _CHARSET.search(text)
    if charset and charset[1].lower() not in _UTF8:
        raise UnsupportedMediaTypeError("Send the body in UTF-8; other charsets are not read.")
    media_type = text.partition(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        return Kind.JSON
    return Kind.YAML if media_type in _YAML else Kind.OTHER


def unsupported() -> OpsCoreError:
    return UnsupportedMediaTypeError(
        "Send JSON with Content-Type: application/json; workflows may also be application/yaml."
    )
