"""A gateway in a DNS zone file: DNS-SD for networks that multicast does not cross.

Pure. Owns the text of the zone (RFC 1035 section 5, RFC 6763), its serial (RFC 1982) and what counts as a change.
It must not read or write files (`discovery.widearea` does). CoreDNS (plugin ``file``) and BIND read the same text.

Invariants: whatever is in a name or a TXT value, the text has one record a line and nothing of it can end a string or
start a record; the serial only grows, in serial arithmetic, and only when something else changed; the same facts give
the same text.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping
from typing import Final

import attrs

from openclaw_gateway.discovery.records import SERVICE_TYPES
from openclaw_gateway.value import Value

__all__ = [
    "Zone",
    "content_hash",
    "next_serial",
    "normal_domain",
    "read_hash",
    "read_serial",
    "read_signed_at",
    "zone_text",
]

TTL_SECONDS: Final = 60
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_MAX_DOMAIN: Final = 200  # room for the instance name, the type and the dots below 255
_SOA: Final = re.compile(r"^@ IN SOA \S+ \S+ (\d{1,10}) ", re.MULTILINE)
_HASH: Final = re.compile(r"^; openclaw-content-hash: ([0-9a-f]{16})$", re.MULTILINE)
_SIGNED_AT: Final = re.compile(r' "ts=(\d{1,12})"')
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_SERIAL_SPAN: Final = 2**32


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Zone(Value):
    """What the zone says. ``txt``: the pairs by service type; ``addresses``: literals under which others reach us;
    ``host``: the label of their name.
    """

    domain: str
    instance: str
    host: str
    port: int
    addresses: tuple[str, ...]
    txt: Mapping[str, Mapping[str, str]]


def normal_domain(text: str) -> str:
    """``openclaw.internal.``: lower case with the last dot. Raises ValueError where it is no DNS name, or ``local``,
    which belongs to multicast (RFC 6762 section 3)."""
    bare = text.strip().lower().removesuffix(".")
    labels = bare.split(".")
    if len(bare) > _MAX_DOMAIN or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is not a DNS name such as openclaw.internal")
    if labels[-1] == "local":
        raise ValueError("local is the domain of multicast DNS; use another one, such as openclaw.internal")
    return bare + "."


def zone_text(zone: Zone, serial: int) -> str:
    """The whole file. Raises ValueError for a bad domain or address, or a TXT string above 255 bytes."""
    lines = [
        f"; openclaw-content-hash: {content_hash(zone)}",
        "; written by the OpenClaw gateway; changes by hand are lost",
        f"$ORIGIN {normal_domain(zone.domain)}",
        f"$TTL {TTL_SECONDS}",
        f"@ IN SOA ns1 hostmaster {serial % _SERIAL_SPAN} 7200 3600 1209600 {TTL_SECONDS}",
        "@ IN NS ns1",
    ]
    literals = [ipaddress.ip_address(address) for address in zone.addresses]
    host = _escaped(zone.host)
    for name in dict.fromkeys(("ns1", host)):
        lines += [f"{name} IN {'A' if literal.version == 4 else 'AAAA'} {literal}" for literal in literals]
    # RFC 6763 section 11: a client that knows the domain alone learns that it may browse it.
    lines += [f"{pointer}._dns-sd._udp IN PTR @" for pointer in ("b", "lb")]
    for service_type in SERVICE_TYPES:
        if service_type in zone.txt:
            instance = f"{_escaped(zone.instance)}.{service_type}"
            strings = " ".join(_quoted(f"{key}={value}") for key, value in zone.txt[service_type].items()) or '""'
            lines += [
                f"_services._dns-sd._udp IN PTR {service_type}",
                f"{service_type} IN PTR {instance}",
                f"{instance} IN SRV 0 0 {zone.port} {host}",
                f"{instance} IN TXT {strings}",
            ]
    return "\n".join(lines) + "\n"


def content_hash(zone: Zone) -> str:
    """16 hex digits over everything but the serial and the signature (which is renewed by time)."""
    txt = {
        kind: sorted((key, value) for key, value in pairs.items() if key not in {"ts", "sig"})
        for kind, pairs in sorted(zone.txt.items())
    }
    said = (normal_domain(zone.domain), zone.instance, zone.host, zone.port, sorted(zone.addresses), txt)
    return hashlib.sha256(repr(said).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_serial(text: str) -> int | None:
    """The serial of a zone that `zone_text` made, or one like it."""
    found = _SOA.search(text)
    return int(found[1]) % _SERIAL_SPAN if found else None


def read_hash(text: str) -> str | None:
    found = _HASH.search(text)
    return found[1] if found else None


def read_signed_at(text: str) -> int | None:
    """Unix seconds of the signature in a zone that `zone_text` made; None where it has none."""
    found = _SIGNED_AT.search(text)
    return int(found[1]) if found else None


def next_serial(before: int | None, day: str) -> int:
    """``day`` is YYYYMMDD. That day's first number, or one more than before where that is not less (RFC 1982)."""
    base = int(f"{day}01") % _SERIAL_SPAN
    if before is None or 0 < (base - before) % _SERIAL_SPAN < _SERIAL_SPAN // 2:
        return base
    return (before + 1) % _SERIAL_SPAN


def _escaped(label: str) -> str:
    """One label in presentation form: everything but letters, digits, ``-`` and ``_`` as ``\\DDD``."""
    raw = label.encode("utf-8", "replace")[:63]
    return "".join(chr(byte) if byte in _PLAIN else f"\\{byte:03d}" for byte in raw) or "openclaw"


def _quoted(text: str) -> str:
    raw = text.encode("utf-8", "replace")
    if len(raw) > 255:
        raise ValueError(f"a TXT string takes {len(raw)} bytes; 255 is the limit")
    shown = (chr(byte) if 0x20 <= byte <= 0x7E and byte not in b'"\\;' else f"\\{byte:03d}" for byte in raw)
    return f'"{"".join(shown)}"'
