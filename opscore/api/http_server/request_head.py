"""Rules for the head of a request that the parser does not check."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv6Address

from opscore.exceptions import (
    BadRequestError,
    HeadersTooLargeError,
    UnsupportedTransferCodingError,
)

MAX_HEADERS = 100

_CHECKED = frozenset({b"host", b"transfer-encoding", b"content-length"})
_HOST = re.compile(r"(?P<name>\[[^\]]*\]|[A-Za-z0-9._~!$&'()*+,;=%-]+)(?::[0-9]{0,5})?")
_FUTURE_ADDRESS = re.compile(r"v[0-9a-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+", re.IGNORECASE)

Headers = Sequence[tuple[bytes, bytes]]


def check_head(headers: Headers, http_version: str) -> bool:
    """Return whether the request announces a body.

    Raise HeadersTooLargeError, BadRequestError for a Host that is missing, repeated or malformed,
    or UnsupportedTransferCodingError.
    """
    if len(headers) > MAX_HEADERS:
        raise too_many_headers()
    hosts: list[bytes] = []
    codings: list[bytes] = []
    length = b""
    for name, value in headers:
        if name in _CHECKED:
            if name == b"host":
                hosts.append(value)
            elif name == b"content-length":
                length = value
            else:
                codings.append(value)
    _check_host(hosts, http_version)
    if codings:
        _check_codings(codings, http_version)
        return True
    return length not in (b"", b"0")


def too_many_headers() -> HeadersTooLargeError:
    return HeadersTooLargeError(f"The request has too many headers; send at most {MAX_HEADERS}.")


def headers_too_long(limit: int) -> HeadersTooLargeError:
    return HeadersTooLargeError(f"The headers are too large; send at most {limit} bytes of them.")


def _check_host(hosts: list[bytes], http_version: str) -> None:
    if len(hosts) > 1:
        raise BadRequestError("Send one Host header, not several.")
    if not hosts:
        if http_version == "1.0":
            return
        raise BadRequestError("Send a Host header; HTTP/1.1 requires it.")
    if not _is_host(hosts[0]):
        raise BadRequestError("Send a host name or an address in the Host header.")


@lru_cache(maxsize=256)
def _is_host(value: bytes) -> bool:
    match = _HOST.fullmatch(value.decode("latin-1"))
    if match is None:
        return False
    name = match["name"]
    return not name.startswith("[") or _is_bracketed_address(name[1:-1])


def _is_bracketed_address(text: str) -> bool:
    if _FUTURE_ADDRESS.fullmatch(text):
        return True
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return "%" not in text


def _check_codings(values: Iterable[bytes], http_version: str) -> None:
    codings = [part.strip().lower() for part in b",".join(values).split(b",")]
    if any(coding != b"chunked" for coding in codings):
        raise UnsupportedTransferCodingError(
            "Send the body with Transfer-Encoding: chunked or with a Content-Length; no other "
            "transfer coding is supported."
        )
    if len(codings) > 1 or http_version == "1.0":
        raise BadRequestError("Send Transfer-Encoding: chunked once, and with HTTP/1.1 only.")
