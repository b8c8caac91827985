"""Where agents may live."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Self

_NAME = re.compile(r"(?:\*\.)?(?:[a-z0-9_-]+\.)*(?!\d+$)[a-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class EndpointPolicy:
    """Which contact endpoints are called, apart from those that never are.

    An allow list refuses what it does not name, and allows what it names on private networks too.
    """

    allow_private: bool = True
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, allow_private: bool, allowlist: Iterable[str]) -> Self:
        """Raise ValueError for an entry that is neither a network nor a host name."""
        networks, names = [], []
        for entry in allowlist:
            if _NAME.fullmatch(entry):
                names.append(entry)
            else:
                networks.append(ip_network(entry))
        return cls(allow_private, tuple(networks), tuple(names))

    @property
    def has_allowlist(self) -> bool:
        return bool(self.networks or self.names)

    def lists_name(self, name: str) -> bool:
        """Return whether the allow list names this host, itself or as `*.` and its domain."""
        return any(
            name.endswith(entry[1:]) if entry.startswith("*.") else name == entry
            for entry in self.names
        )

    def lists_address(self, address: IPv4Address | IPv6Address) -> bool:
        return any(
            address.version == network.version and address in network for network in self.networks
        )


ANY_ENDPOINT = EndpointPolicy()
