"""Pairing codes for senders: derived, compared, never stored.

Owns the key (``credentials/sender-code.key``) and how a code comes out of a request: HMAC-SHA256 over the request's id
and salt, forty bits of it in eight unambiguous letters. A code is short, so what is kept of it must not be guessable
offline: whoever reads the database, or a backup of it, learns none, while those who may list requests can be shown
theirs. It must not know who waits.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from openclaw_gateway.pairing.sender_records import SenderRequest
from openclaw_gateway.pairing.tokens import load_key
from openclaw_gateway.policy.senders import code_from, plain_code

__all__ = ["SenderCodes", "load_sender_codes"]

KEY_FILE: Final = "sender-code.key"
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16


class SenderCodes:
    """Derives and compares pairing codes under one key."""

    def __init__(self, key: bytes, *, draw: Callable[[int], bytes] = secrets.token_bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise ValueError("a sender code key has 32 bytes")
        self._key = key
        self._draw = draw

    def salt(self) -> bytes:
        return self._draw(_SALT_BYTES)

    def code(self, request: SenderRequest) -> str:
        """The request's code: eight unambiguous letters. A secret between the sender and those who may approve."""
        text = f"sender-code|{request.request_id}|".encode() + request.salt
        return code_from(hmac.new(self._key, text, hashlib.sha256).digest())

    def matches(self, request: SenderRequest, presented: str) -> bool:
        """In constant time."""
        return hmac.compare_digest(_digest(self.code(request)), _digest(plain_code(presented)))


def _digest(code: str) -> bytes:
    """Of one length whatever was presented (V15)."""
    return hashlib.sha256(code.encode()).digest()


def load_sender_codes(state_dir: Path | None) -> SenderCodes:
    """The codes of the gateway under ``state_dir``; the key is made at the first call. None: for this process only.

    Raises `CredentialDamaged`, `StateDirUnsafe`, `OSError`.
    """
    return SenderCodes(
        load_key(state_dir, KEY_FILE, "{move} (codes that are on their way become worthless, nothing else)")
    )
