"""Password rules: every broken rule is named; hashes and ages (C17)."""

from __future__ import annotations

import pytest

from openclaw_gateway.config.schema import PasswordPolicy
from openclaw_gateway.policy.password import PasswordRules, bcrypt_hash_fault, password_expired, password_faults

STRICT: PasswordRules = PasswordPolicy(
    min_length=12,
    require_uppercase=True,
    require_lowercase=True,
    require_numbers=True,
    require_symbols=True,
    max_age=90 * 86400.0,
)


@pytest.mark.parametrize(
    ("password", "rules"),
    [
        ("Correct-Horse-7", []),
        ("", ["minLength", "requireUppercase", "requireLowercase", "requireNumbers", "requireSymbols"]),
        ("short", ["minLength", "requireUppercase", "requireNumbers", "requireSymbols"]),
        ("correct-horse-7", ["requireUppercase"]),
        ("CORRECT-HORSE-7", ["requireLowercase"]),
        ("Correct-Horse-x", ["requireNumbers"]),
        ("CorrectHorse77", ["requireSymbols"]),
        ("Correct Horse 77", ["requireSymbols"]),
        ("Übergrößen-Träger7", []),
        ("Correct-Horse-7\n", ["control"]),
        ("Correct-Horse-7" + "ü" * 30, ["72 bytes"]),
    ],
)
def test_c17_every_rule_that_fails_is_listed(password: str, rules: list[str]) -> None:
    faults = password_faults(password, STRICT)
    assert len(faults) == len(rules)
    assert all(rule in fault for rule, fault in zip(rules, faults, strict=True))
    assert not password or all(password not in fault for fault in faults)


def test_c17_rules_that_are_off_do_not_count() -> None:
    assert password_faults("aaaaaaaaaaaa", PasswordPolicy()) == ()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("$2b$10$" + "a" * 53, None),
        ("$2a$12$" + "./" * 26 + "A", None),
        ("$2b$10$" + "a" * 52, "not a bcrypt hash"),
        ("$2x$10$" + "a" * 53, "not a bcrypt hash"),
        ("plaintext", "not a bcrypt hash"),
        ("", "not a bcrypt hash"),
        ("$2b$04$" + "a" * 53, "cost 4"),
        ("$2b$31$" + "a" * 53, "cost 31"),
        ("$2b$10$" + "a" * 53 + "\n", "not a bcrypt hash"),
    ],
)
def test_s151_bcrypt_hashes_are_checked_before_they_are_used(text: str, part: str | None) -> None:
    fault = bcrypt_hash_fault(text)
    assert (fault is None) is (part is None)
    assert part is None or (fault is not None and part in fault)


def test_s157_a_password_expires_after_max_age() -> None:
    day = 86400.0
    assert not password_expired(STRICT, 0.0, now=90 * day)
    assert password_expired(STRICT, 0.0, now=90 * day + 1)
    assert not password_expired(STRICT, None, now=1e12)
    assert not password_expired(None, 0.0, now=1e12)
    assert not password_expired(PasswordPolicy(), 0.0, now=1e12)
