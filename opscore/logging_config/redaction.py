"""Takes the configured secrets out of what is written, in whatever spelling they got there."""

from collections.abc import Iterable
from urllib.parse import quote

import orjson

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
    return {
        secret.encode(),
        orjson.dumps(secret)[1:-1],
        quote(secret).encode("ascii"),
        quote(secret, safe="").encode("ascii"),
        secret.encode("unicode_escape"),
        repr(secret)[1:-1].encode(),
    }
