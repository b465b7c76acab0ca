"""On which networks a gateway says where it is, and with which addresses.

Pure. Owns the choice from interfaces and listening addresses. It must not know sockets or packets.

Invariants: an address is announced only where the gateway listens on it and only on the interface that has it (RFC 6762
section 6.2: addresses of other interfaces MUST NOT be sent), so nothing is announced that does not answer; loopback,
point-to-point links, bridges to containers and interfaces without multicast are never announced on; two interfaces on
one subnet are one network (DISC-2).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

import attrs

from openclaw_gateway.discovery.interfaces import Interface
from openclaw_gateway.server.ownaddresses import INNER_INTERFACES
from openclaw_gateway.value import Value

__all__ = ["MAX_LANS", "Lan", "plan_lans", "why_no_lan"]

MAX_LANS: Final = 8
MAX_ADDRESSES: Final = 8  # announced on one network


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Lan(Value):
    """One network to announce on. ``speak4`` is the IPv4 address that packets leave from (None: IPv6 only);
    ``speak6`` whether IPv6 multicast is used as well; ``addresses`` are announced.
    """

    interface: str
    index: int
    addresses: tuple[str, ...]
    speak4: str | None
    speak6: bool

    @property
    def link(self) -> tuple[str, int, str | None, bool]:
        """What a responder is bound to: a network with another address more is still the same one."""
        return (self.interface, self.index, self.speak4, self.speak6)


def plan_lans(interfaces: Iterable[Interface], listening: Iterable[str]) -> tuple[Lan, ...]:
    """``listening`` are the addresses that are listened on, ``0.0.0.0`` and ``::`` standing for all of them."""
    hosts = frozenset(listening)
    found: list[Lan] = []
    networks: set[object] = set()
    for interface in sorted(interfaces, key=lambda row: row.index):
        if not _speakable(interface) or len(found) >= MAX_LANS:
            continue
        own = [row for row in interface.addresses if _listens(row[0], hosts)]
        routable = [row for row in own if not _link_local6(row[0])]
        usable = (routable or own)[:MAX_ADDRESSES]
        if not usable:
            continue
        subnets = {ipaddress.ip_network(row, strict=False) for row in routable}
        if subnets and subnets <= networks:
            continue
        networks |= subnets
        addresses = tuple(text for text, _ in usable)
        # Packets leave from any IPv4 address of the interface, also where only IPv6 is listened on.
        speak4 = next((text for text, _ in interface.addresses if ":" not in text), None)
        found.append(
            Lan(
                interface=interface.name,
                index=interface.index,
                addresses=addresses,
                speak4=speak4,
                speak6=any(":" in text for text in addresses),
            )
        )
    return tuple(found)


def why_no_lan(interfaces: Iterable[Interface], listening: Iterable[str]) -> str:
    """Why `plan_lans` found nothing, for a person."""
    hosts = [host for host in listening if not _is_loopback(host)]
    if not hosts:
        return "the gateway listens on this host only (gateway.bind): nobody else could connect"
    outer = [row for row in interfaces if not row.loopback and row.addresses]
    if not outer:
        return "no network interface has an address"
    if not any(_speakable(row) for row in outer):
        return "no network interface is up and can do multicast"
    return f"no interface with multicast has an address that is listened on ({', '.join(sorted(hosts))})"


def _speakable(interface: Interface) -> bool:
    inner = interface.name.startswith(INNER_INTERFACES)
    return interface.up and interface.multicast and not (interface.loopback or interface.point_to_point or inner)


def _listens(address: str, hosts: frozenset[str]) -> bool:
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback or parsed.is_unspecified or parsed.is_multicast:
        return False
    # A listener on "::" takes IPv4 too (server/addresses.py).
    return address in hosts or "::" in hosts or (parsed.version == 4 and "0.0.0.0" in hosts)  # noqa: S104 - compared


def _link_local6(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.version == 6 and parsed.is_link_local


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
