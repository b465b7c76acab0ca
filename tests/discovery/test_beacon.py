"""Signed beacons: what was signed verifies, and nothing else does."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.discovery.beacon import MAX_AGE_SECONDS, MAX_SKEW_SECONDS, sign_beacon, verify_beacon
from openclaw_gateway.discovery.records import Beacon
from openclaw_gateway.pairing.identity import load_gateway_identity

GATEWAY = load_gateway_identity(None)
NOW = 1_800_000_000
PIN = "d" * 64


def signed(instance: str = "OpenClaw (ab)", port: int = 18789, pin: str | None = PIN) -> Beacon:
    return sign_beacon(
        GATEWAY.sign, GATEWAY.public_key, instance=instance, port=port, tls_sha256=pin, signed_at=NOW
    )


@given(st.text(max_size=63), st.integers(1, 65535), st.one_of(st.none(), st.just(PIN)))
def test_what_a_gateway_signed_is_its_own(instance: str, port: int, pin: str | None) -> None:
    beacon = signed(instance, port, pin)
    verdict = verify_beacon(beacon, instance=instance, port=port, tls_sha256=pin, now=NOW)
    assert (verdict.word, verdict.device_id) == ("signed", GATEWAY.device_id)
    known = verify_beacon(beacon, instance=instance, port=port, tls_sha256=pin, now=NOW, known=[GATEWAY.device_id])
    assert known.word == "verified"


@pytest.mark.parametrize(
    ("instance", "port", "pin"),
    [
        ("OpenClaw (ac)", 18789, PIN),
        ("OpenClaw (ab)", 18790, PIN),
        ("OpenClaw (ab)", 18789, None),
        ("OpenClaw (ab)", 18789, "e" * 64),
    ],
)
def test_v39_a_statement_about_another_name_port_or_pin_is_forged(instance: str, port: int, pin: str | None) -> None:
    verdict = verify_beacon(
        signed(), instance=instance, port=port, tls_sha256=pin, now=NOW, known=[GATEWAY.device_id]
    )
    assert (verdict.word, verdict.device_id) == ("forged", None)


def test_v39_another_key_or_time_is_forged_and_an_old_one_expired() -> None:
    def word(beacon: Beacon | None, now: float = NOW) -> str:
        known = [GATEWAY.device_id]
        return verify_beacon(
            beacon, instance="OpenClaw (ab)", port=18789, tls_sha256=PIN, now=now, known=known
        ).word

    other = load_gateway_identity(None)
    beacon = signed()
    assert word(attrs.evolve(beacon, public_key=other.public_key)) == "forged"
    assert word(attrs.evolve(beacon, signed_at=NOW + 60)) == "forged"
    assert word(beacon, NOW + MAX_AGE_SECONDS) == "verified"
    assert word(beacon, NOW + MAX_AGE_SECONDS + 1) == "expired"
    assert word(beacon, NOW - MAX_SKEW_SECONDS - 1) == "expired"
    assert word(None) == "unsigned"


@given(st.text(max_size=90), st.text(max_size=90), st.integers(0, 10**12))
def test_v39_whatever_a_stranger_sends_is_a_verdict(key: str, signature: str, when: int) -> None:
    beacon = Beacon(public_key=key, signed_at=when, signature=signature)
    verdict = verify_beacon(beacon, instance="x", port=1, tls_sha256=None, now=NOW)
    assert (verdict.word, verdict.device_id) == ("forged", None)
