"""HPKE base mode (RFC 9180) a second time, from the text of the RFC: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256,
ChaCha20Poly1305.

The oracle that our sealing is held against. It shares X25519 and ChaCha20Poly1305 with it and nothing else: labelled
extract and expand, the KEM and the key schedule are written out here over the standard library's HMAC. It is itself
held against the RFC's vectors (appendix A.2.1).
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

__all__ = ["decap", "encap", "key_schedule", "open_base", "seal_base"]

_KEM = b"KEM" + (0x0020).to_bytes(2, "big")
_HPKE = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in (0x0020, 0x0001, 0x0003))


def _extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac.new(salt or bytes(32), b"HPKE-v1" + suite + label + ikm, hashlib.sha256).digest()


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    made, block, counter = b"", b"", 1
    while len(made) < length:
        block = hmac.new(prk, block + labelled + bytes([counter]), hashlib.sha256).digest()
        made, counter = made + block, counter + 1
    return made[:length]


def _shared(dh: bytes, enc: bytes, public: bytes) -> bytes:
    return _expand(_KEM, _extract(_KEM, b"", b"eae_prk", dh), b"shared_secret", enc + public, 32)


def decap(enc: bytes, private: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private)
    return _shared(key.exchange(X25519PublicKey.from_public_bytes(enc)), enc, key.public_key().public_bytes_raw())


def encap(public: bytes, ephemeral: bytes) -> tuple[bytes, bytes]:
    """(shared secret, enc) with a given ephemeral private key."""
    key = X25519PrivateKey.from_private_bytes(ephemeral)
    enc = key.public_key().public_bytes_raw()
    return _shared(key.exchange(X25519PublicKey.from_public_bytes(public)), enc, public), enc


def key_schedule(shared: bytes, info: bytes) -> tuple[bytes, bytes]:
    """(key, base nonce) in base mode."""
    hashes = _extract(_HPKE, b"", b"psk_id_hash", b"") + _extract(_HPKE, b"", b"info_hash", info)
    secret = _extract(_HPKE, shared, b"secret", b"")
    context = b"\0" + hashes
    return _expand(_HPKE, secret, b"key", context, 32), _expand(_HPKE, secret, b"base_nonce", context, 12)


def open_base(private: bytes, box: bytes, info: bytes, aad: bytes = b"") -> bytes:
    """What the first message of a sender is; ``box`` is enc and ciphertext. Raises InvalidTag."""
    key, nonce = key_schedule(decap(box[:32], private), info)
    return ChaCha20Poly1305(key).decrypt(nonce, box[32:], aad)


def seal_base(public: bytes, body: bytes, info: bytes, *, ephemeral: bytes, aad: bytes = b"") -> bytes:
    shared, enc = encap(public, ephemeral)
    key, nonce = key_schedule(shared, info)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, body, aad)
