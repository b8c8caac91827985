"""Connecting only where it is allowed: the address that was checked is the one that is called."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from urllib.parse import quote, urlsplit

import httpcore

from opscore.agentkit_client.addresses import check_address, connected_host
from opscore.agentkit_client.errors import ExchangeError
from opscore.agentkit_client.guarded_stream import Connection, SlowLane
from opscore.exceptions import ForbiddenEndpointError
from opscore.models import EndpointPolicy, FailureCode

Resolver = Callable[[str, int], Awaitable[list[str]]]

# Less than the 5 s after which common servers close a silent connection: a connection is then
# dropped by us before it can break under a message.
KEEP_ALIVE = 4.0
CONNECT_TIMEOUT = 5.0


_PATH_SAFE = "/%:@!$&'()*+,;=-._~"
_QUERY_SAFE = _PATH_SAFE + "?"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a message goes. `name` is how error messages call it."""

    name: str
    origin: httpcore.Origin
    host_header: bytes
    path: bytes

    @classmethod
    def parse(cls, url: str, name: str) -> "Target":
        """Raise ValueError for what is no URL; `check_endpoint` has seen it before."""
        parts = urlsplit(url)
        host = connected_host(parts.hostname or "").encode("ascii")
        usual = 443 if parts.scheme == "https" else 80
        origin = httpcore.Origin(parts.scheme.encode("ascii"), host, parts.port or usual)
        header = b"[%b]" % host if b":" in host else host
        if parts.port not in (None, usual):
            header += b":%d" % parts.port
        path = quote(parts.path or "/", safe=_PATH_SAFE)
        query = f"?{quote(parts.query, safe=_QUERY_SAFE)}" if parts.query else ""
        return cls(name, origin, header, (path + query).encode("ascii"))

    def at(self, path: bytes) -> "Target":
        return Target(self.name, self.origin, self.host_header, path)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, best first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Connector:
    """Resolves a name once, checks every address, and connects to one of those very addresses.

    A name with one forbidden address is refused as a whole: an honest agent has none.
    """

    def __init__(
        self,
        policy: EndpointPolicy,
        resolver: Resolver = resolve,
        tls: ssl.SSLContext | None = None,
        timeout: float = CONNECT_TIMEOUT,
    ) -> None:
        self._policy = policy
        self._timeout = timeout
        self._resolve = resolver
        self._given_tls = tls
        self._network = httpcore.AnyIOBackend()
        self._slow_lane = SlowLane()

    async def connect(self, target: Target) -> Connection:
        """Raise ExchangeError; nothing has been sent then."""
        try:
            async with asyncio.timeout(self._timeout):
                stream = await self._open(target)
        except ForbiddenEndpointError as error:
            raise ExchangeError(
                FailureCode.FORBIDDEN_ENDPOINT, error.detail, terminal=True
            ) from error
        except (httpcore.NetworkError, httpcore.TimeoutException, OSError, UnicodeError) as error:
            raise broken_tls(error) or _cannot_connect(error) from error
        return Connection(target.origin, stream, KEEP_ALIVE, self._slow_lane)

    async def _open(self, target: Target) -> httpcore.AsyncNetworkStream:
        host, port = target.origin.host.decode("ascii"), target.origin.port
        addresses = await self._addresses(host, port)
        stream = await self._connect_to_first(addresses, port)
        if target.origin.scheme != b"https":
            return stream
        try:
            return await stream.start_tls(self._tls, server_hostname=host)
        except BaseException:
            # A deadline cancels the handshake, and then nobody else closes the stream.
            await stream.aclose()
            raise

    async def _connect_to_first(
        self, addresses: list[str], port: int
    ) -> httpcore.AsyncNetworkStream:
        failure = httpcore.ConnectError("The host name has no address.")
        for address in addresses:
            try:
                return await self._network.connect_tcp(address, port)
            except httpcore.ConnectError as error:
                failure = error
        raise failure

    async def _addresses(self, host: str, port: int) -> list[str]:
        addresses = [host] if _is_address(host) else await self._resolve(host, port)
        for address in addresses:
            check_address(address, self._policy, host)
        return addresses

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        if self._given_tls is not None:
            return self._given_tls
        # Loaded here: only https needs it, and it takes a fifth of a second to load.
        from httpx import create_ssl_context  # noqa: PLC0415 - see above

        return create_ssl_context()


def too_slow_to_connect() -> ExchangeError:
    return ExchangeError(FailureCode.UNREACHABLE, "could not connect in time")


def broken_tls(error: Exception) -> ExchangeError | None:
    """The error to raise instead when TLS is the reason for this one."""
    cause = next((item for item in _causes(error) if isinstance(item, ssl.SSLError)), None)
    if cause is None or isinstance(cause, ssl.SSLEOFError | ssl.SSLSyscallError):
        return None
    reason = cause.reason or "the handshake failed"
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = cause.verify_message
    return ExchangeError(
        FailureCode.TLS,
        f"the TLS connection failed: {reason.rstrip('.')}; check the certificates on both sides",
    )


def _cannot_connect(error: Exception) -> ExchangeError:
    causes = list(_causes(error))
    if any(isinstance(cause, TimeoutError | httpcore.TimeoutException) for cause in causes):
        return too_slow_to_connect()
    if any(isinstance(cause, socket.gaierror | UnicodeError) for cause in causes):
        reason = "its host name cannot be resolved"
    elif any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        reason = "the connection was refused"
    else:
        reason = "no connection could be made"
    return ExchangeError(FailureCode.UNREACHABLE, reason)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
