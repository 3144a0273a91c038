"""Addresses of clients: their own, or what a proxy that the operator trusts says of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SCHEMES = frozenset({"http", "https"})
_MOST_HOPS = 32
_SITE_BITS = 64  # whoever has one IPv6 address has all that share these bits


def address_of(text: str) -> Address | None:
    """Read an address, with or without a port; None where it is none. IPv4 in IPv6 is IPv4."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found


def party_of(text: str) -> str:
    """Name whom an address belongs to, as limits count them: an IPv4 address, an IPv6 network of 64 bits."""
    address = address_of(text)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _SITE_BITS), strict=False))
    return text if address is None else str(address)


def is_within(text: str, networks: Sequence[Network]) -> bool:
    """Return whether an address belongs to one of the networks."""
    address = address_of(text)
    return address is not None and any(address in network for network in networks if network.version == address.version)


class ProxyMiddleware:
    """Puts the client's address and the scheme into a request's scope where a trusted proxy tells them.

    The nearest hop that is no trusted proxy is the client: what stands further left in ``X-Forwarded-For`` is the client's own
    word. ``X-Forwarded-Host`` is never believed: many proxies pass on the client's. They can keep the ``Host``.

    Args:
        app: The application.
        trusted: Networks of the proxies.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        client = scope.get("client")
        if scope["type"] == "http" and client and is_within(client[0], self._trusted):
            hops, schemes = _listed(scope, b"x-forwarded-for"), _listed(scope, b"x-forwarded-proto")
            depth, nearest = 0, client[0]
            for hop in reversed(hops[-_MOST_HOPS:]):
                address = address_of(hop)
                if address is None:  # from here on nothing can be known
                    break
                depth, nearest = depth + 1, str(address)
                if not is_within(nearest, self._trusted):
                    break
            scope["client"] = (nearest, 0 if depth else client[1])
            # A chain of proxies that each add a scheme adds them in step with the addresses.
            at = -max(1, depth) if len(schemes) == len(hops) else -1
            if schemes and schemes[at].lower() in _SCHEMES:
                scope["scheme"] = schemes[at].lower()
        await self._app(scope, receive, send)


def _listed(scope: Scope, name: bytes) -> list[str]:
    return list(_parts(value.decode("latin-1") for key, value in scope["headers"] if key == name))


def _parts(values: Iterator[str]) -> Iterator[str]:
    for value in values:
        yield from (part.strip() for part in value.split(",") if part.strip())
