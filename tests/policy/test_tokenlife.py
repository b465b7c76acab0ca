"""The life of issued tokens and what becomes of a refresh token: checklist S147-S149, C18."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.tokenlife import (
    GRACE_MS,
    REFRESH_LIVES,
    FamilyState,
    LifeRules,
    RefreshVerdict,
    decide_refresh,
)

DAY = 86_400_000
RULES = LifeRules(expires_in_ms=DAY, max_uses=3)
V = RefreshVerdict


def family(uses: int = 1, *, issued_at_ms: int = 1000, revoked: bool = False, settled: bool = False) -> FamilyState:
    return FamilyState(uses=uses, issued_at_ms=issued_at_ms, revoked=revoked, settled=settled)


def test_s147_without_expires_in_tokens_live_until_revoked() -> None:
    rules = LifeRules()
    assert not rules.expired(0, 10**15)
    assert rules.token_ends(5) is None
    assert rules.key_ends(5, None) is None
    assert rules.key_ends(5, 7) == 7
    assert not rules.refreshes  # there is nothing to renew


def test_s147_a_token_ends_at_the_millisecond_its_life_is_over() -> None:
    assert not RULES.expired(1000, 1000 + DAY - 1)
    assert RULES.expired(1000, 1000 + DAY)
    assert RULES.key_ends(1000, None) == 1000 + DAY
    assert RULES.key_ends(1000, 1000 + 9 * DAY) == 1000 + 9 * DAY  # a key's own end counts, also a later one


def test_s148_refresh_is_on_only_where_enabled_and_tokens_end() -> None:
    assert RULES.refreshes
    assert not LifeRules(expires_in_ms=DAY, refresh_enabled=False).refreshes


def test_s149_a_family_is_used_up_after_max_uses() -> None:
    assert decide_refresh(family(2), 2, RULES, 1000) is V.ROTATE
    assert decide_refresh(family(3), 3, RULES, 1000) is V.USED_UP


def test_c18_the_answer_is_repeated_within_the_grace_and_only_while_nothing_of_it_was_used() -> None:
    assert decide_refresh(family(), 0, RULES, 1000) is V.REPEAT
    assert decide_refresh(family(), 0, RULES, 1000 + GRACE_MS - 1) is V.REPEAT
    assert decide_refresh(family(), 0, RULES, 1000 + GRACE_MS) is V.REUSED
    assert decide_refresh(family(), 0, RULES, 999) is V.REUSED  # a clock that was set back opens no second window
    assert decide_refresh(family(settled=True), 0, RULES, 1000) is V.REUSED
    assert decide_refresh(family(2), 0, RULES, 1000) is V.REUSED  # not even the last but one


def test_c18_expiry_revocation_and_a_restored_backup_have_their_own_words() -> None:
    ends = 1000 + REFRESH_LIVES * DAY
    assert decide_refresh(family(), 1, RULES, ends - 1) is V.ROTATE
    assert decide_refresh(family(), 1, RULES, ends) is V.EXPIRED
    assert decide_refresh(family(), 0, RULES, ends) is V.REUSED  # a thief who comes late is still a thief
    assert decide_refresh(family(revoked=True), 1, RULES, 1000) is V.REVOKED
    assert decide_refresh(family(), 2, RULES, 1000) is V.UNKNOWN


@given(
    uses=st.integers(0, 6),
    presented=st.integers(0, 7),
    age=st.integers(-5, 8 * DAY),
    revoked=st.booleans(),
    settled=st.booleans(),
)
def test_c18_only_the_newest_token_of_a_live_family_yields_anything_new(
    uses: int, presented: int, age: int, revoked: bool, settled: bool
) -> None:
    verdict = decide_refresh(family(uses, revoked=revoked, settled=settled), presented, RULES, 1000 + age)
    if verdict is V.ROTATE:
        assert presented == uses < RULES.max_uses
        assert not revoked
    if verdict is V.REPEAT:
        assert presented == uses - 1
        assert not settled
        assert not revoked
        assert 0 <= age < GRACE_MS
    if revoked:
        assert verdict is V.REVOKED
    elif presented < uses:
        assert verdict in {V.REPEAT, V.REUSED}
