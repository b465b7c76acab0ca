"""Addresses: one form, one key for a limiter, networks as written by people (V14, PROXY-2)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy import addresses
from openclaw_gateway.policy.addresses import (
    canonical_ip,
    canonical_text,
    is_loopback,
    is_private_literal,
    limiter_key,
    parse_networks,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::FFFF:7f00:1", "127.0.0.1"),
        ("0:0:0:0:0:0:0:1", "::1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("localhost", "unknown"),
        ("127.1", "unknown"),
        ("2130706433", "unknown"),
        ("0177.0.0.1", "unknown"),
        ("", "unknown"),
        ("1.2.3.4\r\nx", "unknown"),
    ],
)
def test_v14_one_address_has_one_spelling(text: str, canonical: str) -> None:
    assert canonical_text(text) == canonical


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::1", "::1"),
        ("garbage", "unknown"),
    ],
)
def test_v14_the_limiters_key_folds_mapped_addresses_and_counts_ipv6_by_64(text: str, key: str) -> None:
    assert limiter_key(text) == key


@given(st.ip_addresses(v=4))
def test_v14_a_mapped_address_has_the_key_of_its_ipv4_address(address: IPv4Address) -> None:
    assert limiter_key(f"::ffff:{address}") == limiter_key(str(address))
    assert canonical_ip(f"::ffff:{address}") == address


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_v14_one_64_is_one_client(address: IPv6Address, host: int) -> None:
    if not address.is_loopback and address.ipv4_mapped is None:
        neighbour = IPv6Address(int(address) >> 64 << 64 | host)
        if not neighbour.is_loopback and neighbour.ipv4_mapped is None:
            assert limiter_key(str(neighbour)) == limiter_key(str(address))


@given(st.text(max_size=40))
def test_any_text_has_a_key_that_can_be_logged(text: str) -> None:
    assert limiter_key(text).isprintable()
    assert isinstance(is_loopback(text), bool)


@pytest.mark.parametrize(
    ("text", "loopback", "private"),
    [
        ("127.0.0.1", True, True),
        ("127.255.255.254", True, True),
        ("::1", True, True),
        ("::ffff:127.0.0.2", True, True),
        ("10.1.2.3", False, True),
        ("172.31.0.1", False, True),
        ("172.32.0.1", False, False),
        ("192.168.0.1", False, True),
        ("100.64.0.1", False, True),
        ("100.128.0.1", False, False),
        ("169.254.1.1", False, True),
        ("fd00::1", False, True),
        ("fe80::1", False, True),
        ("8.8.8.8", False, False),
        ("2001:db8::1", False, False),
        ("0.0.0.0", False, False),
        ("localhost", False, False),
    ],
)
def test_loopback_and_private(text: str, loopback: bool, private: bool) -> None:
    assert (is_loopback(text), is_private_literal(text)) == (loopback, private)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
        ("10.0.0.5", "10.0.0.5", "10.0.0.6"),
        ("10.0.0.5/24", "10.0.0.77", "10.0.1.1"),
        ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
        ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.1"),
        ("localhost", "127.0.0.9", "10.0.0.1"),
        ("LOCALHOST", "::1", "::2"),
        (" 172.17.0.0/16 ", "::ffff:172.17.3.4", "172.18.0.1"),
    ],
)
def test_proxy2_networks_are_matched_as_people_write_them(entry: str, inside: str, outside: str) -> None:
    networks, faults = parse_networks([entry])
    assert faults == ()
    assert inside in networks
    assert outside not in networks


@pytest.mark.parametrize("entry", ["", "proxy.local", "10.0.0.0/33", "*", "10.0.0.0/8/8", "10.0.0"])
def test_proxy2_an_entry_that_is_none_is_a_fault_that_names_it(entry: str) -> None:
    networks, faults = parse_networks([entry, "10.0.0.0/8"])
    assert len(faults) == 1
    assert repr(entry) in faults[0]
    assert networks.entries == ("10.0.0.0/8",)


def test_no_text_is_in_no_network() -> None:
    networks, _ = parse_networks(["0.0.0.0/0", "::/0"])
    assert "1.2.3.4" in networks
    assert "garbage" not in networks
    assert 5 not in networks


def test_rule8_what_is_remembered_of_addresses_is_capped() -> None:
    for number in range(1, 3 * addresses.REMEMBERED):
        text = f"2001:db8:{number:x}::1"
        assert canonical_ip(text) == ip_address(text)
        assert limiter_key(text) == f"2001:db8:{number:x}::/64"
    assert addresses._known.cache_info().currsize == addresses.REMEMBERED == 1024
    assert addresses._limiter_key.cache_info().currsize == addresses.REMEMBERED
    before = addresses._known.cache_info()
    assert canonical_ip("fe80::1%" + "z" * 100_000) == ip_address("fe80::1")
    assert canonical_ip("x" * 100_000) is None
    assert addresses._known.cache_info() == before, "what is long is not kept"
