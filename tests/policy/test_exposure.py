"""Which doors should not be open as they are, and whom each lets in."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.exposure import Door, DoorKind, Posture, judge_door, kind_of_address

KINDS: tuple[DoorKind, ...] = (
    "loopback", "lan", "public", "tailnet", "serve", "funnel", "proxy", "tunnel", "ssh", "mdns",
)  # fmt: skip
POSTURE = Posture(trusted_proxies=True, token_length=43)


def door(kind: DoorKind, **changes: Any) -> Door:
    base = Door(kind=kind, url="https://x", answers=True, tls=True, auth=None if kind in ("ssh", "mdns") else "token")
    return attrs.evolve(base, **changes)


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("::1", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("192.168.1.4", "lan"),
        ("10.9.8.7", "lan"),
        ("169.254.1.1", "lan"),
        ("fd00::1", "lan"),
        ("fe80::1", "lan"),
        ("100.64.0.7", "tailnet"),
        ("100.127.255.255", "tailnet"),
        ("100.128.0.1", "public"),
        ("fd7a:115c:a1e0::7", "tailnet"),
        ("8.8.8.8", "public"),
        ("2a00:1450::1", "public"),
        ("nonsense", "public"),
    ],
)
def test_where_an_address_is_reached_from(address: str, kind: str) -> None:
    assert kind_of_address(address) == kind


@pytest.mark.parametrize(
    ("found", "posture", "state", "fix"),
    [
        (door("loopback", tls=False), POSTURE, "ok", None),
        (door("loopback", auth="none"), POSTURE, "ok", None),
        (door("loopback", answers=False), POSTURE, "fail", "gateway restart"),
        (door("lan"), POSTURE, "ok", None),
        (door("lan", tls=False), POSTURE, "warn", "gateway.tls.enabled"),
        (door("lan", auth="none"), POSTURE, "fail", "gateway.auth.type token"),
        (door("lan", auth="trusted-proxy"), POSTURE, "warn", "gateway.network.allow"),
        (door("lan", auth="trusted-proxy", network=True), POSTURE, "ok", None),
        (door("lan", answers=False), POSTURE, "warn", "firewall"),
        (door("lan", answers=False, network=True), POSTURE, "ok", None),
        (door("public", tls=False), POSTURE, "fail", "gateway.tls.enabled"),
        (door("public", tls=False, answers=False), POSTURE, "fail", "gateway.tls.enabled"),
        (door("public"), POSTURE, "warn", "gateway.network.allow"),
        (door("public", network=True), POSTURE, "ok", None),
        (door("tailnet", tls=False), POSTURE, "ok", None),
        (door("serve"), POSTURE, "ok", None),
        (door("serve", answers=False, fault="logged out"), POSTURE, "warn", "openclaw status"),
        (door("funnel", auth="password"), POSTURE, "ok", None),
        (door("funnel"), Posture(token_length=12), "fail", "gateway.tailscale.mode serve"),
        (door("funnel"), POSTURE, "ok", None),
        (door("funnel", auth="none"), POSTURE, "fail", "gateway.auth.type token"),
        (door("proxy"), POSTURE, "ok", None),
        (door("proxy"), Posture(), "warn", "gateway.trustedProxies"),
        (door("proxy", tls=False), POSTURE, "fail", "gateway.publicUrl"),
        (door("proxy", answers=False), POSTURE, "warn", "start the proxy"),
        (door("tunnel"), POSTURE, "ok", None),
        (door("tunnel", answers=False), POSTURE, "warn", "logs"),
        (door("loopback", proxy_only=True, answers=False), POSTURE, "ok", None),
        (door("lan", proxy_only=True, answers=True), POSTURE, "fail", "logs"),
        (door("ssh"), POSTURE, "ok", None),
        (door("mdns"), POSTURE, "ok", None),
    ],
)
def test_s143_s146_each_door_is_judged(found: Door, posture: Posture, state: str, fix: str | None) -> None:
    judged = judge_door(found, posture)
    assert judged.state == state, judged
    assert (fix is None and judged.fix is None) or (fix is not None and fix in (judged.fix or ""))
    assert judged.who


def test_what_keeps_a_door_narrow_is_told() -> None:
    judged = judge_door(door("lan", scopes=("operator.read",)), POSTURE)
    assert judged.who.endswith("at most operator.read")
    assert "no scope" in judge_door(door("lan", scopes=()), POSTURE).who


@given(
    st.builds(
        Door,
        kind=st.sampled_from(KINDS),
        url=st.just("https://x"),
        answers=st.none() | st.booleans(),
        tls=st.booleans(),
        auth=st.sampled_from(["token", "password", "none", "trusted-proxy"]),
        network=st.booleans(),
    ),
    st.builds(Posture, trusted_proxies=st.booleans(), token_length=st.none() | st.integers(1, 50)),
)
def test_law_every_warning_has_a_fix_and_nothing_unsafe_is_fine(found: Door, posture: Posture) -> None:
    judged = judge_door(found, posture)
    assert judged.state == "ok" or (judged.why and judged.fix)
    if found.kind in ("ssh", "mdns"):
        return
    if found.auth == "none" and found.kind != "loopback":
        assert judged.state == "fail"
    if found.kind in ("public", "proxy") and not found.tls:
        assert judged.state == "fail"


def test_a_listener_that_refuses_this_host_by_address_is_no_fault() -> None:
    reset = "Error connecting to ('127.0.0.1', 18800): Connection reset by peer (at tcp)"
    refusing = door("loopback", answers=False, fault=reset, network=True)
    judged = judge_door(refusing, POSTURE)
    assert (judged.state, judged.fix) == ("ok", None)
    assert judge_door(attrs.evolve(refusing, network=False), POSTURE).state == "fail"
    narrow = judge_door(attrs.evolve(refusing, methods=("/join/*",)), POSTURE)
    assert "only /join/*" in narrow.who
