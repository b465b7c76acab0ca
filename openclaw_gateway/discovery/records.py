"""What a gateway looks like in DNS-SD: names, both service types, TXT, the layout of a signed beacon.

Pure. Owns writing and reading, so that responder, browser and zone file agree. It must not know who sends, who asks
and whether a beacon's signature holds (`discovery.beacon` does). Sources: RFC 6763 sections 4.1 and 6 (instance names,
TXT), RFC 1035 section 3.1 (63 bytes a label), checklist C3 (``_openclaw._tcp`` of the seed, ``_openclaw-gw._tcp`` of
OpenClaw).

Invariants: the stable id is part of the instance name and of the host name, so two gateways never want the same name
(DISC-2); minimal TXT names no path, user, host, ssh port or tailnet (DISC-3); what is written obeys the limits below;
reading is total: any bytes give a value, no value holds a control character, and nothing is larger than a packet.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import attrs

from openclaw_gateway.value import Value

__all__ = [
    "LOCAL_DOMAIN",
    "MAX_LABEL_BYTES",
    "MAX_TXT_BYTES",
    "OPENCLAW_TYPE",
    "SEED_TYPE",
    "SERVICE_TYPES",
    "Advert",
    "Announcement",
    "Beacon",
    "Mode",
    "clean_text",
    "decode_txt",
    "encode_txt",
    "full_name",
    "host_name",
    "instance_name",
    "read_advert",
    "stable_id",
    "txt_of",
]

Mode = Literal["minimal", "full"]

SEED_TYPE: Final = "_openclaw._tcp"
OPENCLAW_TYPE: Final = "_openclaw-gw._tcp"
SERVICE_TYPES: Final = (SEED_TYPE, OPENCLAW_TYPE)
LOCAL_DOMAIN: Final = "local."

MAX_LABEL_BYTES: Final = 63  # RFC 1035
MAX_STRING_BYTES: Final = 255  # RFC 6763 section 6.1: one "key=value"
MAX_TXT_BYTES: Final = 1300  # RFC 6763 section 6.2: one Ethernet packet; cut when read, refused when written
MAX_PAIRS: Final = 64
MAX_TEXT: Final = 128  # characters of a value that a person may be shown
_ID_DIGITS: Final = 12

_KEY: Final = re.compile(r"[\x20-\x3c\x3e-\x7e]{1,63}")  # RFC 6763 section 6.4: printable ASCII but "="
_HEX_ID: Final = re.compile(r"[0-9a-f]{12}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+")
_YES: Final = frozenset({"1", "true", "yes"})


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Beacon(Value):
    """A signed statement as it stands in TXT: ``pk`` (the key), ``ts`` (Unix seconds), ``sig``; base64url, unpadded."""

    public_key: str
    signed_at: int
    signature: str

    def to_txt(self) -> dict[str, str]:
        return {"pk": self.public_key, "ts": str(self.signed_at), "sig": self.signature}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Announcement(Value):
    """What we say about ourselves. ``tls_sha256``: 64 hex digits, None without TLS. ``display_name``, ``tailnet_dns``,
    ``ssh_port`` and ``cli_path`` are told in full mode only.
    """

    device_id: str
    instance: str  # the label in front of the service type (`instance_name`)
    host: str  # our host label (`host_name`)
    port: int
    version: str
    capabilities: tuple[str, ...]
    auth: str
    tls_sha256: str | None = None
    tls: bool = False
    display_name: str | None = None
    tailnet_dns: str | None = None
    ssh_port: int | None = None
    cli_path: str | None = None
    beacon: Beacon | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Advert(Value):
    """What somebody's TXT says about a gateway: claims, nothing more (attack V39). None and empty: not said, or not
    readable. ``port`` is TXT's ``gatewayPort``; the port of the SRV record is the one that counts.
    """

    id: str | None = None
    role: str | None = None
    transport: str | None = None
    display_name: str | None = None
    lan_host: str | None = None
    port: int | None = None
    tls: bool = False
    tls_sha256: str | None = None
    direct_reachable: bool = False
    version: str | None = None
    capabilities: tuple[str, ...] = ()
    auth: str | None = None
    tailnet_dns: str | None = None
    ssh_port: int | None = None
    cli_path: str | None = None
    beacon: Beacon | None = None


# --- names


def stable_id(device_id: str) -> str:
    """The first 12 hex digits of the gateway's device id: the same for as long as its identity lives."""
    return device_id[:_ID_DIGITS].lower()


def instance_name(device_id: str, display_name: str | None = None, *, number: int = 1) -> str:
    """The label in front of the service type: at most 63 bytes of UTF-8, the stable id always whole.

    ``number`` above 1 is what another claimant of the name forces us to add (RFC 6762 section 9).
    """
    tail = f" ({stable_id(device_id)})" + (f" {number}" if number > 1 else "")
    head = clean_text((display_name or "").replace(".", " ")) or "OpenClaw"
    return _cut(head, MAX_LABEL_BYTES - len(tail.encode())).strip() + tail


def host_name(device_id: str, *, number: int = 1) -> str:
    """Our own host label. Not the machine's name: the system's own responder has that, and it tells who is there."""
    return f"openclaw-{stable_id(device_id)}" + (f"-{number}" if number > 1 else "")


def full_name(instance: str, service_type: str, domain: str = LOCAL_DOMAIN) -> str:
    """``instance.type.domain.`` as libraries take it: the instance is one label, its own dots are not escaped."""
    return f"{instance}.{service_type}.{domain}"


def _cut(text: str, size: int) -> str:
    return text.encode()[: max(size, 0)].decode("utf-8", "ignore")


# --- TXT of ours


def txt_of(service_type: str, said: Announcement, mode: Mode) -> dict[str, str]:
    """The pairs that ``said`` becomes under one of `SERVICE_TYPES`, in the order of importance.

    Both types carry id, TLS and beacon, so that a browser of either knows whom it sees.
    """
    pairs: dict[str, str | None] = {}
    if service_type == SEED_TYPE:
        pairs |= {"version": said.version, "capabilities": ",".join(said.capabilities), "auth": said.auth}
    else:
        pairs |= {
            "role": "gateway",
            "transport": "gateway",
            "gatewayPort": str(said.port),
            "lanHost": f"{said.host}.local",
            "displayName": said.instance if mode == "minimal" else said.display_name or said.instance,
            "gatewayDirectReachable": "1",
        }
    pairs["id"] = stable_id(said.device_id)
    if said.tls:
        pairs |= {"gatewayTls": "1", "gatewayTlsSha256": said.tls_sha256}
    if said.beacon is not None:
        pairs |= said.beacon.to_txt()
    if mode == "full" and service_type == OPENCLAW_TYPE:
        pairs |= {
            "tailnetDns": said.tailnet_dns,
            "sshPort": None if said.ssh_port is None else str(said.ssh_port),
            "cliPath": said.cli_path,
        }
    return {key: value for key, value in pairs.items() if value is not None}


def encode_txt(pairs: Mapping[str, str]) -> bytes:
    """The TXT record's data: length-prefixed ``key=value`` strings (RFC 6763 section 6.1).

    Raises ValueError for a key that is not printable ASCII, a pair above 255 bytes, or more than `MAX_TXT_BYTES`.
    """
    out = bytearray()
    for key, value in pairs.items():
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"{key!r} cannot be a TXT key")
        pair = f"{key}={value}".encode()
        if len(pair) > MAX_STRING_BYTES:
            raise ValueError(f"TXT {key} takes {len(pair)} bytes; {MAX_STRING_BYTES} is the limit")
        out.append(len(pair))
        out += pair
    if len(out) > MAX_TXT_BYTES:
        raise ValueError(f"TXT takes {len(out)} bytes; {MAX_TXT_BYTES} is the limit")
    return bytes(out) or b"\0"


# --- TXT of others


def decode_txt(data: bytes) -> dict[str, str]:
    """The pairs of a TXT record; total. Of a key that comes twice the first counts (RFC 6763 section 6.4); a key
    without ``=`` has the value "". What lies behind `MAX_TXT_BYTES` or `MAX_PAIRS` is not looked at.
    """
    pairs: dict[str, str] = {}
    seen: set[str] = set()
    data = data[:MAX_TXT_BYTES]
    at = 0
    while at < len(data) and len(pairs) < MAX_PAIRS:
        string = data[at + 1 : at + 1 + data[at]]
        whole = len(string) == data[at]
        at += 1 + data[at]
        raw, _, value = string.partition(b"=")
        key = raw.decode("ascii", "replace")
        if whole and _KEY.fullmatch(key) is not None and key.lower() not in seen:
            seen.add(key.lower())
            pairs[key] = value.decode("utf-8", "replace")
    return pairs


def read_advert(pairs: Mapping[str, str]) -> Advert:
    """What the pairs say, of both service types; total. Keys count in any case (RFC 6763 section 6.4)."""
    low = {key.lower(): value for key, value in pairs.items()}

    def text(key: str) -> str | None:
        return clean_text(low.get(key.lower(), ""))[:MAX_TEXT] or None

    def matching(key: str, shape: re.Pattern[str]) -> str | None:
        value = low.get(key.lower(), "").strip().lower().replace(":", "")
        return value if shape.fullmatch(value) else None

    return Advert(
        id=matching("id", _HEX_ID),
        role=text("role"),
        transport=text("transport"),
        display_name=text("displayName"),
        lan_host=text("lanHost"),
        port=_port(low.get("gatewayport")),
        tls=low.get("gatewaytls", "").strip().lower() in _YES,
        tls_sha256=matching("gatewayTlsSha256", _SHA256),
        direct_reachable=low.get("gatewaydirectreachable", "").strip() in _YES,
        version=text("version"),
        capabilities=_words(low.get("capabilities", "").split(",")),
        auth=text("auth"),
        tailnet_dns=text("tailnetDns"),
        ssh_port=_port(low.get("sshport")),
        cli_path=text("cliPath"),
        beacon=_beacon(low),
    )


def clean_text(text: str) -> str:
    """``text`` without what could steer a terminal or hide in a line: control, format, surrogate, private-use and
    unassigned characters and separators but the plain space become spaces; runs of spaces one.
    """
    shown = (" " if unicodedata.category(char) in _UNSHOWN else char for char in text)
    return " ".join("".join(shown).split())


_UNSHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MAX_WORDS: Final = 16


def _words(parts: Iterable[str]) -> tuple[str, ...]:
    words = (clean_text(part)[:MAX_TEXT] for part in parts)
    return tuple(word for word in words if word)[:_MAX_WORDS]


def _port(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdecimal() and len(text) <= 5):
        return None
    return int(text) if 0 < int(text) < 65536 else None


def _beacon(low: Mapping[str, str]) -> Beacon | None:
    key, signed_at, signature = low.get("pk", ""), low.get("ts", ""), low.get("sig", "")
    readable = (
        len(key) == 43
        and len(signature) == 86
        and _BASE64URL.fullmatch(key + signature) is not None
        and signed_at.isascii()
        and signed_at.isdecimal()
        and len(signed_at) <= 12
    )
    return Beacon(public_key=key, signed_at=int(signed_at), signature=signature) if readable else None
