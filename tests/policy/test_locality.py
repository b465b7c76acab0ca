"""Locality and attribution: who is on this host, who is behind which proxy (V13, V35, PROXY-1..3)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy import locality
from openclaw_gateway.policy.forwarded import hop_address
from openclaw_gateway.policy.locality import MAX_HOPS, PeerRules, describe_peer, trusted_proxies_hint
from openclaw_gateway.policy.network import Arrival
from tests.policy.builders import networks, peer_from

FORWARDING = [
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Server",
    "X-Real-IP",
    "Via",
    "CF-Connecting-IP",
    "CF-Ray",
    "True-Client-IP",
    "Tailscale-User-Login",
    "Tailscale-Funnel-Request",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "Fly-Client-IP",
    "Fastly-Client-IP",
    "X-Envoy-External-Address",
    "X-Amzn-Trace-Id",
    "X-Azure-ClientIP",
    "CDN-Loop",
]


@pytest.mark.parametrize(
    "host", ["127.0.0.1:18789", "localhost:18789", "LOCALHOST", "[::1]:18789", "127.9.9.9", "localhost."]
)
@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.53"])
def test_v13_loopback_peer_and_loopback_host_are_local(address: str, host: str) -> None:
    assert peer_from(address, host=host).direct_loopback


@pytest.mark.parametrize(
    "host",
    [
        "",
        "gwtest.local",
        "evil.example:18789",
        "192.168.1.2",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "0.0.0.0",
        "[::]",
    ],
)
def test_v13_another_host_is_not_local(host: str) -> None:
    assert not peer_from(host=host).direct_loopback


@pytest.mark.parametrize("header", FORWARDING)
@pytest.mark.parametrize("trusted", [(), ("localhost",)])
def test_v13_any_forwarding_header_ends_locality(header: str, trusted: tuple[str, ...]) -> None:
    headers: dict[str, Any] = {header.lower().replace("-", "_"): "127.0.0.1"}
    peer = peer_from(trusted=trusted, **headers)
    assert peer.forwarded
    assert not peer.direct_loopback
    assert peer.proxied_untrusted is (not trusted)


@pytest.mark.parametrize("address", ["192.168.1.7", "203.0.113.9", "2001:db8::1", None, "nonsense"])
def test_v13_another_peer_is_not_local_whatever_host_it_names(address: str | None) -> None:
    assert not peer_from(address, host="localhost").direct_loopback


def test_v13_two_hosts_are_no_host() -> None:
    peer = describe_peer("127.0.0.1", [(b"host", b"localhost"), (b"Host", b"localhost")], PeerRules())
    assert not peer.direct_loopback
    assert peer.host is None


@pytest.mark.parametrize(
    "value", ["127.0.0.1", "::1", "[::1]:80", "localhost", "::ffff:127.0.0.1", "127.0.0.1, 127.0.0.1"]
)
@pytest.mark.parametrize("trusted", [(), ("localhost",), ("0.0.0.0/0", "::/0")])
def test_v35_a_loopback_value_out_of_x_forwarded_for_is_never_local(value: str, trusted: tuple[str, ...]) -> None:
    peer = peer_from(trusted=trusted, x_forwarded_for=value)
    assert not peer.direct_loopback
    assert peer.limiter_key != peer_from().limiter_key


@pytest.mark.parametrize(
    ("address", "arrival", "believed"),
    [
        ("127.0.0.1", Arrival(), True),
        ("10.0.0.2", Arrival(), True),
        ("127.0.0.1", Arrival(provenance="tunnel"), False),
        ("10.0.0.2", Arrival(proxy="10.0.0.2"), False),  # LOCAL, UNKNOWN, or somebody on the proxy's own host
        ("10.0.0.2", Arrival(proxy="::ffff:10.0.0.2"), False),
        ("127.0.0.1", Arrival(proxy="10.0.0.2"), False),  # the loopback of another host
        ("10.0.0.3", Arrival(proxy="10.0.0.2"), True),  # a proxy that writes HTTP headers, through one that does not
    ],
)
def test_v14_v36_who_relays_bytes_writes_no_headers(address: str, arrival: Arrival, believed: bool) -> None:
    rules = PeerRules(trusted_proxies=networks("localhost", "10.0.0.0/24"))
    headers = [(b"host", b"gw"), (b"x-forwarded-for", b"198.51.100.1"), (b"x-forwarded-proto", b"https")]
    peer = describe_peer(address, headers, rules, arrival=arrival)
    assert (peer.attributed, peer.encrypted, peer.proxied_untrusted) == (believed, believed, not believed)
    assert ("198.51.100.1" in peer.limiter_key) == believed
    assert not peer.direct_loopback


def test_proxy1_an_untrusted_proxy_attributes_nothing_and_the_hint_is_the_exact_command() -> None:
    rules = PeerRules(trusted_proxies=networks("10.0.0.0/8"))
    headers = [(b"host", b"localhost"), (b"x-forwarded-for", b"198.51.100.1"), (b"x-forwarded-proto", b"https")]
    peer = describe_peer("172.17.0.1", headers, rules)
    assert (peer.client_address, peer.proxied_untrusted, peer.encrypted) == ("172.17.0.1", True, False)
    assert (
        trusted_proxies_hint(peer, rules)
        == """openclaw config set gateway.trustedProxies '["10.0.0.0/8", "172.17.0.1"]'"""
    )
    assert trusted_proxies_hint(peer_from(), rules) is None


def test_v14_headers_do_not_buy_a_remote_client_a_second_account() -> None:
    plain = peer_from("203.0.113.9")
    assert peer_from("203.0.113.9", x_forwarded_for="8.8.8.8").limiter_key == plain.limiter_key
    assert peer_from("::ffff:203.0.113.9", via="x").limiter_key == plain.limiter_key


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("127.0.0.1, 198.51.100.1, 10.0.0.8", "198.51.100.1"),
        ("10.0.0.9, 10.0.0.8", "10.0.0.9"),
        ("198.51.100.1:5544", "198.51.100.1"),
        ("[2001:db8::5]:5544", "2001:db8::5"),
        ("2001:db8::5", "2001:db8::5"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("198.51.100.1, garbage, 10.0.0.8", "10.0.0.8"),
        ("garbage", "10.0.0.1"),
        ("", "10.0.0.1"),
        ("unknown, 10.0.0.8", "10.0.0.8"),
    ],
)
def test_proxy3_the_chain_is_walked_from_the_right_to_the_first_untrusted_hop(chain: str, client: str) -> None:
    peer = peer_from("10.0.0.1", trusted=("10.0.0.0/8",), x_forwarded_for=chain)
    assert peer.client_address == client
    assert not peer.proxied_untrusted


@pytest.mark.parametrize(
    ("chain", "way"),
    [
        ("198.51.100.1", ("198.51.100.1",)),
        ("1.1.1.1, 198.51.100.1, 10.0.0.8", ("10.0.0.8", "198.51.100.1")),
        ("10.0.0.9, 10.0.0.8", ("10.0.0.8", "10.0.0.9")),
        ("198.51.100.1, garbage, 10.0.0.8", ("10.0.0.8", "unknown")),
        ("198.51.100.1, garbage", ("unknown",)),
        ("", ("unknown",)),
        (", ".join(["198.51.100.1"] + ["10.0.0.8"] * 32), (*["10.0.0.8"] * 32, "unknown")),
        (", ".join(["10.0.0.8"] * 32), ("10.0.0.8",) * 32),
    ],
)
def test_proxy3_the_way_says_where_the_walk_ended_before_the_client(chain: str, way: tuple[str, ...]) -> None:
    assert peer_from("10.0.0.1", trusted=("10.0.0.0/8",), x_forwarded_for=chain).way == way
    assert peer_from("10.0.0.1", x_forwarded_for=chain).way == (), "of a proxy that nobody trusts"


def test_proxy3_of_a_chain_that_fills_a_head_only_the_end_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client may send 16 KiB of it with each request; reading every hop took ten milliseconds of everybody's time."""
    read: list[str] = []

    def reading(text: str) -> str:
        read.append(text)
        return hop_address(text)

    monkeypatch.setattr(locality, "hop_address", reading)
    chain = ", ".join(["1.1.1.1"] * 2_000 + ["198.51.100.1", "10.0.0.8"])
    peer = peer_from("10.0.0.1", trusted=("10.0.0.0/8",), x_forwarded_for=chain)
    assert peer.way == ("10.0.0.8", "198.51.100.1")
    assert len(read) <= MAX_HOPS + 1


def test_proxy3_several_headers_are_one_chain_and_the_chain_is_capped() -> None:
    rules = PeerRules(trusted_proxies=networks("10.0.0.0/8"))
    headers = [(b"x-forwarded-for", b"198.51.100.1"), (b"X-Forwarded-For", b"10.0.0.8")]
    assert describe_peer("10.0.0.1", headers, rules).client_address == "198.51.100.1"
    long = ", ".join(["198.51.100.1"] + ["10.0.0.8"] * 40)
    assert peer_from("10.0.0.1", trusted=("10.0.0.0/8",), x_forwarded_for=long).client_address == "10.0.0.8"


@pytest.mark.parametrize(
    ("proto", "encrypted"), [("https", True), ("wss", True), ("http", False), ("https, http", False), ("", False)]
)
def test_encryption_at_a_trusted_proxy_counts(proto: str, encrypted: bool) -> None:
    assert peer_from("10.0.0.1", trusted=("10.0.0.1",), x_forwarded_proto=proto).encrypted is encrypted
    assert not peer_from("10.0.0.1", x_forwarded_proto=proto).encrypted
    assert peer_from("10.0.0.1", tls=True).encrypted


def test_the_effective_host_is_the_trusted_proxys() -> None:
    assert peer_from("10.0.0.1", trusted=("10.0.0.1",), x_forwarded_host="Claw.Example").host == "claw.example"
    assert peer_from("10.0.0.1", x_forwarded_host="claw.example").host == "127.0.0.1:18789"
    assert peer_from(host="bad host\x00").host is None


def test_v52_what_is_kept_of_a_user_agent_is_short_and_printable() -> None:
    peer = peer_from(user_agent="a\x1b[31m\x7f" + "x" * 1000)
    assert peer.user_agent.startswith("a?[31m?")
    assert len(peer.user_agent) == 256


def test_two_origins_are_an_unusable_one() -> None:
    peer = describe_peer("127.0.0.1", [(b"origin", b"http://a"), (b"origin", b"http://a")], PeerRules())
    assert peer.origin == ""


@given(
    st.none() | st.text(max_size=30),
    st.lists(
        st.tuples(st.sampled_from([b"host", b"x-forwarded-for", b"via", b"origin", b"x"]), st.binary(max_size=30))
    ),
)
def test_any_headers_give_a_peer_that_is_local_only_by_the_rule(
    address: str | None, headers: list[tuple[bytes, bytes]]
) -> None:
    peer = describe_peer(address, headers, PeerRules(trusted_proxies=networks("localhost")))
    if peer.direct_loopback:
        assert not peer.forwarded
        assert [name for name, _ in headers].count(b"host") == 1
    assert peer.address.isprintable()
