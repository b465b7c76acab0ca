"""Key statements: an X25519 key and the Ed25519 identity that says "this key is mine" (S095).

Owns the shape of a statement, the bytes that its signature covers and the check of it. Pure but for `cryptography`,
imported when the first signature is made or checked. It must not know who is paired, what the key is used for or
where it is kept.

A device signs other things with the same identity (``v3|...`` at every connect), so the payload starts with words of
its own that no other payload starts with, and names its own subject: a statement made as one subject ("node",
"gateway") never passes for the other.

Invariants: any value gives a `KeyStatement` or a fault text, never an exception; one key has one spelling (strict
base64url, no padding, no stray bits); a key that is a point of small order is refused; the device id in a verified
statement is the one that belongs to the public key that made the signature.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import attrs

from openclaw_gateway.protocol.device import decode_base64url, device_id_of
from openclaw_gateway.value import Value

__all__ = [
    "KeyStatement",
    "KeySubject",
    "decode_key",
    "fingerprint",
    "make_key_statement",
    "read_key_statement",
    "statement_payload",
    "verify_key_statement",
]

KeySubject = Literal["node", "operator", "gateway"]

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
_SUBJECTS: Final = frozenset({"node", "operator", "gateway"})
_NAMES: Final = frozenset({"createdAtMs", "deviceId", "key", "publicKey", "signature", "subject"})
_DOMAIN: Final = "openclaw-key-statement-v1"
_MAX_MS: Final = 2**53
# Every u-coordinate that X25519 takes to zero (RFC 7748 section 6.1; the list is that of the curve's small subgroup),
# as bytes with the highest bit cleared.
_SMALL_ORDER: Final = frozenset(
    bytes.fromhex(text)
    for text in (
        "00" * 32,
        "01" + "00" * 31,
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class KeyStatement(Value):
    """What one identity says about one X25519 key. Texts as on the wire: keys and signature in unpadded base64url.

    ``device_id`` is the lowercase hex SHA-256 of the raw Ed25519 key ``public_key``; ``created_at_ms`` is the signer's
    own clock (Unix milliseconds) and proves nothing.
    """

    subject: KeySubject
    device_id: str
    public_key: str
    key: str
    created_at_ms: int
    signature: str

    @property
    def raw_key(self) -> bytes:
        """The 32 bytes of the X25519 key."""
        return base64.urlsafe_b64decode(self.key + "=")

    def to_wire(self) -> dict[str, Any]:
        return {
            "subject": self.subject,
            "deviceId": self.device_id,
            "publicKey": self.public_key,
            "key": self.key,
            "createdAtMs": self.created_at_ms,
            "signature": self.signature,
        }


def statement_payload(*, subject: str, device_id: str, key: str, created_at_ms: int) -> bytes:
    """``openclaw-key-statement-v1|x25519|subject|deviceId|key|createdAtMs`` in ASCII: what the signature covers."""
    return "|".join((_DOMAIN, "x25519", subject, device_id, key, str(created_at_ms))).encode()


def make_key_statement(
    sign: Callable[[bytes], bytes], *, public_key: bytes, key: bytes, subject: KeySubject, created_at_ms: int
) -> KeyStatement:
    """Say that the X25519 key ``key`` belongs to the identity ``public_key`` (both raw, 32 bytes).

    ``sign`` makes that identity's Ed25519 signature (RFC 8032, 64 bytes).
    """
    device_id, text = device_id_of(public_key), _encode(key)
    payload = statement_payload(subject=subject, device_id=device_id, key=text, created_at_ms=created_at_ms)
    return KeyStatement(
        subject=subject,
        device_id=device_id,
        public_key=_encode(public_key),
        key=text,
        created_at_ms=created_at_ms,
        signature=_encode(sign(payload)),
    )


def read_key_statement(value: object) -> KeyStatement | str:
    """A statement from decoded JSON, well-formed and not yet believed. A ``str`` is the fault."""
    if not isinstance(value, Mapping) or set(value) != _NAMES:
        return "must be an object with exactly " + ", ".join(sorted(_NAMES))
    texts = {name: value[name] for name in _NAMES if name != "createdAtMs"}
    if not all(isinstance(text, str) and text.isascii() for text in texts.values()):
        return "every member but createdAtMs must be an ASCII string"
    if texts["subject"] not in _SUBJECTS:
        return "unknown subject"
    created = value["createdAtMs"]
    if not isinstance(created, int) or isinstance(created, bool) or not 0 <= created < _MAX_MS:
        return "createdAtMs must be Unix milliseconds"
    if len(texts["deviceId"]) != 64 or set(texts["deviceId"]) - set("0123456789abcdef"):
        return "deviceId must be 64 lowercase hex digits"
    if decode_base64url(texts["publicKey"], KEY_BYTES) is None or decode_base64url(texts["key"], KEY_BYTES) is None:
        return "keys must be 32 bytes in base64url"
    if decode_base64url(texts["signature"], SIGNATURE_BYTES) is None:
        return "signature must be 64 bytes in base64url"
    return KeyStatement(
        subject=texts["subject"],
        device_id=texts["deviceId"],
        public_key=texts["publicKey"],
        key=texts["key"],
        created_at_ms=created,
        signature=texts["signature"],
    )


def verify_key_statement(
    statement: KeyStatement | object, *, device_id: str | None = None, subject: KeySubject | None = None
) -> KeyStatement | str:
    """The statement where it holds, else a fault text. Takes a `KeyStatement` or decoded JSON; never raises.

    ``device_id`` and ``subject``: whose statement it must be. Without ``device_id`` only this is proved: whoever holds
    the key of ``statement.device_id`` said so.
    """
    found = statement if isinstance(statement, KeyStatement) else read_key_statement(statement)
    if isinstance(found, str):
        return found
    if device_id is not None and found.device_id != device_id:
        return "it is the statement of another device"
    if subject is not None and found.subject != subject:
        return f"it speaks for a {found.subject}, not for a {subject}"
    public = decode_base64url(found.public_key, KEY_BYTES)
    key = decode_base64url(found.key, KEY_BYTES)
    signature = decode_base64url(found.signature, SIGNATURE_BYTES)
    if public is None or key is None or signature is None:
        return "keys and signature must be base64url"
    if device_id_of(public) != found.device_id:
        return "the public key does not belong to the device id"
    if is_small_order(key):
        return "the key is a point of small order"
    payload = statement_payload(
        subject=found.subject, device_id=found.device_id, key=found.key, created_at_ms=found.created_at_ms
    )
    return found if _signed(public, signature, payload) else "the signature does not fit"


def is_small_order(key: bytes) -> bool:
    """True for a public key with which every exchange gives zero (RFC 7748 section 6.1)."""
    return key[:31] + bytes([key[31] & 0x7F]) in _SMALL_ORDER


def decode_key(text: str) -> bytes:
    """The 32 bytes of a key in base64url as we keep it. ValueError for anything else."""
    raw = decode_base64url(text, KEY_BYTES)
    if raw is None:
        raise ValueError("not a key")
    return raw


def fingerprint(key: bytes) -> str:
    """What two people compare: the first 16 bytes of the SHA-256 of a key, in groups of four digits."""
    digits = device_id_of(key)[:32].upper()
    return ":".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def _signed(public: bytes, signature: bytes, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, payload)
    except (InvalidSignature, ValueError):
        return False
    return True


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
