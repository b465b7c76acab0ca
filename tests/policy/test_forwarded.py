"""RFC 7239's header, and the items of X-Forwarded-For: any text gives hops or nothing, and nothing is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.addresses import canonical_ip
from openclaw_gateway.policy.forwarded import UNKNOWN, hop_address, parse_forwarded
from openclaw_gateway.policy.locality import Peer, PeerRules, describe_peer
from tests.policy.builders import networks

RULES = PeerRules(trusted_proxies=networks("10.0.0.0/8", "fd00::/8"), client_header="forwarded")


def described(*values: str, address: str = "10.0.0.1", rules: PeerRules = RULES, **others: str) -> Peer:
    headers = [(b"host", b"claw.example"), *((b"forwarded", value.encode("latin-1")) for value in values)]
    headers += [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in others.items()]
    return describe_peer(address, headers, rules)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("198.51.100.1:5544", "198.51.100.1"),
        ("198.51.100.1:65536", UNKNOWN),
        ("[2001:db8::5]:5544", "2001:db8::5"),
        ("[2001:db8::5]", "2001:db8::5"),
        ("2001:DB8::5", "2001:db8::5"),
        ("[fe80::1%eth0]:9", "fe80::1"),
        ("fe80::1%25eth0", "fe80::1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("unknown", UNKNOWN),
        ("_hidden", UNKNOWN),
        ("127.1", UNKNOWN),
        ("0x7f.0.0.1", UNKNOWN),
        ("010.0.0.1", UNKNOWN),
        ("1.2.3.4 ", "1.2.3.4"),
        ("1.2.3.4\x0b", UNKNOWN),
        ("[1.2.3.4]", "1.2.3.4"),
        ("", UNKNOWN),
    ],
)
def test_proxy3_one_item_of_x_forwarded_for(text: str, address: str) -> None:
    assert hop_address(text) == address


@pytest.mark.parametrize(
    ("values", "addresses"),
    [
        (["for=192.0.2.60;proto=http;by=203.0.113.43"], ["192.0.2.60"]),
        (['For="[2001:db8:cafe::17]:4711"'], ["2001:db8:cafe::17"]),
        (["for=192.0.2.43, for=198.51.100.17"], ["192.0.2.43", "198.51.100.17"]),
        (["for=192.0.2.43", 'for="198.51.100.17:9"'], ["192.0.2.43", "198.51.100.17"]),
        (['for="_gazonk"', "for=unknown"], [UNKNOWN, UNKNOWN]),
        (["proto=https"], [UNKNOWN]),
        (["for=1.2.3.4;;proto=https"], None),
        ([""], []),
        ([" , for=1.2.3.4 ,"], ["1.2.3.4"]),
        (['for="1.2.3.4'], None),
        (["for=1.2.3.4;for=5.6.7.8"], None),
        (["for=[2001:db8::1]"], None),
        (["for = 1.2.3.4"], None),
        (['for="1.2.3.4"x'], None),
        (["for=1.2.3.4, junk"], None),
    ],
)
def test_rfc7239_elements(values: list[str], addresses: list[str] | None) -> None:
    hops = parse_forwarded(values)
    assert (None if hops is None else [hop.address for hop in hops]) == addresses


def test_rfc7239_a_header_over_the_cap_is_unreadable() -> None:
    assert parse_forwarded(["for=1.2.3.4," * 2000]) is None


def test_proxy3_the_walk_over_forwarded_takes_only_what_trusted_proxies_wrote() -> None:
    peer = described("for=6.6.6.6;proto=https;host=evil.example", "for=198.51.100.1;proto=https;host=claw.example")
    assert (peer.client_address, peer.host, peer.encrypted, peer.attributed) == (
        "198.51.100.1", "claw.example", True, True,
    )  # fmt: skip
    peer = described("for=6.6.6.6;proto=https", "for=198.51.100.1;proto=http")
    assert not peer.encrypted
    assert not described("for=198.51.100.1;proto=https, for=10.0.0.8").encrypted


def test_v35_a_quote_left_open_by_the_client_swallows_nothing() -> None:
    peer = described('for="10.0.0.9', "for=198.51.100.1")
    assert (peer.client_address, peer.attributed, peer.encrypted) == ("10.0.0.1", False, False)


def test_proxy3_one_header_counts_and_the_other_is_the_clients_own() -> None:
    peer = described("for=198.51.100.1", x_forwarded_for="6.6.6.6", x_forwarded_proto="https")
    assert (peer.client_address, peer.encrypted) == ("198.51.100.1", False)
    classic = PeerRules(trusted_proxies=RULES.trusted_proxies)
    peer = described("for=6.6.6.6;proto=https", rules=classic, x_forwarded_for="198.51.100.1")
    assert (peer.client_address, peer.encrypted) == ("198.51.100.1", False)


ITEM = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]:443"),
    st.sampled_from(["unknown", "_x", "", "127.0.0.1", "10.0.0.8", "10.0.0.9:1", "::ffff:10.1.1.1", "fe80::1%a"]),
    st.text(st.characters(codec="latin-1"), max_size=12),
)


@given(st.lists(ITEM, max_size=6), st.lists(ITEM, min_size=1, max_size=4), st.booleans())
def test_proxy3_law_what_the_client_wrote_left_of_an_untrusted_hop_changes_nothing(
    forged: list[str], real: list[str], spread: bool
) -> None:
    """The last item is what our own proxy wrote; nothing that stands left of an untrusted or unreadable one counts."""
    rules = PeerRules(trusted_proxies=RULES.trusted_proxies)

    def client(items: list[str]) -> str:
        values = items if spread else [", ".join(items)]
        headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in values]
        return describe_peer("10.0.0.1", headers, rules).client_address

    honest = [*real, "198.51.100.7", "10.0.0.8"]
    assert client([*forged, *honest]) == client(honest) == "198.51.100.7"


@given(st.lists(st.text(st.characters(codec="latin-1"), max_size=60), max_size=4))
def test_rfc7239_law_any_text_gives_canonical_hops_or_nothing(values: list[str]) -> None:
    hops = parse_forwarded(values)
    for hop in hops or ():
        assert hop.address == UNKNOWN or str(canonical_ip(hop.address)) == hop.address


@given(st.lists(st.tuples(st.ip_addresses(), st.booleans()), min_size=1, max_size=5))
def test_rfc7239_law_what_a_proxy_writes_is_read_back(hops: list[tuple[object, bool]]) -> None:
    def node(address: object, port: bool) -> str:
        text = f"[{address}]" if ":" in str(address) else str(address)
        return f'for="{text}:8080"' if port else f'for="{text}"'

    read = parse_forwarded([", ".join(node(*hop) for hop in hops)])
    assert read is not None
    assert [hop.address for hop in read] == [str(canonical_ip(str(address))) for address, _ in hops]
