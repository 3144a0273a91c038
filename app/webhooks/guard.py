"""Connections to addresses that strangers chose: only where the checked address says so, and never for long.

The check is made on the address that is connected to, after the name was resolved and for every connection anew: whatever a
name meant before, however an address is written, and wherever a redirect would lead (none is followed).
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Iterable, Sequence
from ssl import SSLContext
from typing import Any

import httpcore2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Networks of no public use that the library, as old Pythons have it, takes for public.
_NOT_PUBLIC = (
    *map(ipaddress.IPv4Network, ("192.0.0.0/24", "192.88.99.0/24")),
    *map(ipaddress.IPv6Network, ("fec0::/10", "3fff::/20", "5f00::/16")),
)
# IPv6 addresses that embed an IPv4 address, to which a translator on the way may connect. They need leave of the operator.
_TRANSLATED = tuple(map(ipaddress.IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


class AddressRefused(Exception):
    """The name resolves to an address that is not allowed."""


def is_allowed(address: Address, allowed: Sequence[Network]) -> bool:
    """Return whether an address is on the public internet, or in a network that the operator allows."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if any(address in network for network in allowed if network.version == address.version):
        return True
    if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _TRANSLATED):
        return False
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class GuardedBackend(httpcore2.NetworkBackend):
    """Connects by TCP to allowed addresses only, and ends every connection after a time.

    Args:
        allowed: Networks that are not public and yet allowed.
        lifetime_s: Longest duration of a connection, however slowly anything is sent over it.
        inner: Backend that connects to an allowed address; by default the system's sockets.
    """

    def __init__(self, allowed: Sequence[Network], lifetime_s: float, inner: httpcore2.NetworkBackend | None = None) -> None:
        self._allowed = allowed
        self._lifetime_s = lifetime_s
        self._inner = httpcore2.SyncBackend() if inner is None else inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        """Resolve once, judge what came of it, connect to just that."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError("the name cannot be resolved") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        # Refuse the name even if only one of its addresses is bad: that is no accident.
        if not all(is_allowed(ipaddress.ip_address(address.partition("%")[0]), self._allowed) for address in addresses):
            raise AddressRefused
        stream = self._inner.connect_tcp(addresses[0], port, timeout, local_address, socket_options)
        return _MortalStream(stream, time.monotonic() + self._lifetime_s)


class _MortalStream(httpcore2.NetworkStream):
    """A stream on which nothing can be waited for beyond a moment."""

    def __init__(self, inner: httpcore2.NetworkStream, until: float) -> None:
        self._inner = inner
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has come."""
        return self._inner.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write all."""
        self._inner.write(buffer, self._left(timeout))

    def close(self) -> None:
        """Close it."""
        self._inner.close()

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        """Go on encrypted."""
        return _MortalStream(self._inner.start_tls(ssl_context, server_hostname, self._left(timeout)), self._until)

    def get_extra_info(self, info: str) -> Any:
        """Return information about the socket."""
        return self._inner.get_extra_info(info)

    def _left(self, timeout: float | None) -> float:
        left = self._until - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the receiver took too long")
        return left if timeout is None else min(left, timeout)
