"""A gateway's signed statement about itself: "this name, this port, this TLS pin, said at this time".

Pure but for `cryptography`, imported when the first beacon is signed or checked. Owns what is signed and the verdict.
It must not know the network, nor which gateways are paired: a verdict says whose statement it is, the caller whether
that is somebody he knows. Source: RFC 8032 (Ed25519); the device id is the SHA-256 of the key, as for every device
(spec wire.md section 3).

Invariants: a statement that was made for another name, port or pin is ``forged``; one that is older than
`MAX_AGE_SECONDS` or from the future is ``expired``, whoever signed it; nothing that a stranger sends raises. A beacon
does not cover the address that it came from: anybody on the LAN can repeat it, so it proves who spoke, and a connection
is safe only once the pin (or the paired key) was seen there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Collection
from typing import Final, Literal

import attrs

from openclaw_gateway.discovery.records import Beacon
from openclaw_gateway.value import Value

__all__ = [
    "MAX_AGE_SECONDS",
    "MAX_SKEW_SECONDS",
    "RENEW_SECONDS",
    "Verdict",
    "Word",
    "sign_beacon",
    "statement",
    "verify_beacon",
]

Word = Literal["unsigned", "signed", "verified", "expired", "forged"]

RENEW_SECONDS: Final = 6 * 3600.0
MAX_AGE_SECONDS: Final = 24 * 3600
MAX_SKEW_SECONDS: Final = 300


def statement(*, instance: str, port: int, tls_sha256: str | None, signed_at: int) -> bytes:
    """The bytes that are signed. ``instance`` is the label as announced (its last field, because it may hold anything);
    ``signed_at`` Unix seconds.
    """
    return f"openclaw-beacon-v1|{port}|{tls_sha256 or ''}|{signed_at}|{instance}".encode("utf-8", "surrogatepass")


def sign_beacon(
    sign: Callable[[bytes], bytes], public_key: str, *, instance: str, port: int, tls_sha256: str | None, signed_at: int
) -> Beacon:
    """``sign`` is `GatewayIdentity.sign`, ``public_key`` its key (base64url, unpadded)."""
    signature = sign(statement(instance=instance, port=port, tls_sha256=tls_sha256, signed_at=signed_at))
    encoded = base64.urlsafe_b64encode(signature).rstrip(b"=").decode("ascii")
    return Beacon(public_key=public_key, signed_at=signed_at, signature=encoded)


@attrs.frozen(eq=False, repr=False)
class Verdict(Value):
    """``signed``: by a key that nobody here knows; ``verified``: by one of the ``known``. ``device_id`` (64 hex digits)
    is whose statement it is, None unless the signature holds.
    """

    word: Word
    device_id: str | None = None


def verify_beacon(
    beacon: Beacon | None,
    *,
    instance: str,
    port: int,
    tls_sha256: str | None,
    now: float,
    known: Collection[str] = (),
) -> Verdict:
    """Whether somebody signed exactly this. ``port`` is the SRV record's, ``now`` Unix seconds, ``known`` the device
    ids of gateways that this side is paired with. Never raises.
    """
    if beacon is None:
        return Verdict("unsigned")
    said = statement(instance=instance, port=port, tls_sha256=tls_sha256, signed_at=beacon.signed_at)
    device_id = _signer(beacon, said)
    if device_id is None:
        return Verdict("forged")
    if not -MAX_SKEW_SECONDS <= now - beacon.signed_at <= MAX_AGE_SECONDS:
        return Verdict("expired", device_id)
    return Verdict("verified" if device_id in known else "signed", device_id)


def _signer(beacon: Beacon, said: bytes) -> str | None:
    key, signature = _decode(beacon.public_key, 32), _decode(beacon.signature, 64)
    if key is None or signature is None:
        return None
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from openclaw_gateway.protocol.device import device_id_of

    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, said)
    except (InvalidSignature, ValueError):
        return None
    return device_id_of(key)


def _decode(text: str, size: int) -> bytes | None:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    # One key has one spelling: the bits after the last byte are zero.
    same = base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii") == text
    return raw if len(raw) == size and same else None
