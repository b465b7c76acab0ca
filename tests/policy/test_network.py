"""Network rules and ceilings: who may connect, and what a listener carries at most (issue 6, NET)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.addresses import parse_networks
from openclaw_gateway.policy.network import (
    NO_CEILING,
    OPEN,
    Arrival,
    Ceiling,
    NetworkRules,
    Provenance,
    beyond_ceiling,
    under_ceiling,
)
from openclaw_gateway.protocol.scopes import KNOWN_OPERATOR_SCOPES, satisfies


def rules(
    allow: tuple[str, ...] = (), deny: tuple[str, ...] = (), within: tuple[str, ...] | None = None
) -> NetworkRules:
    return NetworkRules(
        allow=parse_networks(allow)[0],
        deny=parse_networks(deny)[0],
        within=None if within is None else parse_networks(within)[0],
    )


@pytest.mark.parametrize(
    ("allow", "deny", "address", "admitted"),
    [
        ((), (), "203.0.113.9", True),
        (("10.0.0.0/8",), (), "10.1.2.3", True),
        (("10.0.0.0/8",), (), "11.1.2.3", False),
        (("10.0.0.0/8",), ("10.1.0.0/16",), "10.1.2.3", False),
        ((), ("203.0.113.9",), "203.0.113.9", False),
        ((), ("203.0.113.9",), "::ffff:203.0.113.9", False),
        ((), ("203.0.113.9",), "::FFFF:CB00:7109", False),
        ((), ("::ffff:203.0.113.0/120",), "203.0.113.77", False),
        (("10.0.0.0/8",), (), "::ffff:10.1.2.3", True),
        (("2001:db8::/32",), (), "2001:db8:1::5", True),
        (("2001:db8::/32",), (), "2001:db9::5", False),
        ((), ("fe80::/10",), "fe80::1%eth0", False),
        (("0.0.0.0/0",), (), "2001:db8::5", False),
        (("10.0.0.0/8",), (), "unknown", False),
        (("10.0.0.0/8",), (), "", False),
        (("localhost",), (), "::1", True),
    ],
)
def test_net_allow_and_deny_lists(allow: tuple[str, ...], deny: tuple[str, ...], address: str, admitted: bool) -> None:
    assert (rules(allow, deny).refusal(address) is None) is admitted


def test_an_outer_allow_list_holds_on_a_listener_with_one_of_its_own() -> None:
    both = rules(allow=("10.1.0.0/16",), within=("10.1.2.0/24",))
    assert both.refusal("10.1.2.9") is None
    assert both.refusal("10.1.3.9") is not None
    assert rules(within=()).refusal("10.1.2.9") is not None  # an outer list that nothing is left of lets nobody in
    assert not rules(within=()).open
    assert OPEN.open


@given(st.ip_addresses(v=4))
def test_v14_every_mapped_spelling_meets_the_same_verdict(address: object) -> None:
    denied = rules(deny=(str(address),))
    for spelling in (str(address), f"::ffff:{address}", f"0:0:0:0:0:FFFF:{address}"):
        assert denied.refusal(spelling) is not None


@pytest.mark.parametrize("address", ["64:ff9b::c000:207", "64:ff9b::192.0.2.7%eth0", "2002:c000:207::1"])
def test_an_address_is_denied_behind_a_translator_too_and_allowed_as_what_it_is(address: str) -> None:
    assert rules(deny=("192.0.2.0/24",)).refusal(address) is not None
    assert rules(deny=("198.51.100.0/24",)).refusal(address) is None
    assert rules(allow=("192.0.2.0/24",)).refusal(address) is not None
    assert rules(deny=("0.0.0.0/8",)).refusal("::1") is None


@pytest.mark.parametrize(
    ("allow", "deny", "way", "admitted"),
    [
        ((), ("192.0.2.7",), (), True),
        ((), ("192.0.2.7",), ("192.0.2.7",), False),
        ((), ("192.0.2.7",), ("64:ff9b::c000:207",), False),
        ((), ("10.0.0.8",), ("10.0.0.8", "192.0.2.7"), False),
        ((), ("192.0.2.7",), ("unknown",), True),
        ((), ("192.0.2.7",), ("unreadable",), False),
        ((), (), ("unreadable",), True),
        (("0.0.0.0/0",), (), ("unreadable",), False),
        (("192.0.2.7",), (), ("10.0.0.8", "192.0.2.7"), True),
        (("10.0.0.8",), (), ("10.0.0.8", "192.0.2.7"), False),
        (("0.0.0.0/0", "::/0"), (), ("10.0.0.8", "unknown"), False),
    ],
)
def test_v35_the_lists_behind_a_trusted_proxy(
    allow: tuple[str, ...], deny: tuple[str, ...], way: tuple[str, ...], admitted: bool
) -> None:
    assert (rules(allow, deny).refusal_behind(way) is None) is admitted


def test_a_ceiling_of_methods_takes_names_families_and_paths() -> None:
    ceiling = Ceiling(methods=("health", "node.*", "/join/*"))
    assert [ceiling.allows(name) for name in ("health", "node.list", "node.pair.list", "/join/abc")] == [True] * 4
    beyond = ("healthz", "nodes.list", "node", "/rpc", "/join", "config.set", "")
    assert not any(ceiling.allows(name) for name in beyond)
    assert Ceiling(methods=()).allows("health") is False
    assert NO_CEILING.allows("anything")


def test_a_ceiling_of_scopes_clips_what_is_beyond_to_the_parts_that_fit() -> None:
    ceiling = Ceiling(scopes=frozenset({"operator.read"}))
    assert ceiling.clip(("operator.admin",)) == ("operator.read",)
    assert ceiling.clip(("operator.write", "operator.pairing")) == ("operator.read",)
    assert ceiling.clip(("operator.read", "made.up")) == ("operator.read",)
    assert ceiling.clip(()) == ()
    assert Ceiling(scopes=frozenset()).clip(("operator.admin",)) == ()


SCOPES = st.frozensets(st.sampled_from(sorted(KNOWN_OPERATOR_SCOPES)))


@given(SCOPES, SCOPES)
def test_a_clipped_grant_lies_under_the_ceiling_and_within_what_was_asked(
    top: frozenset[str], asked: frozenset[str]
) -> None:
    clipped = Ceiling(scopes=top).clip(sorted(asked))
    assert all(satisfies(top, scope) for scope in clipped)
    assert all(satisfies(frozenset(asked), scope) for scope in clipped)


def test_methods_under_a_ceiling_are_seen_live_and_without_one_untouched() -> None:
    methods = {"health": 1, "config.set": 2}
    assert under_ceiling(methods, NO_CEILING) is methods
    clipped = under_ceiling(methods, Ceiling(methods=("health", "late")))
    assert clipped.get("health") == 1
    assert clipped.get("config.set") is None
    methods["late"] = 3
    assert sorted(clipped) == ["health", "late"]
    assert len(clipped) == 2


def test_the_answer_to_what_is_beyond_says_no_more_than_the_caller_did() -> None:
    error = beyond_ceiling("config.set", Arrival(listener="readers"))
    assert error.message == "not on this listener: config.set"
    assert (error.details or {})["code"] == "LISTENER_CEILING"


def test_v36_only_a_direct_arrival_is_unrelayed() -> None:
    assert not Arrival().relayed
    relaying: tuple[Provenance, ...] = ("tailscale-serve", "tailscale-funnel", "tunnel")
    for provenance in relaying:
        assert Arrival(provenance=provenance).relayed
    assert Arrival(proxy="10.0.0.1").relayed
