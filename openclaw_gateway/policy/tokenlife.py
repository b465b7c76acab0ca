"""How long an issued token lives, and what becomes of a refresh token that is presented.

Pure: Unix milliseconds in, verdicts out. Owns the two rules of checklist S147-S149 and C18: ``gateway.auth.expiresIn``
gives every token that the gateway issues a life, counted from when it was issued; a refresh token works once, at most
``gateway.auth.refresh.maxUses`` times in one family, and a second use of a spent one ends the family. It must not know
how tokens look or where they are kept.

Invariants: a token without a known end never outlives a rule that gives it one (the rule of today counts, not the rule
of the day it was issued); nothing but the newest refresh token of a family yields anything new; the same answer may be
given twice only within `GRACE_MS`, and only until what it gave was used.
"""

from __future__ import annotations

import enum
from typing import Final

import attrs

from openclaw_gateway.value import Value

__all__ = ["GRACE_MS", "REFRESH_LIVES", "ApiKeyOutcome", "FamilyState", "LifeRules", "RefreshVerdict", "decide_refresh"]

# An answer may be lost on the way: who asks again with the same refresh token gets the same answer for so long.
GRACE_MS: Final = 10_000
# A refresh token outlives the token it renews, or a client that was away for one life could renew nothing.
REFRESH_LIVES: Final = 7


@attrs.frozen(kw_only=True, eq=False, repr=False)
class LifeRules(Value):
    """``gateway.auth.expiresIn`` (milliseconds; None: until revoked) and ``gateway.auth.refresh``."""

    expires_in_ms: int | None = None
    refresh_enabled: bool = True
    max_uses: int = 1000

    @property
    def refreshes(self) -> bool:
        """True where refresh tokens are handed out and taken: without a life there is nothing to renew."""
        return self.refresh_enabled and self.expires_in_ms is not None

    def token_ends(self, issued_at_ms: int) -> int | None:
        """When a token that was issued then ends; None: never."""
        return None if self.expires_in_ms is None else issued_at_ms + self.expires_in_ms

    def refresh_ends(self, issued_at_ms: int) -> int | None:
        """When a refresh token that was issued then ends: `REFRESH_LIVES` lives later; None: never."""
        return None if self.expires_in_ms is None else issued_at_ms + REFRESH_LIVES * self.expires_in_ms

    def expired(self, issued_at_ms: int, now: int) -> bool:
        """True from the millisecond on at which a token issued then has lived its life."""
        ends = self.token_ends(issued_at_ms)
        return ends is not None and now >= ends

    def key_ends(self, created_at_ms: int, own_end_ms: int | None) -> int | None:
        """When an API key ends: at its own end, or after the life of every token where it has none of its own."""
        return own_end_ms if own_end_ms is not None else self.token_ends(created_at_ms)


class ApiKeyOutcome(enum.Enum):
    """What came of a presented text that begins like an API key."""

    NONE = "none"  # nothing of the kind was presented
    MATCH = "match"
    WRONG = "wrong"  # it has the shape of a key, but no key of this gateway is that
    MALFORMED = "malformed"  # cut off, or pasted with something in it
    REVOKED = "revoked"
    EXPIRED = "expired"
    UNREADABLE = "unreadable"  # the keys cannot be read: not the same as "wrong" (V60)


class RefreshVerdict(enum.Enum):
    """What a genuine refresh token of a known family comes to."""

    ROTATE = "rotate"  # a new device token and a new refresh token
    REPEAT = "repeat"  # the same answer once more: the first one may have been lost
    REUSED = "reused"  # it was spent before: end the family, kill its device token, close its sessions
    REVOKED = "revoked"  # the family, or the approval behind it, was ended
    EXPIRED = "expired"
    USED_UP = "used-up"  # maxUses reached: only a fresh authentication starts another family
    UNKNOWN = "unknown"  # newer than anything on record (a backup was put back)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class FamilyState(Value):
    """What is on record of one family. ``uses`` rotations so far; the newest refresh token carries that number."""

    uses: int
    issued_at_ms: int  # of the newest refresh token: the moment of the last rotation
    revoked: bool
    settled: bool  # something that the last rotation gave out was used since


def decide_refresh(family: FamilyState, presented_use: int, rules: LifeRules, now: int) -> RefreshVerdict:
    """Decide on a refresh token with the number ``presented_use``, whose genuineness the caller has checked.

    Reuse is decided before life and count: a thief who comes late is still a thief.
    """
    if family.revoked:
        return RefreshVerdict.REVOKED
    if presented_use > family.uses:
        return RefreshVerdict.UNKNOWN
    if presented_use < family.uses:
        last = presented_use == family.uses - 1
        fresh = 0 <= now - family.issued_at_ms < GRACE_MS
        return RefreshVerdict.REPEAT if last and fresh and not family.settled else RefreshVerdict.REUSED
    ends = rules.refresh_ends(family.issued_at_ms)
    if ends is not None and now >= ends:
        return RefreshVerdict.EXPIRED
    return RefreshVerdict.ROTATE if family.uses < rules.max_uses else RefreshVerdict.USED_UP
