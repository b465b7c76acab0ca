"""The PROXY protocol's header, versions 1 and 2: who connects through a proxy that cannot say so in HTTP.

Pure. Source: haproxy.org/download/2.6/doc/proxy-protocol.txt, sections 2.1 (version 1, one line), 2.2 (version 2,
binary). Owns reading one header from the first bytes of a connection. It must not know who may send one: the shell asks
that first (`server.proxyprotocol`).

Invariants: bytes that can no longer become a header are refused at once, without waiting for more; nothing longer than
`MAX_BYTES` is waited for; the address is canonical; what is not a TCP client (LOCAL, UNKNOWN, other families) has no
address. Nothing is guessed: there is no header that is merely likely.
"""

from __future__ import annotations

import re
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import attrs

from openclaw_gateway.value import Value

__all__ = ["MAX_BYTES", "ProxyHeader", "ProxyLineError", "parse_proxy_header"]

MAX_V1: Final = 107  # section 2.1: the longest line, with its CRLF
MAX_BYTES: Final = 4096  # version 2 could say 65,551; real extensions (a TLS name, an id) need some hundred
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_HEAD: Final = struct.Struct("!12sBBH")
_IPV4: Final = struct.Struct("!4s4sHH")
_IPV6: Final = struct.Struct("!16s16sHH")
_LINE: Final = re.compile(
    rb"PROXY (?:UNKNOWN(?: [ -~]*)?|(TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))"
)
_PREFIX: Final = b"PROXY "


class ProxyLineError(ValueError):
    """What came is not a PROXY header. The text is ours and holds nothing of what was sent."""


@attrs.frozen(kw_only=True, eq=False, repr=False)
class ProxyHeader(Value):
    """One header. ``source``: the client's ``(ip, port)``; None: the proxy speaks for itself, or cannot say for whom.

    ``length``: bytes of the header; what follows belongs to the connection.
    """

    source: tuple[str, int] | None
    length: int


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read a header off the front of ``data``; None while it is not all there. Raises `ProxyLineError`."""
    if data.startswith(_SIGNATURE[: len(data)]):
        return _version_2(data)
    if data.startswith(_PREFIX[: len(data)]):
        return _version_1(data)
    raise ProxyLineError("no PROXY header")


def _version_1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(data) >= MAX_V1:
            raise ProxyLineError("a PROXY line without an end")
        if b"\n" in data or b"\r" in data[:-1]:
            raise ProxyLineError("a PROXY line that ends wrongly")
        return None
    found = _LINE.fullmatch(data[:end])
    if found is None:
        raise ProxyLineError("a PROXY line that cannot be read")
    kind, source, destination, *ports = found.groups()
    if kind is None:
        return ProxyHeader(source=None, length=end + 2)
    _address(destination.decode(), six=kind == b"TCP6")
    address = _address(source.decode(), six=kind == b"TCP6")
    if any(int(port) > 65535 for port in ports):
        raise ProxyLineError("a PROXY line with a port that is none")
    return ProxyHeader(source=(address, int(ports[0])), length=end + 2)


def _address(text: str, *, six: bool) -> str:
    try:
        return _canonical(IPv6Address(text) if six else IPv4Address(text))
    except ValueError:
        raise ProxyLineError("a PROXY line with an address that is none") from None


def _canonical(address: IPv4Address | IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped if mapped is not None else address)


def _version_2(data: bytes) -> ProxyHeader | None:
    # What is known is judged before the rest is waited for.
    if len(data) > 12 and data[12] not in (0x20, 0x21):
        raise ProxyLineError("a PROXY header of another version or command")
    if len(data) < _HEAD.size:
        return None
    _, command, family, size = _HEAD.unpack_from(data)
    total = _HEAD.size + size
    if total > MAX_BYTES:
        raise ProxyLineError(f"a PROXY header over {MAX_BYTES} bytes")
    if len(data) < total:
        return None
    if command == 0x20:  # LOCAL: a health check of the proxy's own; section 2.2: discard the rest
        return ProxyHeader(source=None, length=total)
    layout: struct.Struct | None = {0x11: _IPV4, 0x21: _IPV6}.get(family)
    if layout is None:
        if family not in (0x00, 0x12, 0x22, 0x31, 0x32):
            raise ProxyLineError("a PROXY header of an unknown family")
        return ProxyHeader(source=None, length=total)
    if size < layout.size:
        raise ProxyLineError("a PROXY header too short for its addresses")
    source, _, port, _ = layout.unpack_from(data, _HEAD.size)
    _check_extensions(data[_HEAD.size + layout.size : total])
    address = IPv4Address(source) if layout is _IPV4 else IPv6Address(source)
    return ProxyHeader(source=(_canonical(address), port), length=total)


def _check_extensions(data: bytes) -> None:
    """Type, length, value up to the very end (section 2.2); what they say is not used."""
    while data:
        if len(data) < 3 or len(data) < 3 + int.from_bytes(data[1:3], "big"):
            raise ProxyLineError("a PROXY header with a broken extension")
        data = data[3 + int.from_bytes(data[1:3], "big") :]
