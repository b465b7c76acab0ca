"""Device identities: ids, the signed payloads v2 and v3, and the verdict on one signature.

Pure but for `cryptography`, imported when the first signature is checked. Source: spec wire.md section 3 (recomputed
over captured official connects), RFC 8032 for Ed25519, RFC 4648 section 5 for base64url. It must not know who is
paired.

Invariants: a verdict is ok only when id, freshness, nonce and signature all hold, checked in that order; nothing that a
peer sends raises; the private clock of the peer counts only when it did not sign our own timestamp (AUTH-7).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.protocol.connect import ConnectParams, DeviceProof
from openclaw_gateway.value import Value

__all__ = [
    "Challenge",
    "DeviceVerdict",
    "device_id_of",
    "signature_payload_v2",
    "signature_payload_v3",
    "verify_device",
]

MAX_SKEW_MS: Final = 120_000
_KEY_BYTES: Final = 32
_SIGNATURE_BYTES: Final = 64
_BASE64URL: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
_ASCII_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Challenge(Value):
    """What was sent in ``connect.challenge``: the nonce and ``ts`` (Unix milliseconds)."""

    nonce: str
    ts_ms: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeviceVerdict(Value):
    """``fault`` is a key of `protocol.errors.ERRORS` (None: the proof holds).

    ``details`` goes into the error's details.
    """

    ok: bool
    device_id: str | None = None  # the id computed from the key; None where there is no usable key
    public_key: str | None = None  # base64url, as verified
    payload_version: Literal["v2", "v3"] | None = None
    fault: str | None = None
    details: Mapping[str, Any] = attrs.field(factory=dict)


def device_id_of(public_key: bytes) -> str:
    """Lowercase hex SHA-256 of the raw 32-byte key."""
    return hashlib.sha256(public_key).hexdigest()


def _fields(version: str, params: ConnectParams, proof: DeviceProof) -> list[str]:
    return [
        version,
        proof.id,
        params.client.id,
        params.client.mode,
        params.role,
        ",".join(params.scopes),
        str(proof.signed_at),
        params.auth.signed_token,
        proof.nonce,
    ]


def signature_payload_v2(params: ConnectParams, proof: DeviceProof) -> bytes:
    """``v2|deviceId|client.id|client.mode|role|scopes|signedAt|token|nonce`` as UTF-8."""
    return "|".join(_fields("v2", params, proof)).encode("utf-8", "surrogatepass")


def signature_payload_v3(params: ConnectParams, proof: DeviceProof) -> bytes:
    """v2's fields under ``v3``, then ``|platform|deviceFamily``, both trimmed and ASCII-lowercased."""
    tail = [_normalised(params.client.platform), _normalised(params.client.device_family or "")]
    return "|".join(_fields("v3", params, proof) + tail).encode("utf-8", "surrogatepass")


def _normalised(text: str) -> str:
    return text.strip().translate(_ASCII_LOWER)


def decode_base64url(text: str, size: int) -> bytes | None:
    """Strict: base64url's own alphabet, no padding, no stray bits, exactly ``size`` bytes; anything else is None."""
    if len(text) != (size * 4 + 2) // 3 or not _BASE64URL.issuperset(text):
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    # One key must have one spelling: the bits after the last byte are zero.
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != text.encode("ascii"):
        return None
    return raw


def _ambiguous(params: ConnectParams) -> bool:
    """True where a field holds a separator, so that two different connects would sign the same bytes."""
    names = (params.role, params.client.platform, params.client.device_family or "")
    return any("|" in name for name in names) or any("|" in scope or "," in scope for scope in params.scopes)


def verify_device(
    proof: DeviceProof, params: ConnectParams, challenge: Challenge, *, now_ms: int, challenge_age: float
) -> DeviceVerdict:
    """Check one proof. ``now_ms`` is our wall clock.

    ``challenge_age`` the seconds since the challenge was sent, monotonic.
    """
    key = decode_base64url(proof.public_key, _KEY_BYTES)
    device_id = device_id_of(key) if key is not None else None
    if key is None or device_id != proof.id:
        return DeviceVerdict(ok=False, fault="device-id-mismatch")
    fault, details = _staleness(proof, challenge, now_ms=now_ms, challenge_age=challenge_age)
    if fault is None and not proof.nonce.strip():
        fault = "device-nonce-missing"
    elif fault is None and proof.nonce != challenge.nonce:
        fault = "device-nonce-mismatch"
    version = _verified_version(key, proof, params) if fault is None else None
    if fault is None and version is None:
        fault = "device-signature"
    return DeviceVerdict(
        ok=fault is None,
        device_id=device_id,
        public_key=proof.public_key,
        payload_version=version,
        fault=fault,
        details=details,
    )


def _staleness(
    proof: DeviceProof, challenge: Challenge, *, now_ms: int, challenge_age: float
) -> tuple[str | None, dict[str, Any]]:
    # Where our own timestamp came back, the peer's clock has no part in this, and neither has a jump of ours (AUTH-7).
    echoed = proof.signed_at == challenge.ts_ms
    delta = round(challenge_age * 1000) if echoed else now_ms - proof.signed_at
    if abs(delta) <= MAX_SKEW_MS:
        return None, {}
    return "device-signature-stale", {"deltaMs": delta, "limitMs": MAX_SKEW_MS}


def _verified_version(key: bytes, proof: DeviceProof, params: ConnectParams) -> Literal["v2", "v3"] | None:
    signature = decode_base64url(proof.signature, _SIGNATURE_BYTES)
    if signature is None or _ambiguous(params):
        return None
    # 21 ms of import that a gateway without devices never pays.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        verifier = Ed25519PublicKey.from_public_bytes(key)
    except ValueError:
        return None
    candidates: tuple[tuple[Literal["v2", "v3"], bytes], ...] = (
        ("v3", signature_payload_v3(params, proof)),
        ("v2", signature_payload_v2(params, proof)),
    )
    for version, payload in candidates:
        try:
            verifier.verify(signature, payload)
        except InvalidSignature:
            continue
        return version
    return None
