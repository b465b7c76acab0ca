"""Checking a password against a bcrypt hash without stopping the loop.

Owns the one thread hop outside store/ and discovery/ (docs/discussion/architecture.md says why): a bcrypt check takes
50 to 300 ms. One check runs at a time, so guessing costs the guesser and nobody else. A password that was right once is
remembered as a keyed digest (never as itself), so that honest reconnects cost microseconds.

Invariants: at most `MAX_WAITING` checks wait, the rest are told to come back; nothing is remembered of a wrong
password; forgetting the hash forgets what matched it.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

import trio

from openclaw_gateway.errors import GatewayError

__all__ = ["PasswordChecker", "TooManyChecks"]

MAX_WAITING: Final = 16
_MAX_BYTES: Final = 72  # bcrypt reads no more


class TooManyChecks(GatewayError):
    """More passwords wait to be checked than may; nothing was decided."""


class PasswordChecker:
    def __init__(self, password_hash: str) -> None:
        self._hash = password_hash.encode()
        self._key = secrets.token_bytes(32)
        self._right: bytes | None = None
        self._one = trio.CapacityLimiter(1)

    async def matches(self, password: str) -> bool:
        """Whether the password fits the hash. Raises `TooManyChecks`; a cancelled check is abandoned, not awaited."""
        raw = password.encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._key, raw, hashlib.sha256)
        if self._right is not None and hmac.compare_digest(digest, self._right):
            return True
        if len(raw) > _MAX_BYTES:
            return False
        if self._one.statistics().tasks_waiting >= MAX_WAITING:
            raise TooManyChecks
        right = await trio.to_thread.run_sync(self._check, raw, limiter=self._one, abandon_on_cancel=True)
        if right:
            self._right = digest
        return right

    def _check(self, raw: bytes) -> bool:
        import bcrypt

        try:
            return bcrypt.checkpw(raw, self._hash)
        except ValueError:
            return False
