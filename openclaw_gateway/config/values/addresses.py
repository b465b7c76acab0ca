"""Where the gateway listens, whom it believes or lets in by address, and whom it expects at the other end.

Owns bind modes, IP addresses, networks, names of listeners, DNS zones and certificate fingerprints. It must not know
what an address opens (`policy` does). Invariants: an address comes out in its canonical text, a v4-mapped one as v4; a
list of whom to believe never covers every address there is.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

from openclaw_gateway.config.issues import nearest
from openclaw_gateway.config.values import plain
from openclaw_gateway.config.values.plain import BadValueError

__all__ = [
    "BIND_NAMES",
    "RESERVED_LISTENERS",
    "address",
    "bind",
    "fingerprint",
    "listener_bind",
    "listener_name",
    "network",
    "networks",
    "peers",
    "zone",
]

RESERVED_LISTENERS: Final = frozenset({"main", "owner", "tailscale", "tunnel", "stream"})
BIND_NAMES: Final = ("loopback", "lan", "tailnet", "auto", "custom")


def bind(value: Any, path: str) -> str:
    del path
    word = value.strip() if isinstance(value, str) else ""
    if word.lower() in BIND_NAMES:
        return word.lower()
    try:
        return str(ipaddress.ip_address(word.removeprefix("[").removesuffix("]")))
    except ValueError:
        raise BadValueError(
            "not a bind mode and not an IP address", (*BIND_NAMES, "an IP address"), nearest(word, BIND_NAMES)
        ) from None


def address(value: Any, path: str) -> str:
    try:
        return str(ipaddress.ip_address(plain.text(value).strip().removeprefix("[").removesuffix("]")))
    except ValueError:
        raise BadValueError("must be one IP address", fix=f"openclaw config set {path} 0.0.0.0") from None


def listener_name(value: Any, path: str) -> str:
    del path
    if not isinstance(value, str) or re.fullmatch(r"[a-z][a-z0-9-]{0,31}", value) is None:
        raise BadValueError("must be 1 to 32 small letters, digits and hyphens, beginning with a letter")
    if value in RESERVED_LISTENERS:
        raise BadValueError("is the name of a listener that the gateway opens itself")
    return value


def listener_bind(value: Any, path: str) -> str:
    found = bind(value, path)
    if found == "custom":
        raise BadValueError("names no address here; write the address itself", ("loopback", "lan", "an IP address"))
    return found


def network(entry: Any) -> tuple[str, ...]:
    """One entry of a network list → networks in CIDR form; v4-mapped addresses become v4. Raises `BadValueError`."""
    word = entry.strip() if isinstance(entry, str) else ""
    if word.lower() == "localhost":
        return ("127.0.0.0/8", "::1/128")
    try:
        found = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise BadValueError("not an address, not a network in CIDR form, not localhost") from None
    if isinstance(found, ipaddress.IPv6Network):
        mapped = found.network_address.ipv4_mapped
        if mapped is not None and found.prefixlen >= 96:
            found = ipaddress.ip_network(f"{mapped}/{found.prefixlen - 96}", strict=False)
    if found.prefixlen == 0:
        raise BadValueError("would cover every address there is")
    return (str(found),)


def networks(value: Any, path: str) -> tuple[str, ...]:
    return plain.entries(value, path, network)


def peers(value: Any, path: str) -> tuple[str, ...]:
    """Networks that may connect or may not; one that covers every address of a kind is a sensible thing to say here."""

    def one(entry: Any) -> tuple[str, ...]:
        word = entry.strip() if isinstance(entry, str) else ""
        return (word,) if word in {"0.0.0.0/0", "::/0"} else network(entry)

    return plain.entries(value, path, one)


def zone(value: Any, path: str) -> str:
    from openclaw_gateway.discovery.zone import normal_domain

    try:
        return normal_domain(plain.text(value))
    except ValueError as error:
        raise BadValueError(
            "must be a DNS domain of its own, not local", fix=f"openclaw config set {path} openclaw.internal"
        ) from error


def fingerprint(value: Any, path: str) -> str:
    del path
    digits = plain.text(value).lower().removeprefix("sha256:").replace(":", "").replace(" ", "")
    if re.fullmatch(r"[0-9a-f]{64}", digits) is None:
        raise BadValueError("must be a SHA-256 fingerprint: 64 hexadecimal digits")
    return digits
