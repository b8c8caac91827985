"""Takes the configured secrets out of what is written, in whatever spelling they got there."""

import json
from collections.abc import Iterable
from urllib.parse import quote

REDACTED = b"[redacted]"
# Shorter ones would tear words apart, and protect nothing.
SHORTEST_SECRET = 6


class Redactor:
    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._needles: tuple[bytes, ...] = ()
        self.add(*secrets)

    def add(self, *secrets: str) -> None:
        found = set(self._needles)
        for secret in secrets:
            if len(secret) >= SHORTEST_SECRET:
                found.update(_spellings(secret))
        # The longest first: one secret may hold another.
        self._needles = tuple(sorted(found, key=len, reverse=True))

    def clean(self, data: bytes) -> bytes:
        for needle in self._needles:
            if needle in data:
                data = data.replace(needle, REDACTED)
        return data


def _spellings(secret: str) -> set[bytes]:
    """The secret as Python, URLs and JSON write it, and each of these inside JSON."""
    plain = {
        secret,
        repr(secret)[1:-1],
        secret.encode("unicode_escape").decode("ascii"),
        secret.encode("ascii", "backslashreplace").decode("ascii"),
        quote(secret),
        quote(secret, safe=""),
    }
    escaped = {
        json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        for text in plain
        for ascii_only in (True, False)
    }
    return {text.encode("utf-8", "replace") for text in plain | escaped}
