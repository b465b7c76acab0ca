"""The table of what is paired without asking: each row, its limits, its switch (S098-S103, C4, C5, PAIR-7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.autoapprove import BASELINE, TABLE, Applicant, AutoApproveRules, judge
from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_OPERATOR_SCOPES, PAIRING, READ, WRITE, satisfies
from tests.policy.builders import networks

OWN = "100.64.0.7"
EVERYTHING = AutoApproveRules(lan=networks("192.168.1.0/24"), shared_secret="baseline")
NOTHING = AutoApproveRules(loopback=False, own_tailnet=False)


def applicant(**changes: Any) -> Applicant:
    """An operator with the secret from another host, nothing known of it; changed as told."""
    base = Applicant(
        rules=AutoApproveRules(),
        own_tailnet_addresses=frozenset({OWN, "fd7a:115c:a1e0::7"}),
        role="operator",
        asked=(READ, WRITE, ADMIN),
        scopeless=False,
        address="203.0.113.9",
        loopback=False,
        forwarded=False,
        secret=True,
        fresh=True,
        decided_against=False,
    )
    return attrs.evolve(base, **changes)


LOCAL = {"address": "127.0.0.1", "loopback": True}
NODE = {"role": "node", "asked": (), "scopeless": True}
LAN_NODE = {**NODE, "address": "192.168.1.20", "rules": EVERYTHING}


def verdict(**changes: Any) -> tuple[str, tuple[str, ...] | None]:
    row, granted = judge(applicant(**changes))
    return row.id, granted


def test_s098_this_host_is_approved_with_what_it_asks() -> None:
    assert verdict(**LOCAL) == ("loopback", (READ, WRITE, ADMIN))
    assert verdict(**LOCAL, **NODE) == ("loopback", ())
    assert verdict(**LOCAL, secret=False) == ("loopback", (READ, WRITE, ADMIN))  # auth type none: this host only


def test_s098_this_host_can_be_switched_off() -> None:
    assert verdict(**LOCAL, rules=NOTHING) == ("switched-off", None)


@pytest.mark.parametrize("address", [OWN, "fd7a:115c:a1e0::7"])
def test_s099_c4_this_hosts_own_tailnet_address_is_approved(address: str) -> None:
    assert verdict(address=address) == ("own-tailnet", (READ, WRITE, ADMIN))
    assert verdict(address=address, **NODE) == ("own-tailnet", ())


def test_s099_c4_not_behind_a_proxy_not_without_authentication_not_when_switched_off() -> None:
    assert verdict(address=OWN, forwarded=True) == ("unknown-origin", None)
    assert verdict(address=OWN, secret=False) == ("switched-off", None)
    assert verdict(address=OWN, rules=attrs.evolve(EVERYTHING, own_tailnet=False, shared_secret="off")) == (
        "switched-off",
        None,
    )


def test_s100_c5_a_fresh_node_from_a_configured_network_is_approved() -> None:
    assert verdict(**LAN_NODE) == ("lan", ())


@pytest.mark.parametrize(
    "change",
    [
        {"rules": AutoApproveRules()},  # not configured: nobody
        {"address": "192.168.2.20"},
        {"forwarded": True},
        {"secret": False},
        {"fresh": False},  # an upgrade, or something was decided before
        {"scopeless": False},  # asked for scopes, even for ones that nobody knows
    ],
)
def test_s100_c5_the_lan_row_is_for_fresh_scopeless_nodes_only(change: dict[str, Any]) -> None:
    assert verdict(**LAN_NODE | change)[1] is None


def test_s100_c5_operators_from_the_lan_are_asked_about() -> None:
    rules = attrs.evolve(EVERYTHING, shared_secret="off")
    assert verdict(address="192.168.1.20", rules=rules) == ("remote", None)
    assert verdict(address="192.168.1.20", rules=rules, asked=(), scopeless=True) == ("remote", None)


def test_pair7_the_secret_pairs_an_operator_from_anywhere_at_the_baseline() -> None:
    for address in ("203.0.113.9", "172.17.0.5"):
        assert verdict(address=address, rules=EVERYTHING) == ("shared-secret", BASELINE)
    assert verdict(forwarded=True, rules=EVERYTHING) == ("shared-secret", BASELINE)
    assert verdict(rules=EVERYTHING, asked=(READ,)) == ("shared-secret", (READ,))
    assert verdict(rules=EVERYTHING, asked=()) == ("shared-secret", ())


def test_pair7_not_switched_on_without_the_secret_or_for_a_node_somebody_is_asked() -> None:
    assert verdict() == ("remote", None)
    assert verdict(rules=EVERYTHING, secret=False) == ("remote", None)
    assert verdict(rules=EVERYTHING, **NODE) == ("remote", None)
    assert verdict(rules=EVERYTHING, asked=(PAIRING,)) == ("remote", None)  # nothing of it lies in the baseline


def test_s101_another_host_of_the_tailnet_is_asked_about() -> None:
    assert verdict(address="100.64.0.8") == ("remote", None)


def test_s102_a_remote_host_is_asked_about() -> None:
    assert verdict() == ("remote", None)


def test_s103_an_unknown_origin_is_asked_about() -> None:
    assert verdict(address="unknown") == ("unknown-origin", None)
    assert verdict(address="127.0.0.1", forwarded=True) == ("unknown-origin", None)


@pytest.mark.parametrize("where", [LOCAL, {"address": OWN}, LAN_NODE, {"rules": EVERYTHING}])
def test_v26_what_a_person_decided_against_fits_no_other_row(where: dict[str, Any]) -> None:
    assert verdict(**where)[1] is not None
    assert verdict(**where, decided_against=True) == ("decided-against", None)


applicants = st.builds(
    Applicant,
    rules=st.builds(
        AutoApproveRules,
        loopback=st.booleans(),
        own_tailnet=st.booleans(),
        lan=st.sampled_from([networks(), networks("192.168.1.0/24")]),
        shared_secret=st.sampled_from(["off", "baseline"]),
    ),
    own_tailnet_addresses=st.sampled_from([frozenset(), frozenset({OWN})]),
    role=st.sampled_from(["operator", "node"]),
    asked=st.lists(st.sampled_from(sorted(KNOWN_OPERATOR_SCOPES)), unique=True).map(tuple),
    scopeless=st.booleans(),
    address=st.sampled_from(["127.0.0.1", OWN, "192.168.1.20", "203.0.113.9", "unknown"]),
    loopback=st.booleans(),
    forwarded=st.booleans(),
    secret=st.booleans(),
    fresh=st.booleans(),
    decided_against=st.booleans(),
)


@given(applicants)
def test_v10_v13_whatever_comes_the_grant_is_asked_for_and_forwarded_peers_gain_the_baseline_at_most(
    who: Applicant,
) -> None:
    row, granted = judge(who)
    if granted is None:
        return
    assert all(satisfies(frozenset(who.asked), scope) for scope in granted)
    assert not who.decided_against
    if who.forwarded and not who.loopback:
        assert set(granted) <= set(BASELINE)
        assert who.secret
        assert row.id == "shared-secret"
    if not who.loopback:
        assert who.secret  # away from this host nobody is paired without authentication


def test_every_row_that_approves_has_a_switch_that_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    for row in TABLE:
        assert row.grants is None or row.setting is not None, row.id
        for setting in (row.setting or "").split(", "):
            assert setting in page
    assert not TABLE[-1].grants  # who fits nothing is asked about
