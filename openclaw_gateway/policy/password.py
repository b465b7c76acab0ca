"""What a password must be, and when it is too old (C17). Hashing and comparing are elsewhere.

Pure. Invariants: every rule that fails is named, not the first; no text carries any of the password.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

__all__ = ["MAX_BCRYPT_BYTES", "PasswordRules", "bcrypt_hash_fault", "password_expired", "password_faults"]

MAX_BCRYPT_BYTES: Final = 72  # bcrypt reads no further: two longer passwords with the same start would be the same
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_MIN_COST: Final = 10
_MAX_COST: Final = 16


class PasswordRules(Protocol):
    """`config.schema.PasswordPolicy` is one; ``max_age`` is in seconds."""

    @property
    def min_length(self) -> int: ...
    @property
    def require_uppercase(self) -> bool: ...
    @property
    def require_lowercase(self) -> bool: ...
    @property
    def require_numbers(self) -> bool: ...
    @property
    def require_symbols(self) -> bool: ...
    @property
    def max_age(self) -> float | None: ...


def password_faults(password: str, rules: PasswordRules) -> tuple[str, ...]:
    """One text for each rule the password breaks; empty: good."""
    checks = (
        (len(password) < rules.min_length, f"has fewer than {rules.min_length} characters (minLength)"),
        (
            rules.require_uppercase and not any(char.isupper() for char in password),
            "has no upper-case letter (requireUppercase)",
        ),
        (
            rules.require_lowercase and not any(char.islower() for char in password),
            "has no lower-case letter (requireLowercase)",
        ),
        (rules.require_numbers and not any(char.isdigit() for char in password), "has no digit (requireNumbers)"),
        (
            rules.require_symbols and all(char.isalnum() or char.isspace() for char in password),
            "has no symbol (requireSymbols)",
        ),
        (len(password.encode("utf-8", "surrogatepass")) > MAX_BCRYPT_BYTES, f"is over {MAX_BCRYPT_BYTES} bytes"),
        (not password.isprintable(), "has control characters in it"),
    )
    return tuple(text for broken, text in checks if broken)


def bcrypt_hash_fault(text: str) -> str | None:
    """Why a text is not a bcrypt hash that can be used (``$2b$10$`` and 53 characters, cost 10 to 16).

    None: it is one.
    """
    found = _HASH.fullmatch(text)
    if found is None:
        return "is not a bcrypt hash ($2b$, a cost, 53 characters); an unescaped $ in a shell is the usual cause"
    cost = int(found[1])
    if not _MIN_COST <= cost <= _MAX_COST:
        return f"has cost {cost}; from {_MIN_COST} to {_MAX_COST} is safe and still answers in time"
    return None


def password_expired(rules: PasswordRules | None, changed_at: float | None, *, now: float) -> bool:
    """``changed_at`` and ``now`` in Unix seconds. Without a known change nothing is expired."""
    if rules is None or rules.max_age is None or changed_at is None:
        return False
    return now - changed_at > rules.max_age
