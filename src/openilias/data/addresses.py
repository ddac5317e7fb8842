"""Where a connection may lead: http(s) only, and to no private network unless the user named it."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

AddressKind = Literal["public", "private", "loopback", "link-local", "reserved"]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_LONGEST_URL = 8192


class RefusedAddressError(Exception):
    """A URL or an address that must not be connected to; the text says which and why."""


def kind_of_address(address: str) -> AddressKind:
    """Tell which network an IP address belongs to; one that hides another (mapped, 6to4, NAT64, Teredo) is that one.

    Raises:
        ValueError: it is no IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return kind_of_address(str(inner))
    if ip.is_loopback:
        return "loopback"
    if ip.is_link_local:
        return "link-local"
    if ip.is_multicast or ip.is_unspecified or ip.is_reserved:
        return "reserved"
    return "public" if ip.is_global else "private"


@dataclass(frozen=True)
class Guard:
    """Which addresses may be connected to.

    Attributes:
        hosts: names and addresses that the user named: allowed wherever they lead.
        kinds: the kinds of addresses that any other host may have.
    """

    hosts: frozenset[str] = frozenset()
    kinds: frozenset[AddressKind] = frozenset(("public",))

    def allows(self, host: str, address: str) -> bool:
        """Tell whether a host may be reached at an address."""
        return host in self.hosts or kind_of_address(address) in self.kinds

    def check(self, url: str) -> None:
        """Refuse a URL that must not be asked for; the addresses of a name are checked when it is looked up.

        Raises:
            RefusedAddressError: it is no http or https URL, names a user, or an address that is not allowed.
        """
        host = host_of(url)
        try:
            allowed = self.allows(host, host)
        except ValueError:  # a name
            if host.replace(".", "").isdigit():  # 127.1, 2130706433: connected to without being looked up
                raise RefusedAddressError(f"{host[:60]} is no address in its usual form") from None
            return
        if not allowed:
            raise RefusedAddressError(f"{host} is a {kind_of_address(host)} address")


def guard_of(url: str) -> Guard:
    """Return the guard for all that follows from a URL that the user gave: public addresses, that host, and its kind.

    Raises:
        RefusedAddressError: it is no URL to begin with.
    """
    host = host_of(url)
    try:
        kinds: frozenset[AddressKind] = frozenset(("public", kind_of_address(host)))
    except ValueError:
        kinds = frozenset(("public",))
    return Guard(frozenset((host,)), kinds)


def host_of(url: str) -> str:
    """Return the host of a http or https URL, in lower case.

    Raises:
        RefusedAddressError: it is another kind of URL, has no host, a bad port, or a user name in it.
    """
    shown = url if len(url) <= 120 else f"{url[:117]}..."
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise RefusedAddressError(f"{shown!r} is no URL") from None
    if parts.scheme not in ("http", "https"):
        raise RefusedAddressError(f"{shown!r} is no http or https URL")
    if not host or port == 0 or len(url) > _LONGEST_URL or not url.isprintable():
        raise RefusedAddressError(f"{shown!r} is no URL")
    if parts.username is not None or parts.password is not None:
        raise RefusedAddressError(f"the URL of {host} holds a user name")
    return host


class GuardedResolver(AbstractResolver):
    """Looks names up and gives only the addresses that are allowed, so that no name leads elsewhere later on."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._names = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the allowed addresses of a name.

        Raises:
            OSError: the name is not known.
            RefusedAddressError: it has none but refused addresses.
        """
        try:
            found = await self._names.resolve(host, port, family)
        except UnicodeError:  # an empty part of it, or one of more than 63 letters
            raise RefusedAddressError(f"{host[:60]!r} can be no name of a host") from None
        allowed = [one for one in found if self._guard.allows(host, one["host"])]
        if found and not allowed:
            address = found[0]["host"]
            raise RefusedAddressError(f"{host} leads to {address}, a {kind_of_address(address)} address")
        return allowed

    async def close(self) -> None:
        """Close the resolver behind."""
        await self._names.close()
