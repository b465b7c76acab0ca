"""This device's identity: an Ed25519 key on disk and the signature that a connect carries.

Owns the key file (JSON, 0600 in a 0700 folder) and the v3 payload (spec wire.md section 3). It must not know sockets
or which gateway is spoken to. Invariants: the private key never leaves this module; the device id is always computed
from the public key, never read; a file that cannot be read is an error, never a reason to make a new identity
(requirement STATE-1)."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from openclaw_gateway.errors import GatewayError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["DeviceIdentity", "IdentityUnreadable", "load_identity", "load_or_create_identity", "v3_payload"]


class IdentityUnreadable(GatewayError):
    """The key file is there but is not one. It is left alone; the message names it."""


class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    privateKey: str  # noqa: N815  base64url of the raw 32 bytes, as the file has it
    version: int = 1


def _b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def v3_payload(
    *, device_id: str, client_id: str, mode: str, role: str, scopes: Sequence[str], signed_at_ms: int, token: str,
    nonce: str, platform: str, device_family: str,
) -> bytes:  # fmt: skip
    """What a v3 signature covers: eleven fields joined by ``|``; platform and family trimmed and in ASCII lower
    case."""
    fields = (
        "v3", device_id, client_id, mode, role, ",".join(scopes), str(signed_at_ms), token, nonce,
        _ascii_lower(platform), _ascii_lower(device_family),
    )  # fmt: skip
    return "|".join(fields).encode()


def _ascii_lower(text: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in text.strip())


class DeviceIdentity:
    """``device_id``: hex SHA-256 of the raw public key; ``public_key``: base64url of it, unpadded."""

    __slots__ = ("_key", "device_id", "public_key", "raw_public_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        raw = key.public_key().public_bytes_raw()
        self._key = key
        self.raw_public_key = raw
        self.device_id = hashlib.sha256(raw).hexdigest()
        self.public_key = _b64(raw)

    def __repr__(self) -> str:
        return f"DeviceIdentity({self.device_id[:8]}…)"

    @classmethod
    def generate(cls) -> DeviceIdentity:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return cls(Ed25519PrivateKey.generate())

    def sign(self, payload: bytes) -> str:
        """The signature, base64url of 64 bytes, unpadded (RFC 8032)."""
        return _b64(self._key.sign(payload))

    def sign_raw(self, payload: bytes) -> bytes:
        """The signature as its 64 bytes."""
        return self._key.sign(payload)

    def save_new(self, path: Path) -> None:
        """Write the key to a file that must not exist yet. Raises FileExistsError, or another OSError; then nothing
        is left."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        data = msgspec.json.encode(_KeyFile(_b64(self._key.private_bytes_raw())))
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                os.write(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            # link(2) fails where the name exists, so of two that start at once one wins and the other sees its key.
            os.link(temporary, path)
        finally:
            temporary.unlink()


def load_identity(path: Path) -> DeviceIdentity | None:
    """The identity in ``path``, None where there is no file. Raises `IdentityUnreadable`, or OSError as the system
    gives it."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:  # noqa: PTH123  a descriptor, opened without following links
        os.fchmod(fd, 0o600)
        data = file.read(4096)
    try:
        text = msgspec.json.decode(data, type=_KeyFile).privateKey
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return DeviceIdentity(Ed25519PrivateKey.from_private_bytes(raw))
    except (msgspec.DecodeError, ValueError) as error:
        raise IdentityUnreadable(f"{path} is not a device key; put the right file back, or move it away") from error


def load_or_create_identity(path: Path) -> DeviceIdentity:
    """The identity in ``path``; made and saved where there is none. Blocks for one file read or one fsync."""
    found = load_identity(path)
    if found is not None:
        return found
    made = DeviceIdentity.generate()
    try:
        made.save_new(path)
    except FileExistsError:
        other = load_identity(path)
        if other is not None:
            return other
        raise
    return made
