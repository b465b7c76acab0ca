"""Who a request from the tailnet is from: claims, names, and the judgement (TS-6, V36, V37, V58, C6)."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.tailnet import TailnetClaim, TailnetPerson, decode_words, judge_claim, read_claim

SERVED = (
    (b"x-forwarded-for", b"100.64.0.2"),
    (b"x-forwarded-proto", b"https"),
    (b"x-forwarded-host", b"gw.tail-test.ts.net"),
    (b"tailscale-user-login", b"user-2@example.net"),
    (b"tailscale-user-name", b"User 2"),
)
CLAIM = TailnetClaim(address="100.64.0.2", login="user-2@example.net", name="User 2")
PERSON = TailnetPerson(node_id="n2", login="user-2@example.net", addresses=("100.64.0.2",))


def without(name: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(item for item in SERVED if item[0] != name)


def test_ts6_what_serve_writes_is_a_claim() -> None:
    assert read_claim(SERVED, "tailscale-serve") == CLAIM


@pytest.mark.parametrize("provenance", ["direct", "tunnel"])
def test_v36_v37_from_any_other_listener_it_is_nothing(provenance: Any) -> None:
    assert read_claim(SERVED, provenance) is None


def test_c6_behind_the_funnel_there_is_no_claim() -> None:
    assert read_claim(SERVED, "tailscale-funnel") == "tailscale_funnel"
    for value in (b"?1", b"?0", b""):
        assert read_claim((*SERVED, (b"Tailscale-Funnel-Request", value)), "tailscale-serve") == "tailscale_funnel"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (without(b"x-forwarded-for"), "tailscale_proxy_missing"),
        (without(b"x-forwarded-proto"), "tailscale_proxy_missing"),
        (without(b"x-forwarded-host"), "tailscale_proxy_missing"),
        ((*without(b"x-forwarded-proto"), (b"x-forwarded-proto", b"http")), "tailscale_proxy_missing"),
        ((*without(b"x-forwarded-for"), (b"x-forwarded-for", b"100.64.0.2, 100.64.0.3")), "tailscale_proxy_missing"),
        ((*without(b"x-forwarded-for"), (b"x-forwarded-for", b"127.0.0.1")), "tailscale_proxy_missing"),
        ((*SERVED, (b"x-forwarded-for", b"100.64.0.3")), "tailscale_proxy_missing"),
        (without(b"tailscale-user-login"), "tailscale_user_missing"),
        ((*SERVED, (b"Tailscale-User-Login", b"admin@example.net")), "tailscale_user_ambiguous"),
        ((*without(b"tailscale-user-login"), (b"tailscale-user-login", b" ")), "tailscale_user_ambiguous"),
    ],
)
def test_an_incomplete_or_doubled_claim_is_none(headers: tuple[tuple[bytes, bytes], ...], reason: str) -> None:
    assert read_claim(headers, "tailscale-serve") == reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("=?utf-8?q?J=C3=BCrgen_M?=", "Jürgen M"),
        ("=?UTF-8?B?SsO8cmdlbg==?=", "Jürgen"),
        ("=?utf-8?q?J=C3=BC?= =?utf-8?q?rgen?=", "Jürgen"),
        ("=?utf-8?q?=FF?=", ""),
        ("=?utf-8?q?a=0Ab?=", ""),
        ("x" * 300, ""),
    ],
)
def test_names_are_decoded_as_rfc2047_says(text: str, expected: str) -> None:
    assert decode_words(text) == expected


@given(st.text(max_size=600))
def test_any_text_gives_a_name_that_can_be_shown(text: str) -> None:
    found = decode_words(text)
    assert found.isprintable()
    assert len(found) <= 256


def judged(claim: TailnetClaim = CLAIM, person: TailnetPerson | None = PERSON, **more: Any) -> str:
    facts: dict[str, Any] = {
        "own_node": "n1",
        "own_addresses": frozenset({"100.64.0.1"}),
        "identity_scopes": {},
        **more,
    }
    return judge_claim(claim, person, **facts).reason


def test_a_claim_counts_where_whois_gives_the_same_login() -> None:
    vouched = judge_claim(
        attrs.evolve(CLAIM, login="USER-2@Example.net"),
        PERSON,
        own_node="n1",
        own_addresses=frozenset(),
        identity_scopes={"user-2@EXAMPLE.net": ("operator.read",)},
    )
    assert (vouched.ok, vouched.user, vouched.scopes) == (True, "user-2@example.net", ("operator.read",))
    assert vouched.source == "tailscale"


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("tailscale_whois_failed", {"person": None}),
        ("tailscale_user_mismatch", {"claim": attrs.evolve(CLAIM, login="admin@example.net")}),
        ("tailscale_user_mismatch", {"person": attrs.evolve(PERSON, login="")}),
        ("tailscale_tagged", {"person": attrs.evolve(PERSON, tagged=True)}),
        ("tailscale_self", {"own_node": "n2"}),
        ("tailscale_self", {"own_addresses": frozenset({"100.64.0.2"})}),
        ("tailscale_unavailable", {"own_node": None}),
    ],
)
def test_v37_v58_and_nowhere_else(reason: str, change: dict[str, Any]) -> None:
    assert judged(**change) == reason
