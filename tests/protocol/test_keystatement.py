"""Key statements: what passes is what the identity said; everything else is a fault, never an exception."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.device import device_id_of
from openclaw_gateway.protocol.keystatement import (
    _SMALL_ORDER,
    KeyStatement,
    fingerprint,
    is_small_order,
    make_key_statement,
    read_key_statement,
    statement_payload,
    verify_key_statement,
)

IDENTITY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = IDENTITY.public_key().public_bytes_raw()
STATIC = X25519PrivateKey.from_private_bytes(bytes(range(32, 64))).public_key().public_bytes_raw()


def statement(raw_key: bytes = STATIC, **changes: Any) -> KeyStatement:
    made = make_key_statement(
        IDENTITY.sign, public_key=PUBLIC, key=raw_key, subject="node", created_at_ms=1_700_000_000_000
    )
    return attrs.evolve(made, **changes) if changes else made


def test_a_statement_holds_and_survives_the_wire() -> None:
    made = statement()
    assert verify_key_statement(made, device_id=device_id_of(PUBLIC), subject="node") == made
    assert verify_key_statement(json.loads(json.dumps(made.to_wire()))) == made
    assert made.raw_key == STATIC


def test_the_payload_is_in_a_domain_of_its_own() -> None:
    payload = statement_payload(subject="node", device_id="ab", key="K", created_at_ms=7)
    assert payload == b"openclaw-key-statement-v1|x25519|node|ab|K|7"
    assert not payload.startswith((b"v2|", b"v3|"))  # the payloads of connects (spec wire.md section 3)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"subject": "gateway"}, "signature"),
        ({"created_at_ms": 1_700_000_000_001}, "signature"),
        ({"device_id": "0" * 64}, "device id"),
        ({"public_key": "A" * 43}, "device id"),
        ({"key": "+" * 43}, "base64url"),
        ({"signature": "A" * 86}, "signature"),
    ],
)
def test_a_changed_statement_does_not_hold(changes: dict[str, Any], fault: str) -> None:
    verdict = verify_key_statement(statement(**changes))
    assert isinstance(verdict, str)
    assert fault in verdict


def test_a_statement_of_somebody_else_or_for_something_else_does_not_hold() -> None:
    assert "another device" in str(verify_key_statement(statement(), device_id="f" * 64))
    assert "not for a gateway" in str(verify_key_statement(statement(), subject="gateway"))


def test_a_swapped_key_does_not_hold() -> None:
    other = X25519PrivateKey.generate().public_key().public_bytes_raw()
    theirs = make_key_statement(
        Ed25519PrivateKey.generate().sign, public_key=PUBLIC, key=other, subject="node", created_at_ms=1
    )
    assert verify_key_statement(theirs) == "the signature does not fit"


@pytest.mark.parametrize("point", sorted(_SMALL_ORDER), ids=bytes.hex)
def test_points_of_small_order_are_refused_also_when_signed(point: bytes) -> None:
    for key in (point, point[:31] + bytes([point[31] | 0x80])):
        with pytest.raises(ValueError, match="shared key"):
            X25519PrivateKey.from_private_bytes(bytes(range(32))).exchange(X25519PublicKey.from_public_bytes(key))
        assert is_small_order(key)
        assert verify_key_statement(statement(key)) == "the key is a point of small order"
    assert not is_small_order(STATIC)


def test_a_fingerprint_is_the_same_as_that_of_an_identity() -> None:
    assert fingerprint(STATIC) == ":".join(device_id_of(STATIC)[at : at + 4].upper() for at in range(0, 32, 4))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=90),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=7),
    max_leaves=12,
)
_NEARLY = st.fixed_dictionaries({name: _VALUES | st.just(value) for name, value in statement().to_wire().items()})


@given(_VALUES | _NEARLY)
def test_any_value_gives_a_statement_or_a_fault(value: Any) -> None:
    found = read_key_statement(value)
    assert isinstance(found, KeyStatement | str)
    verdict = verify_key_statement(value)
    if isinstance(verdict, KeyStatement):
        assert verdict == statement()


@given(st.integers(0, 10_000), st.integers(0, 127))
def test_no_changed_character_passes(at: int, code: int) -> None:
    text = json.dumps(statement().to_wire())
    changed = text[: at % len(text)] + chr(code) + text[at % len(text) + 1 :]
    try:
        value = json.loads(changed)
    except ValueError:
        return
    verdict = verify_key_statement(value)
    assert isinstance(verdict, str) or verdict == statement()
