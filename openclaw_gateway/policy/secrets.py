"""Comparing secrets: where a presented secret meets the gateway's own (V15).

Pure. Invariants: the comparison is `hmac.compare_digest` over SHA-256 digests, so neither content nor length shows in
its time; an expected secret that is missing matches nothing (V17); no outcome carries any of the text.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
from typing import Final

import msgspec

__all__ = ["SecretOutcome", "check_secret", "compare", "looks_like_setup_code", "unmatched_outcome"]

_MAX_SETUP_CODE: Final = 8192
_SETUP_PREFIX: Final = "oc-pair://"
_REDACTION_MARK: Final = "OPENCLAW_REDACTED"


class SecretOutcome(enum.Enum):
    """What came of a presented secret."""

    MATCH = "match"
    MISMATCH = "mismatch"
    MISSING = "missing"
    MALFORMED = "malformed"  # white space, control characters, ${VAR} or the redaction marker
    LOOKS_LIKE_SETUP_CODE = "looks-like-setup-code"
    UNRESOLVABLE = "unresolvable"  # the gateway's own secret cannot be had: closed
    EXPIRED = "expired"  # the password matched, but is older than policy.maxAge
    LOCKED = "locked"  # too many failures: not compared


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def compare(presented: str, expected: str) -> bool:
    """True where both are the same text; the time taken tells nothing of either."""
    return hmac.compare_digest(_digest(presented), _digest(expected))


def looks_like_setup_code(text: str) -> bool:
    """True for base64url of a JSON object with a ``bootstrapToken``, with or without ``oc-pair://`` before it."""
    code = text.removeprefix(_SETUP_PREFIX)
    if len(code) > _MAX_SETUP_CODE or not code.startswith("eyJ"):  # how base64 spells {" at the start
        return len(code) < len(text)
    try:
        value = msgspec.json.decode(base64.urlsafe_b64decode(code + "=" * (-len(code) % 4)))
    except (msgspec.DecodeError, UnicodeError, binascii.Error, ValueError, RecursionError):
        return len(code) < len(text)
    return isinstance(value, dict) and "bootstrapToken" in value


def unmatched_outcome(presented: str) -> SecretOutcome:
    """Why a secret that did not match did not: MALFORMED, LOOKS_LIKE_SETUP_CODE or MISMATCH.

    For a bcrypt check, once the thread that made it has said no.
    """
    if looks_like_setup_code(presented):
        return SecretOutcome.LOOKS_LIKE_SETUP_CODE
    pasted_wrongly = presented != presented.strip() or not presented.isprintable()
    if pasted_wrongly or "${" in presented or _REDACTION_MARK in presented:
        return SecretOutcome.MALFORMED
    return SecretOutcome.MISMATCH


def check_secret(presented: str | None, expected: str | None) -> SecretOutcome:
    """MATCH, MISMATCH, MISSING, MALFORMED, LOOKS_LIKE_SETUP_CODE or UNRESOLVABLE."""
    if not expected:
        return SecretOutcome.UNRESOLVABLE
    if not presented:
        return SecretOutcome.MISSING
    # Compared before it is looked at: a secret with an odd shape is still a secret.
    return SecretOutcome.MATCH if compare(presented, expected) else unmatched_outcome(presented)
