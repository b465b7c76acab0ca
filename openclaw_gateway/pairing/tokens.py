"""Device tokens and refresh tokens: opaque secrets that are derived, handed out, compared, and never stored.

Owns how they are made and compared. A device token is HMAC-SHA256 under a key of the gateway's own
(``credentials/device-token.key``) over device, role, generation and a random salt, in base64url: 43 characters, 256
bits. The store keeps only the salt and the SHA-256 of the token. A refresh token is ``ocr_`` and base64url of
family (12 random bytes), number of the use (4) and an HMAC over both (32): a spent one is recognised however old it is
without keeping any. It must not know who is approved, nor how long anything lives: records and `policy.tokenlife` say.

Invariants: only `hmac.compare_digest` on digests of equal length decides (V15); a record that is not live verifies
nothing (V26); a new generation never yields a token that was ever valid before, because its salt is drawn afresh.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.statedir import ensure_private_dir, read_private_file, write_private_file
from openclaw_gateway.pairing.records import PairedDevice
from openclaw_gateway.value import Value

__all__ = [
    "REFRESH_PREFIX",
    "CredentialDamaged",
    "DeviceTokens",
    "RefreshClaim",
    "TokenSeed",
    "load_device_tokens",
    "load_key",
]

KEY_FILE: Final = "device-token.key"
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16
_MAX_PRESENTED: Final = 1024

REFRESH_PREFIX: Final = "ocr_"
_FAMILY_BYTES: Final = 12
_USE_BYTES: Final = 4
_MAC_BYTES: Final = 32
_REFRESH_CHARS: Final = 64  # base64url of 48 bytes, no padding


@attrs.define(eq=False, repr=False)
class CredentialDamaged(GatewayError):
    """A file under ``credentials/`` is there but cannot be used; it is never replaced silently."""

    path: Path
    fault: str
    fix: str

    def __str__(self) -> str:
        return f"{self.path}: {self.fault}; fix: {self.fix}"


@attrs.frozen(eq=False, repr=False)
class TokenSeed(Value):
    """What a record keeps of a token."""

    generation: int
    salt: bytes = attrs.field(repr=False)
    digest: bytes = attrs.field(repr=False)


@attrs.frozen(eq=False, repr=False)
class RefreshClaim(Value):
    """What a refresh token says; ``genuine``: this gateway said it."""

    family: bytes
    use: int
    genuine: bool


class DeviceTokens:
    """Makes and checks device tokens and refresh tokens under one key."""

    def __init__(self, key: bytes, *, draw: Callable[[int], bytes] = secrets.token_bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError("a device token key has 32 bytes")
        self._key = key
        self._draw = draw

    def seed(self, device_id: str, role: str, generation: int) -> TokenSeed:
        """A fresh token's record. Once it is written, every earlier token of the device and role is worthless."""
        salt = self._draw(_SALT_BYTES)
        return TokenSeed(generation, salt, _digest(self._derive(device_id, role, generation, salt)))

    def issue(self, device: PairedDevice) -> str | None:
        """The device's token (43 characters). None where none may or can be handed out: the record is not live, or its
        token was made under a key that is lost (the device's copy stays good; `DeviceBook.reissue` makes a new one)."""
        if not device.live:
            return None
        token = self._derive(device.device_id, device.role, device.token_generation, device.token_salt)
        return token if hmac.compare_digest(_digest(token), device.token_digest) else None

    def verify(self, device: PairedDevice, presented: str) -> bool:
        """True where ``presented`` is the live token of this device and role. In constant time."""
        digest = _digest(presented[:_MAX_PRESENTED])
        return hmac.compare_digest(digest, device.token_digest) and device.live

    def new_family(self) -> bytes:
        """The random name of a family of refresh tokens."""
        return self._draw(_FAMILY_BYTES)

    def refresh_token(self, family: bytes, use: int) -> str:
        """The refresh token of a family that has been used ``use`` times (68 characters)."""
        head = family + use.to_bytes(_USE_BYTES, "big")
        return REFRESH_PREFIX + base64.urlsafe_b64encode(head + self._refresh_mac(head)).decode("ascii")

    def read_refresh_token(self, presented: str) -> RefreshClaim | None:
        """What a presented refresh token claims; None where it cannot be one. Only a ``genuine`` claim is to be
        believed."""
        text = presented.removeprefix(REFRESH_PREFIX)
        if len(text) != _REFRESH_CHARS or len(text) == len(presented):
            return None
        try:
            raw = base64.b64decode(text.encode("ascii"), b"-_", validate=True)
        except ValueError:
            return None
        head, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        genuine = hmac.compare_digest(mac, self._refresh_mac(head))
        return RefreshClaim(head[:_FAMILY_BYTES], int.from_bytes(head[_FAMILY_BYTES:], "big"), genuine)

    def _refresh_mac(self, head: bytes) -> bytes:
        return hmac.new(self._key, b"refresh-token|" + head, hashlib.sha256).digest()

    def _derive(self, device_id: str, role: str, generation: int, salt: bytes) -> str:
        text = f"device-token|{device_id}|{role}|{generation}|".encode() + salt
        raw = hmac.new(self._key, text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def load_device_tokens(state_dir: Path | None) -> DeviceTokens:
    """The tokens of the gateway under ``state_dir``; the key is made at the first call. None: a key for this process
    only.

    Raises `CredentialDamaged` where a key file is there but is no key (absent is not unreadable), `StateDirUnsafe`,
    `OSError`.
    """
    return DeviceTokens(
        load_key(state_dir, KEY_FILE, "restore it from a backup, or: {move} (devices keep the tokens they have)")
    )


def load_key(state_dir: Path | None, name: str, fix: str) -> bytes:
    """A key of 32 bytes under ``credentials/``, made at the first call; None: one for this process only.

    ``fix`` says what to do about a damaged file; ``{move}`` in it is the command that puts the file aside. Raises as
    `load_device_tokens`.
    """
    if state_dir is None:
        return os.urandom(_KEY_BYTES)
    folder = state_dir / "credentials"
    ensure_private_dir(state_dir)
    ensure_private_dir(folder)
    path = folder / name
    try:
        key = read_private_file(path)
    except FileNotFoundError:
        key = os.urandom(_KEY_BYTES)
        write_private_file(path, key)
    if len(key) != _KEY_BYTES:
        fault = f"has {len(key)} bytes instead of {_KEY_BYTES}"
        raise CredentialDamaged(path, fault, fix.format(move=f"mv '{path}' '{path}.damaged'"))
    return key


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
