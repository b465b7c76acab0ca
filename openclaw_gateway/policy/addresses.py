"""Addresses: one canonical form, the key a limiter counts by, and sets of networks.

Pure. Invariants: an IPv4 address mapped into IPv6 is the IPv4 address (V14); an IPv6 client is its /64; what does not
parse is nobody's address and matches nothing. What was found for the last `REMEMBERED` texts is kept: a connection asks
about the same address six times, and parsing one costs more than the rest of the question.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

import attrs

from openclaw_gateway.value import Value

__all__ = [
    "NO_NETWORKS",
    "NetworkSet",
    "canonical_ip",
    "canonical_text",
    "carried_ipv4",
    "is_loopback",
    "is_private_literal",
    "limiter_key",
    "parse_networks",
]

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

REMEMBERED: Final = 1024
_LONGEST: Final = 64  # characters; longer ones are not kept: they are zones or nobody's address, and may be anything

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052 section 2.1
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")  # RFC 3056
_LOOPBACK: Final[tuple[IPNetwork, ...]] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
_PRIVATE: Final[tuple[IPNetwork, ...]] = (
    *_LOOPBACK,
    IPv4Network("10.0.0.0/8"),  # RFC 1918
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),  # RFC 6598; tailnets live here
    IPv4Network("169.254.0.0/16"),  # RFC 3927
    IPv6Network("fc00::/7"),  # RFC 4193
    IPv6Network("fe80::/10"),  # RFC 4291
)


def canonical_ip(text: str) -> IPAddress | None:
    """Parse an address without port or brackets.

    A zone (``%eth0``) is dropped, a v4-mapped address folded. None: not one.
    """
    return _known(text) if len(text) <= _LONGEST else _parse_ip(text)


def _parse_ip(text: str) -> IPAddress | None:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


_known: Final = lru_cache(maxsize=REMEMBERED)(_parse_ip)


def canonical_text(text: str) -> str:
    """The canonical spelling, or ``unknown`` (never the text itself: it may hold anything)."""
    address = canonical_ip(text)
    return "unknown" if address is None else str(address)


def carried_ipv4(text: str) -> str | None:
    """The IPv4 address that an IPv6 address was made of on the way (NAT64, 6to4); None: of none."""
    address = canonical_ip(text)
    if not isinstance(address, IPv6Address):
        return None
    if address in _NAT64:
        return str(IPv4Address(int(address) & 0xFFFF_FFFF))
    if address in _SIX_TO_FOUR:
        return str(IPv4Address(int(address) >> 80 & 0xFFFF_FFFF))
    return None


def limiter_key(text: str) -> str:
    """What failures are counted by: an IPv4 address, the /64 of an IPv6 address, or ``unknown``."""
    address = canonical_ip(text)
    return "unknown" if address is None else _limiter_key(address)


@lru_cache(maxsize=REMEMBERED)
def _limiter_key(address: IPAddress) -> str:
    if isinstance(address, IPv4Address) or address.is_loopback:
        return str(address)
    return str(IPv6Network((address, 64), strict=False))


def is_loopback(text: str) -> bool:
    """True for 127.0.0.0/8, ::1 and their mapped spellings."""
    address = canonical_ip(text)
    return address is not None and address.is_loopback


def is_private_literal(text: str) -> bool:
    """True for an IP literal that is loopback, private, link-local, or of a tailnet."""
    return _within(canonical_ip(text), _PRIVATE)


def _within(address: IPAddress | None, networks: tuple[IPNetwork, ...]) -> bool:
    return address is not None and any(address in network for network in networks)


@attrs.frozen(eq=False, repr=False)
class NetworkSet(Value):
    """CIDRs that were checked at load. ``entries`` are the texts they came from."""

    networks: tuple[IPNetwork, ...] = ()
    entries: tuple[str, ...] = ()

    def __contains__(self, address: object) -> bool:
        """``address`` is a text; what is not an address is in no set."""
        return isinstance(address, str) and _within(canonical_ip(address), self.networks)


NO_NETWORKS: Final = NetworkSet()


def parse_networks(entries: Iterable[str]) -> tuple[NetworkSet, tuple[str, ...]]:
    """(the set of the good entries, one fault text for each bad one). ``localhost`` stands for 127.0.0.0/8 and ::1."""
    networks: list[IPNetwork] = []
    good: list[str] = []
    faults: list[str] = []
    for entry in entries:
        found = _parse(entry)
        if found:
            networks.extend(found)
            good.append(entry)
        else:
            faults.append(f"{entry!r} is not an IP address, a CIDR such as 10.0.0.0/8, or localhost")
    return NetworkSet(tuple(networks), tuple(good)), tuple(faults)


def _parse(entry: str) -> tuple[IPNetwork, ...]:
    text = entry.strip()
    if text.lower() == "localhost":
        return _LOOPBACK
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        return ()
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        folded = network.network_address.ipv4_mapped
        return (IPv4Network((str(folded), network.prefixlen - 96), strict=False),)
    return (network,)
