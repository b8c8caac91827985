"""Which addresses may be called. Agents say themselves where they live, so this guards the network.

Nothing here resolves a name: registration checks what is written, connecting checks what the
name turned out to be.
"""

import re
import unicodedata
from collections.abc import Iterator
from ipaddress import (
    AddressValueError,
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from urllib.parse import SplitResult, urlsplit

from opscore.exceptions import ForbiddenEndpointError
from opscore.models import EndpointPolicy

Address = IPv4Address | IPv6Address

MAX_URL_LENGTH = 2048
MAX_HOST_LENGTH = 253

_NEVER = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",
            "100.100.100.200/32",
            "168.63.129.16/32",
            "169.254.0.0/16",
            "192.0.0.192/32",
            "224.0.0.0/4",
            "255.255.255.255/32",
        ),
    )
) + tuple(
    map(
        IPv6Network,
        (
            "::/128",
            "fe80::/10",
            "ff00::/8",
            # Metadata, credentials and time: AWS (all of its link-local services), Google, Oracle,
            # Scaleway. Their IPv4 addresses are link-local, above.
            "fd00:ec2::/32",
            "fd20:ce::254/128",
            "fd00:c1::a9fe:a9fe/128",
            "fd00:42::42/128",
        ),
    )
)
_METADATA_NAMES = frozenset(
    {
        "instance-data",
        "instance-data.ec2.internal",
        "metadata.azure.internal",
        "metadata.goog",
        "metadata.google.internal",
        "metadata.tencentyun.com",
    }
)
_SHARED = IPv4Network("100.64.0.0/10")
_COMPATIBLE = IPv6Network("::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
_ISATAP = (0x00005EFE, 0x02005EFE)
_LOOPBACK_6 = IPv6Address("::1")

_OTHER_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+", re.ASCII)
_NAME = re.compile(r"[^\x00-\x20\x7f\"#%/:<>?@\[\\\]^`{|}]+")


def check_endpoint(url: str, policy: EndpointPolicy) -> str:
    """Return the contact endpoint as given, or raise ForbiddenEndpointError saying what is wrong.

    A host that is an address is judged in whatever way it is spelled. A name is judged when it
    is resolved, but for the names that always mean the machine's own metadata.
    """
    parts = _split(url)
    host = _host(parts)
    address = read_address(host)
    if address is not None:
        check_address(address, policy)
    else:
        _check_name(host.removesuffix("."), policy)
    return url


def check_address(address: Address | str, policy: EndpointPolicy, name: str = "") -> None:
    """Raise ForbiddenEndpointError when Ops-Core must not connect to this address.

    `name` is the host that it was resolved from.
    """
    own = ip_address(address) if isinstance(address, str) else address
    listed_name = policy.lists_name(name.removesuffix("."))
    for meant in (_without_wrapping(own), *_tunnelled(own)):
        if any(meant.version == network.version and meant in network for network in _NEVER):
            raise ForbiddenEndpointError(
                "The contact endpoint points to a link-local, metadata, multicast or unspecified "
                "address; give the agent's own address."
            )
        if listed_name or policy.lists_address(meant):
            continue
        if policy.has_allowlist:
            raise _not_listed()
        if not policy.allow_private and _is_private(meant):
            raise ForbiddenEndpointError(
                "The contact endpoint points to a private or loopback address; set "
                "OPSCORE_ALLOW_PRIVATE_ENDPOINTS=1 if agents live on such networks."
            )


def read_address(host: str) -> Address | None:
    """The address that a host spells (dotted, decimal, octal, hexadecimal, IPv6), None for a name.

    Raise ForbiddenEndpointError for what looks like an address and is none.
    """
    if ":" in host:
        return _read_ipv6(host)
    labels = host.removesuffix(".").split(".")
    if not _NUMBER.fullmatch(labels[-1]):
        return None
    address = _read_ipv4(labels)
    if address is None:
        raise ForbiddenEndpointError("The contact endpoint's host is not a valid address.")
    return address


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL_LENGTH:
        raise ForbiddenEndpointError(
            f"The contact endpoint is longer than {MAX_URL_LENGTH} characters."
        )
    if "\\" in url or any(ord(char) <= 0x20 or 0x7F <= ord(char) <= 0x9F for char in url):
        raise ForbiddenEndpointError(
            "The contact endpoint holds a space, a control character or a backslash; remove it."
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ForbiddenEndpointError(
            "The contact endpoint is not a valid URL; write http://host:port/path."
        ) from error
    _check_parts(parts, port, "#" in url)
    return parts


def _check_parts(parts: SplitResult, port: int | None, has_fragment: bool) -> None:
    if parts.scheme not in ("http", "https"):
        raise ForbiddenEndpointError("The contact endpoint must begin with http:// or https://.")
    if "@" in parts.netloc:
        raise ForbiddenEndpointError(
            "The contact endpoint must not carry a user name or a password."
        )
    if has_fragment:
        raise ForbiddenEndpointError("The contact endpoint must not carry a fragment (#...).")
    if port == 0 or parts.netloc.endswith(":"):
        raise ForbiddenEndpointError(
            "The contact endpoint's port must be a number from 1 to 65535."
        )


def connected_host(host: str) -> str:
    """Return a host in the form that is connected to; raise UnicodeError where it has none.

    Domain names drop or replace some characters, so that only this form can be judged.
    """
    host = unicodedata.normalize("NFKC", host).translate(_OTHER_DOTS).lower()
    return host if host.isascii() else host.encode("idna").decode("ascii").lower()


def _host(parts: SplitResult) -> str:
    written = parts.hostname or ""
    if len(written) > MAX_HOST_LENGTH:
        raise ForbiddenEndpointError("The contact endpoint's host name is too long.")
    try:
        host = connected_host(written)
    except UnicodeError as error:
        raise ForbiddenEndpointError("The contact endpoint's host name is not valid.") from error
    if not host:
        raise ForbiddenEndpointError("The contact endpoint names no host.")
    if len(host) > MAX_HOST_LENGTH:
        raise ForbiddenEndpointError("The contact endpoint's host name is too long.")
    if "[" in parts.netloc:
        if ":" not in host:
            # The syntax has a place for addresses of the future; the resolver takes them for names.
            raise ForbiddenEndpointError("The contact endpoint's host is not a valid address.")
        return host
    labels = host.removesuffix(".").split(".")
    if not _NAME.fullmatch(host) or not all(labels):
        raise ForbiddenEndpointError("The contact endpoint's host name is not valid.")
    return host


def _check_name(name: str, policy: EndpointPolicy) -> None:
    if name in _METADATA_NAMES:
        raise ForbiddenEndpointError(
            "The contact endpoint names a metadata service; give the agent's own address."
        )
    if policy.lists_name(name):
        return
    if policy.has_allowlist:
        # The name may resolve to a listed address, which is known only at connect.
        if not policy.networks:
            raise _not_listed()
    elif not policy.allow_private and (name == "localhost" or name.endswith(".localhost")):
        raise ForbiddenEndpointError(
            "The contact endpoint points to this machine; set OPSCORE_ALLOW_PRIVATE_ENDPOINTS=1 "
            "if agents live on private or loopback networks."
        )


def _not_listed() -> ForbiddenEndpointError:
    return ForbiddenEndpointError(
        "The contact endpoint is not on the allow list; add its network or host name to "
        "OPSCORE_ENDPOINT_ALLOWLIST if agents live there."
    )


def _read_ipv6(host: str) -> IPv6Address:
    if "%" in host:
        raise ForbiddenEndpointError("The contact endpoint must not carry a zone id (%...).")
    try:
        return IPv6Address(host)
    except AddressValueError as error:
        raise ForbiddenEndpointError(
            "The contact endpoint's host is not a valid address."
        ) from error


def _read_ipv4(labels: list[str]) -> IPv4Address | None:
    """As C libraries read it: one to four numbers, of which the last fills what is left."""
    numbers = [_read_number(label) for label in labels]
    if len(numbers) > 4:
        return None
    *leading, last = numbers
    room = 1 << (8 * (4 - len(leading)))
    if last is None or last >= room:
        return None
    value = last
    for position, number in enumerate(leading):
        if number is None or number > 0xFF:
            return None
        value += number << (8 * (3 - position))
    return IPv4Address(value)


def _read_number(label: str) -> int | None:
    if not _NUMBER.fullmatch(label) or len(label) > 64:
        return None
    lowered = label.lower()
    try:
        if lowered.startswith("0x"):
            return int(lowered[2:] or "0", 16)
        return int(lowered, 8 if lowered.startswith("0") else 10)
    except ValueError:
        return None


def _without_wrapping(address: Address) -> Address:
    """An IPv4 address written as an IPv6 one is that IPv4 address."""
    if isinstance(address, IPv4Address):
        return address
    low = int(address) & 0xFFFFFFFF
    if address.ipv4_mapped is not None or address in _TRANSLATED:
        return IPv4Address(low)
    if address in _COMPATIBLE and low > 1:
        return IPv4Address(low)
    return address


def _tunnelled(address: Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that a gateway would send a packet for this address to."""
    if isinstance(address, IPv4Address):
        return
    low = int(address) & 0xFFFFFFFF
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if any(address in network for network in _NAT64):
        yield IPv4Address(low)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
        yield IPv4Address(low)


def _is_private(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return address in _SHARED or not address.is_global
    return address == _LOOPBACK_6 or address.is_site_local or not address.is_global
