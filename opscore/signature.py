"""The signature of AgentKit's webhook: HMAC-SHA256 over the timestamp, a dot and the raw body."""

import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import datetime

from opscore.exceptions import UnauthorizedError

TIMESTAMP_HEADER = b"x-agentkit-timestamp"
SIGNATURE_HEADER = b"x-agentkit-signature"
MAX_SKEW = 300.0

_UNIX = re.compile(rb"[0-9]{1,11}")
# A zone is required: without one, a fraction could be moved from the timestamp into the body.
_ISO = re.compile(
    rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    rb"(Z|[+-][0-9]{2}:?[0-9]{2})"
)
_HEX = re.compile(rb"[0-9a-f]{64}")


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The signature, 64 lower-case hex digits."""
    return _digest(secret, timestamp.encode("ascii"), body).decode("ascii")


def verify(
    headers: Iterable[tuple[bytes, bytes]],
    raw_body: bytes,
    secrets: Sequence[str],
    wall_now: datetime,
) -> str:
    """Return the signature of a genuine webhook; raise UnauthorizedError for any other.

    Any of the secrets may have made it. Without a secret nothing is genuine.
    """
    found = list(headers)
    timestamp = _single(found, TIMESTAMP_HEADER)
    signature = _single(found, SIGNATURE_HEADER)
    skew = abs(wall_now.timestamp() - _seconds(timestamp))
    if _HEX.fullmatch(signature) is None:
        raise UnauthorizedError("X-AgentKit-Signature must be 64 lower-case hex digits.")
    if not _made_by_one_of(secrets, timestamp, raw_body, signature):
        raise UnauthorizedError(
            "The signature does not match the body; check that both sides share the secret."
        )
    if skew > MAX_SKEW:
        raise UnauthorizedError(
            "X-AgentKit-Timestamp is more than 300 seconds away; check the clocks of both sides."
        )
    return signature.decode("ascii")


def _single(headers: list[tuple[bytes, bytes]], name: bytes) -> bytes:
    values = [value for key, value in headers if key.lower() == name]
    if len(values) != 1 or not values[0]:
        raise UnauthorizedError(f"Send exactly one {name.decode().title()} header.")
    return values[0]


def _seconds(timestamp: bytes) -> float:
    if _UNIX.fullmatch(timestamp):
        return int(timestamp)
    try:
        if _ISO.fullmatch(timestamp):
            return datetime.fromisoformat(timestamp.decode("ascii")).timestamp()
    except ValueError:
        pass
    raise UnauthorizedError(
        "X-AgentKit-Timestamp must be unix seconds in ASCII digits, or ISO 8601 with a zone."
    )


def _made_by_one_of(secrets: Sequence[str], timestamp: bytes, body: bytes, given: bytes) -> bool:
    # Every secret is tried, so that the time taken does not tell which one fits.
    genuine = False
    for secret in filter(None, secrets):
        genuine |= hmac.compare_digest(_digest(secret, timestamp, body), given)
    return genuine


def _digest(secret: str, timestamp: bytes, body: bytes) -> bytes:
    return hmac.new(secret.encode(), timestamp + b"." + body, "sha256").hexdigest().encode("ascii")
