"""The gateway's own identity: an Ed25519 key, made once, kept under ``credentials/``.

Owns the file and its shape. The device id follows the rule of every device (spec wire.md section 3): lowercase hex
SHA-256 of the raw public key. It must not know who asks (`gateway.identity.get` does). ``cryptography`` is imported
when needed only.

Invariants: an identity that is there is never replaced, not even when it is damaged; the private key appears in no
repr.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Final

import attrs

from openclaw_gateway.ops.statedir import ensure_private_dir, read_private_file, write_private_file
from openclaw_gateway.pairing.tokens import CredentialDamaged
from openclaw_gateway.value import Value

__all__ = ["GatewayIdentity", "load_gateway_identity"]

IDENTITY_FILE: Final = "gateway-identity.json"


@attrs.frozen(eq=False, repr=False)
class GatewayIdentity(Value):
    """``public_key`` is base64url of the raw 32 bytes, unpadded (43 characters); ``private_key`` the raw seed."""

    device_id: str
    public_key: str
    private_key: bytes = attrs.field(repr=False)

    def to_wire(self) -> dict[str, str]:
        """The result of `gateway.identity.get`."""
        return {"deviceId": self.device_id, "publicKey": self.public_key}

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature (RFC 8032), 64 bytes."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self.private_key).sign(message)


def load_gateway_identity(state_dir: Path | None) -> GatewayIdentity:
    """Read the identity, or make it at the first call. None: one for this process only.

    Blocks for one disk flush when it makes one. Raises `CredentialDamaged` where the file is there but is no identity,
    `StateDirUnsafe`, `OSError`.
    """
    if state_dir is None:
        return _make()
    folder = state_dir / "credentials"
    ensure_private_dir(state_dir)
    ensure_private_dir(folder)
    path = folder / IDENTITY_FILE
    try:
        raw = read_private_file(path)
    except FileNotFoundError:
        identity = _make()
        content = {"version": 1, **identity.to_wire(), "privateKey": _encode(identity.private_key)}
        write_private_file(path, json.dumps(content, indent=2).encode() + b"\n")
        return identity
    try:
        kept = json.loads(raw)
        identity = _from_seed(_decode(kept["privateKey"]))
        known_as = kept["deviceId"]
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(path, "is not an identity") from error
    if identity.device_id != known_as:
        raise _damaged(path, "its key does not belong to its device id")
    return identity


def _damaged(path: Path, fault: str) -> CredentialDamaged:
    return CredentialDamaged(
        path, fault, f"restore it from a backup, or: mv '{path}' '{path}.damaged' (the gateway gets a new identity)"
    )


def _make() -> GatewayIdentity:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _from_seed(Ed25519PrivateKey.generate().private_bytes_raw())


def _from_seed(seed: bytes) -> GatewayIdentity:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return GatewayIdentity(hashlib.sha256(public).hexdigest(), _encode(public), seed)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
