"""The gateway's own identity: made once, kept, private, never replaced."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from openclaw_gateway.pairing import load_gateway_identity
from openclaw_gateway.pairing.tokens import CredentialDamaged


def test_it_is_made_once_and_follows_the_rule_of_device_ids(state_dir: Path) -> None:
    identity = load_gateway_identity(state_dir)
    assert load_gateway_identity(state_dir) == identity
    raw = base64.urlsafe_b64decode(identity.public_key + "=")
    assert len(raw) == 32
    assert identity.to_wire() == {"deviceId": hashlib.sha256(raw).hexdigest(), "publicKey": identity.public_key}
    Ed25519PublicKey.from_public_bytes(raw).verify(identity.sign(b"hello"), b"hello")


def test_it_is_private(state_dir: Path) -> None:
    identity = load_gateway_identity(state_dir)
    path = state_dir / "credentials" / "gateway-identity.json"
    assert path.stat().st_mode & 0o777 == 0o600
    secret = json.loads(path.read_text())["privateKey"]
    assert secret not in repr(identity)
    assert secret not in repr(identity.to_wire())
    assert repr(identity.private_key) not in repr(identity)


def test_in_memory_there_is_a_fresh_one_each_time() -> None:
    assert load_gateway_identity(None) != load_gateway_identity(None)


@pytest.mark.parametrize("content", ["", "{}", "[]", "nonsense", '{"privateKey": 5, "deviceId": "x"}', "swapped"])
def test_state1_a_damaged_identity_is_told_and_not_replaced(state_dir: Path, content: str) -> None:
    load_gateway_identity(state_dir)
    path = state_dir / "credentials" / "gateway-identity.json"
    if content == "swapped":
        content = json.dumps({**json.loads(path.read_text()), "deviceId": "0" * 64})
    path.write_text(content)
    with pytest.raises(CredentialDamaged, match="mv "):
        load_gateway_identity(state_dir)
    assert path.read_text() == content
