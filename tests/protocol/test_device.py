"""Device signatures: both payloads, every fault in its order, clocks, and a second implementation to agree with."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.connect import ClientInfo, ConnectAuth, ConnectParams, DeviceProof
from openclaw_gateway.protocol.device import (
    Challenge,
    DeviceVerdict,
    device_id_of,
    signature_payload_v2,
    signature_payload_v3,
    verify_device,
)

CHALLENGE = Challenge(nonce="00087264-c239-4b80-9a03-56b63f13828d", ts_ms=1_795_413_492_351)
# RFC 8032 section 7.1, test 1: a fixed key makes fixed vectors.
KEY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
)
PUBLIC = KEY.public_key().public_bytes_raw()
NODE = ConnectParams(
    min_protocol=4,
    max_protocol=4,
    client=ClientInfo(id="node-host", mode="node", version="1", platform=" Linux ", device_family="LINUX"),
    role="node",
    auth=ConnectAuth(token="tok2"),
)


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def proof_for(
    params: ConnectParams, version: str, *, signed_at: int = CHALLENGE.ts_ms, nonce: str = CHALLENGE.nonce
) -> DeviceProof:
    draft = DeviceProof(id=device_id_of(PUBLIC), public_key=b64(PUBLIC), signature="", signed_at=signed_at, nonce=nonce)
    payload = signature_payload_v3(params, draft) if version == "v3" else signature_payload_v2(params, draft)
    return attrs.evolve(draft, signature=b64(KEY.sign(payload)))


def verdict(
    proof: DeviceProof, params: ConnectParams = NODE, *, now_ms: int = CHALLENGE.ts_ms + 50, age: float = 0.05
) -> DeviceVerdict:
    return verify_device(proof, params, CHALLENGE, now_ms=now_ms, challenge_age=age)


def test_device_id_is_the_hex_sha256_of_the_raw_key() -> None:
    assert device_id_of(PUBLIC) == hashlib.sha256(PUBLIC).hexdigest()


def test_payloads_are_spelled_as_on_the_wire() -> None:
    proof = proof_for(NODE, "v3")
    head = f"{device_id_of(PUBLIC)}|node-host|node|node||1795413492351|tok2|{CHALLENGE.nonce}"
    assert signature_payload_v2(NODE, proof).decode() == f"v2|{head}"
    assert signature_payload_v3(NODE, proof).decode() == f"v3|{head}|linux|linux"


def test_only_ascii_is_lowered_and_scopes_keep_their_order() -> None:
    params = attrs.evolve(
        NODE, scopes=("b", "a"), client=attrs.evolve(NODE.client, platform="ÄB", device_family=None), role="operator"
    )
    assert signature_payload_v3(params, proof_for(params, "v3")).decode().split("|")[5] == "b,a"
    assert signature_payload_v3(params, proof_for(params, "v3")).decode().endswith("|Äb|")


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_both_payload_versions_verify(version: str) -> None:
    result = verdict(proof_for(NODE, version))
    assert (result.ok, result.payload_version, result.fault) == (True, version, None)
    assert (result.device_id, result.public_key) == (device_id_of(PUBLIC), b64(PUBLIC))


def test_a_password_is_never_signed() -> None:
    params = attrs.evolve(NODE, auth=ConnectAuth(password="p"))
    assert "|1795413492351||" in signature_payload_v3(params, proof_for(params, "v3")).decode()
    assert verdict(proof_for(params, "v3"), params).ok


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("role", "operator"),
        ("scopes", ("operator.admin",)),
        ("auth", ConnectAuth(token="other")),
        ("client", attrs.evolve(NODE.client, id="cli")),
        ("client", attrs.evolve(NODE.client, mode="cli")),
        ("client", attrs.evolve(NODE.client, platform="windows")),
        ("client", attrs.evolve(NODE.client, device_family="mac")),
    ],
)
def test_v31_whatever_was_signed_cannot_be_changed(field: str, value: object) -> None:
    changes: dict[str, Any] = {field: value}
    changed = attrs.evolve(NODE, **changes)
    assert verdict(proof_for(NODE, "v3"), changed).fault == "device-signature"


@pytest.mark.parametrize(
    "change",
    [
        {"scopes": ("operator.read,operator.admin",)},
        {"scopes": ("a|b",)},
        {"client": attrs.evolve(NODE.client, platform="a|b")},
        {"role": "node|x"},
    ],
)
def test_fields_with_separators_in_them_are_refused_though_signed(change: dict[str, Any]) -> None:
    params = attrs.evolve(NODE, **change)
    assert verdict(proof_for(params, "v3"), params).fault == "device-signature"


@pytest.mark.parametrize(
    "key",
    [
        b64(PUBLIC) + "=",
        b64(PUBLIC)[:-1],
        b64(PUBLIC) + "A",
        b64(PUBLIC + b"x"),
        b64(PUBLIC[:-1]),
        "!" * 43,
        b64(PUBLIC)[:-1] + "é",
        " " + b64(PUBLIC)[1:],
        "",
    ],
)
def test_a_key_that_is_not_strict_base64url_of_32_bytes_has_no_identity(key: str) -> None:
    result = verdict(attrs.evolve(proof_for(NODE, "v3"), public_key=key))
    assert (result.ok, result.fault, result.device_id) == (False, "device-id-mismatch", None)


def test_one_key_has_one_spelling() -> None:
    # 32 bytes leave two unused bits in the last character; set, they would be a second name for the same key.
    text = b64(PUBLIC)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
    assert base64.urlsafe_b64decode(twin + "=") == PUBLIC
    assert verdict(attrs.evolve(proof_for(NODE, "v3"), public_key=twin)).fault == "device-id-mismatch"


@pytest.mark.parametrize("id_", ["", "0" * 64, device_id_of(PUBLIC).upper(), device_id_of(PUBLIC)[:-1]])
def test_an_id_that_is_not_the_keys_is_refused(id_: str) -> None:
    assert verdict(attrs.evolve(proof_for(NODE, "v3"), id=id_)).fault == "device-id-mismatch"


@pytest.mark.parametrize(
    "signature", ["", "A" * 86, b64(b"\0" * 63), b64(b"\0" * 65), "=" * 86, proof_for(NODE, "v3").signature + "=="]
)
def test_a_signature_that_is_not_64_bytes_of_the_key_is_refused(signature: str) -> None:
    assert verdict(attrs.evolve(proof_for(NODE, "v3"), signature=signature)).fault == "device-signature"


@pytest.mark.parametrize("nonce", ["", "   "])
def test_a_blank_nonce_is_missing(nonce: str) -> None:
    assert verdict(proof_for(NODE, "v3", nonce=nonce)).fault == "device-nonce-missing"


def test_a_nonce_of_another_connection_is_refused() -> None:
    assert verdict(proof_for(NODE, "v3", nonce="another")).fault == "device-nonce-mismatch"


@pytest.mark.parametrize(
    ("skew_ms", "ok"), [(110_000, True), (120_000, True), (121_000, False), (-120_000, True), (-120_001, False)]
)
def test_auth7_an_own_timestamp_may_be_120_s_off_and_the_error_says_how_far_it_was(skew_ms: int, ok: bool) -> None:
    now = CHALLENGE.ts_ms + 50
    result = verdict(proof_for(NODE, "v3", signed_at=now - skew_ms), now_ms=now)
    assert result.ok is ok
    if not ok:
        assert result.fault == "device-signature-stale"
        assert result.details == {"deltaMs": skew_ms, "limitMs": 120_000}


@pytest.mark.parametrize("jump_ms", [3_600_000, -3_600_000])
def test_auth7_the_challenges_own_timestamp_is_judged_by_our_monotonic_clock_alone(jump_ms: int) -> None:
    proof = proof_for(NODE, "v3")
    assert verdict(proof, now_ms=CHALLENGE.ts_ms + jump_ms, age=5.0).ok
    stale = verdict(proof, now_ms=CHALLENGE.ts_ms, age=121.0)
    assert (stale.fault, stale.details["deltaMs"]) == ("device-signature-stale", 121_000)


def test_faults_come_in_the_order_of_the_spec() -> None:
    wrong = attrs.evolve(proof_for(NODE, "v3", signed_at=1, nonce="another"), signature="x")
    assert verdict(attrs.evolve(wrong, id="other")).fault == "device-id-mismatch"
    assert verdict(wrong).fault == "device-signature-stale"
    assert verdict(attrs.evolve(wrong, signed_at=CHALLENGE.ts_ms)).fault == "device-nonce-mismatch"
    assert verdict(attrs.evolve(wrong, signed_at=CHALLENGE.ts_ms, nonce=CHALLENGE.nonce)).fault == "device-signature"


@given(st.text(max_size=50), st.text(max_size=50), st.text(max_size=90), st.integers(0, 2**60), st.text(max_size=40))
def test_any_proof_gives_a_verdict(id_: str, key: str, signature: str, at: int, nonce: str) -> None:
    proof = DeviceProof(id=id_, public_key=key, signature=signature, signed_at=at, nonce=nonce)
    assert not verdict(proof).ok


NODE_SIGNER = """
const crypto = require("node:crypto");
const { publicKey, privateKey } = crypto.generateKeyPairSync("ed25519");
const raw = Buffer.from(publicKey.export({ format: "jwk" }).x, "base64url");
const id = crypto.createHash("sha256").update(raw).digest("hex");
const fields = JSON.parse(process.argv[1]);
const payload = fields.map((field) => (field === "DEVICE_ID" ? id : field)).join("|");
const signature = crypto.sign(null, Buffer.from(payload, "utf8"), privateKey).toString("base64url");
console.log(JSON.stringify({ id, publicKey: raw.toString("base64url"), signature }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="cross-check with Node's crypto needs node")
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_signature_made_by_nodes_crypto_verifies(version: str) -> None:
    fields = [version, "DEVICE_ID", "node-host", "node", "node", "", str(CHALLENGE.ts_ms), "tok2", CHALLENGE.nonce]
    if version == "v3":
        fields += ["linux", "linux"]
    done = subprocess.run(
        ["node", "-e", NODE_SIGNER, json.dumps(fields)], capture_output=True, check=True, timeout=20, text=True
    )
    made = json.loads(done.stdout)
    proof = DeviceProof(
        id=made["id"],
        public_key=made["publicKey"],
        signature=made["signature"],
        signed_at=CHALLENGE.ts_ms,
        nonce=CHALLENGE.nonce,
    )
    result = verdict(proof)
    assert (result.ok, result.payload_version) == (True, version)
