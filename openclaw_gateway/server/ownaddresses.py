"""This host's own network addresses, for telling others where the gateway is (PAIR-11).

Owns asking the operating system; nothing is sent and nothing is resolved. It must not know who uses an address. Linux
first: where the system does not tell, the address of the default route is all that is known.

Invariant: loopback and link-local addresses never come out, nor those of bridges to containers and virtual machines on
this host: nobody else reaches those.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct
import sys
from pathlib import Path
from typing import Final

__all__ = ["INNER_INTERFACES", "MAX_ADDRESSES", "own_lan_addresses"]

MAX_ADDRESSES: Final = 8
_SIOCGIFADDR: Final = 0x8915
INNER_INTERFACES: Final = (
    "br-", "cali", "cni", "docker", "flannel", "lo", "lxc", "podman", "tailscale", "veth", "virbr", "vmnet",
)  # fmt: skip
# Documentation addresses (RFC 5737, RFC 3849): a UDP "connection" there only asks the routing table.
_FAR: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def own_lan_addresses() -> tuple[str, ...]:
    """Addresses of this host that its neighbours can use, the default route's first, IPv4 before IPv6."""
    found: dict[str, None] = {}
    for address in (*_routed(), *_of_interfaces(), *_ipv6_of_interfaces()):
        parsed = ipaddress.ip_address(address)
        if not (parsed.is_loopback or parsed.is_link_local or parsed.is_unspecified or parsed.is_multicast):
            found[str(parsed)] = None
    ordered = sorted(found, key=lambda text: ":" in text)
    return tuple(ordered)[:MAX_ADDRESSES]


def _routed() -> list[str]:
    found = []
    for family, far in _FAR:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((far, 9))
            found.append(str(probe.getsockname()[0]).partition("%")[0])
    return found


def _of_interfaces() -> list[str]:
    if sys.platform != "linux":
        return []
    import fcntl

    found = []
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            if not name.startswith(INNER_INTERFACES):
                with contextlib.suppress(OSError):  # an interface without an IPv4 address
                    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                    found.append(socket.inet_ntoa(answer[20:24]))
    return found


def _ipv6_of_interfaces() -> list[str]:
    try:
        lines = Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        digits, *_, flags, name = line.split()
        temporary_or_unsure = int(flags, 16) & (0x01 | 0x08 | 0x20 | 0x40)  # temporary, failed, deprecated, tentative
        if not temporary_or_unsure and not name.startswith(INNER_INTERFACES):
            found.append(str(ipaddress.IPv6Address(bytes.fromhex(digits))))
    return found
