"""An X25519 key of this host in a file: made once, never replaced (S095).

Owns the file and its shape: ``{"version": 1, "privateKey": <base64url>, "createdAtMs": <Unix ms>}``, mode 0600 in a
directory 0700. Gateways keep one beside their identity under ``credentials/``, nodes beside ``identity.json``. It must
not know what the key is used for. `cryptography` is imported when a key is read.

Invariants: a key that is there is never replaced, not even when it is damaged; of two processes that make one at once,
both end up with the same; the private key shows in no ``repr``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import time
from pathlib import Path
from typing import Final

import attrs
import msgspec

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.ops.statedir import ensure_private_dir, fsync_dir, read_private_file
from openclaw_gateway.value import Value

__all__ = ["StaticKey", "StaticKeyDamaged", "load_or_create_static_key", "make_static_key"]

_KEY_BYTES: Final = 32
_LIMIT: Final = 4096


@attrs.define(eq=False)
class StaticKeyDamaged(GatewayError):
    """The file is there but holds no key. It is left alone."""

    path: Path
    fault: str

    @property
    def fix(self) -> str:
        return f"restore it from a backup, or: mv '{self.path}' '{self.path}.damaged' (then it has to be trusted anew)"

    def __str__(self) -> str:
        return f"{self.path}: {self.fault}; fix: {self.fix}"


@attrs.frozen(kw_only=True, eq=False, repr=False)
class StaticKey(Value):
    """Raw keys of 32 bytes each (RFC 7748)."""

    public: bytes
    created_at_ms: int
    private: bytes = attrs.field(repr=False)


class _File(msgspec.Struct, frozen=True):
    privateKey: str  # noqa: N815  as in the file
    createdAtMs: int  # noqa: N815
    version: int = 1


def make_static_key() -> StaticKey:
    """A fresh key that no file holds."""
    return _key(os.urandom(_KEY_BYTES), time.time_ns() // 1_000_000)


def load_or_create_static_key(path: Path) -> StaticKey:
    """The key in ``path``, made and durable on the first call. Blocks for a file, and for one flush where it is made.

    Raises `StaticKeyDamaged`, `StateDirUnsafe` or `OSError`.
    """
    ensure_private_dir(path.parent)
    with contextlib.suppress(FileNotFoundError):
        return _read(path)
    made = make_static_key()
    text = base64.urlsafe_b64encode(made.private).rstrip(b"=").decode()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(6).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(fd, msgspec.json.encode(_File(text, made.created_at_ms)))
            os.fsync(fd)
        finally:
            os.close(fd)
        # link(2) fails where the name exists: of two that start at once one wins and the other takes its key.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    fsync_dir(path.parent)
    return _read(path)


def _read(path: Path) -> StaticKey:
    data = read_private_file(path, limit=_LIMIT)
    try:
        kept = msgspec.json.decode(data, type=_File)
        private = base64.b64decode(kept.privateKey + "=" * (-len(kept.privateKey) % 4), altchars=b"-_", validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error, ValueError) as error:
        raise StaticKeyDamaged(path, "is not a key") from error
    if len(private) != _KEY_BYTES:
        raise StaticKeyDamaged(path, f"has {len(private)} bytes instead of {_KEY_BYTES}")
    return _key(private, kept.createdAtMs)


def _key(private: bytes, created_at_ms: int) -> StaticKey:
    from openclaw_gateway.protocol.noise import public_key

    return StaticKey(public=public_key(private), created_at_ms=created_at_ms, private=private)
