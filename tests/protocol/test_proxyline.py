"""PROXY headers, versions 1 and 2: the specification's own examples, ways to break one, and laws over any bytes."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.proxyline import MAX_BYTES, ProxyLineError, parse_proxy_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def version_2(source: str, port: int, *, command: int = 0x21, family: int | None = None, extra: bytes = b"") -> bytes:
    address = ip_address(source)
    other = IPv4Address("192.0.2.1") if address.version == 4 else IPv6Address("2001:db8::1")
    body = address.packed + other.packed + struct.pack("!HH", port, 18789) + extra
    kind = family if family is not None else (0x11 if address.version == 4 else 0x21)
    return SIGNATURE + struct.pack("!BBH", command, kind, len(body)) + body


@pytest.mark.parametrize(
    ("data", "source"),
    [
        (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", ("255.255.255.255", 65535)),
        (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", ("192.168.0.1", 56324)),
        (b"PROXY TCP6 2001:DB8::1 2001:db8::2 1 2\r\n", ("2001:db8::1", 1)),
        (b"PROXY TCP6 ::ffff:198.51.100.1 ::1 1 2\r\n", ("198.51.100.1", 1)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN ffff:f::1 ffff:f::1 65535 65535\r\n", None),
        (version_2("198.51.100.9", 4711), ("198.51.100.9", 4711)),
        (version_2("2001:db8::9", 4711), ("2001:db8::9", 4711)),
        (version_2("::ffff:198.51.100.9", 4711), ("198.51.100.9", 4711)),
        (version_2("198.51.100.9", 1, extra=b"\x04\x00\x02ab"), ("198.51.100.9", 1)),
        (version_2("198.51.100.9", 1, command=0x20), None),
        (version_2("198.51.100.9", 1, family=0x00), None),
        (version_2("198.51.100.9", 1, family=0x12), None),
        (version_2("198.51.100.9", 1, family=0x31), None),
        (SIGNATURE + b"\x20\x00\x00\x00", None),
    ],
)
def test_headers_of_both_versions(data: bytes, source: tuple[str, int] | None) -> None:
    header = parse_proxy_header(data + b"GET / HTTP/1.1\r\n")
    assert header is not None
    assert (header.source, header.length) == (source, len(data))
    for end in range(len(data)):
        assert parse_proxy_header(data[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"proxy TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY  TCP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1\rX",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 1 \r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 01 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 -1 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 65536 1\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n",
        b"PROXY TCP4 1.2.3 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 01.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY TCP4 1.2.3.4 localhost 1 1\r\n",
        b"PROXY UDP4 1.2.3.4 1.2.3.4 1 1\r\n",
        b"PROXY UNKNOWN\x00\r\n",
        b"PROXY UNKNOWN " + b"x" * 200,
        b"PROXY TCP6 " + b"f" * 110,
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x22",
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x77\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff",
        version_2("198.51.100.9", 1, extra=b"\x04\x00\x05ab"),
        version_2("198.51.100.9", 1, extra=b"\x04"),
    ],
)
def test_what_cannot_become_a_header_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(ProxyLineError):
        parse_proxy_header(data)


def test_v13_nothing_over_the_cap_is_waited_for() -> None:
    size = MAX_BYTES - 16
    assert parse_proxy_header(SIGNATURE + struct.pack("!BBH", 0x20, 0, size)) is None
    with pytest.raises(ProxyLineError):
        parse_proxy_header(SIGNATURE + struct.pack("!BBH", 0x20, 0, size + 1))


LIKELY = st.one_of(
    st.binary(max_size=150),
    st.binary(max_size=60).map(lambda tail: SIGNATURE + tail),
    st.text("PROXYTCUNKW46 .:0123456789abcf\r\n", max_size=120).map(lambda tail: b"PROXY " + tail.encode()),
)


@given(LIKELY)
def test_law_any_bytes_are_a_header_a_beginning_or_an_error(data: bytes) -> None:
    try:
        header = parse_proxy_header(data)
    except ProxyLineError:
        # And more bytes do not mend it.
        with pytest.raises(ProxyLineError):
            parse_proxy_header(data + b"\r\n")
        return
    if header is None:
        assert len(data) < MAX_BYTES
        return
    assert header.length <= len(data)
    assert parse_proxy_header(data[: header.length]) == header
    if header.source is not None:
        assert str(ip_address(header.source[0])) == header.source[0]


@given(st.ip_addresses(), st.integers(0, 65535), st.booleans())
def test_law_what_a_proxy_writes_is_read_back(address: object, port: int, binary: bool) -> None:
    text = str(address)
    kind = "TCP6" if ":" in text else "TCP4"
    other = "::1" if ":" in text else "127.0.0.1"
    data = version_2(text, port) if binary else f"PROXY {kind} {text} {other} {port} 80\r\n".encode()
    header = parse_proxy_header(data)
    assert header is not None
    mapped = getattr(address, "ipv4_mapped", None)
    assert header.source == (str(mapped or address), port)
