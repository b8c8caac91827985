"""Headers that tell browsers what an answer may not be used for."""

import hashlib
import re
from base64 import b64encode

RawHeaders = tuple[tuple[bytes, bytes], ...]

_EVERYWHERE: RawHeaders = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

# For data: no browser renders it, and no cache keeps what needs a key.
SECURITY_HEADERS: RawHeaders = (
    *_EVERYWHERE,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)

_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
_BASIC = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def page_headers(*pages: str) -> RawHeaders:
    """Return the headers for pages of the service: they load what it serves itself.

    Of inline scripts and style sheets exactly those of the given pages are allowed.
    """
    inline = [found for page in pages for found in _INLINE.findall(page)]
    scripts = " ".join(_hash(text) for kind, text in inline if kind == "script")
    styles = " ".join(_hash(text) for kind, text in inline if kind == "style")
    policy = (
        f"{_BASIC}; connect-src 'self'; img-src 'self' data:; "
        f"script-src 'self' {scripts}; style-src 'self' {styles}"
    )
    return (*_EVERYWHERE, (b"content-security-policy", policy.encode()))


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
