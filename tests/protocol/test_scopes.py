"""Scopes: what satisfies what, and that nothing unknown is ever granted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_OPERATOR_SCOPES, READ, WRITE, grantable, satisfies

ANY_SCOPE = st.sampled_from(sorted(KNOWN_OPERATOR_SCOPES)) | st.text(max_size=20)


@given(ANY_SCOPE)
def test_v22_the_empty_set_satisfies_nothing(needed: str) -> None:
    assert not satisfies(frozenset(), needed)


@given(st.frozensets(ANY_SCOPE), st.text())
def test_v22_what_is_unknown_is_satisfied_by_nobody(granted: frozenset[str], needed: str) -> None:
    if needed not in KNOWN_OPERATOR_SCOPES:
        assert not satisfies(granted | {needed}, needed)


@given(st.lists(ANY_SCOPE))
def test_v10_grantable_is_the_known_part_in_the_order_asked(requested: list[str]) -> None:
    granted = grantable(requested)
    assert set(granted) == set(requested) & KNOWN_OPERATOR_SCOPES
    assert [requested.index(scope) for scope in granted] == sorted(requested.index(scope) for scope in granted)


def test_admin_and_write_include_read() -> None:
    assert all(satisfies(frozenset({ADMIN}), scope) for scope in KNOWN_OPERATOR_SCOPES)
    assert satisfies(frozenset({WRITE}), READ)
    assert not satisfies(frozenset({READ}), WRITE)
