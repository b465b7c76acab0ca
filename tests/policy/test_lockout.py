"""Failure delays and lockout (AUTH-6, V2, V14)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.policy.lockout import (
    CredentialClass,
    FailureKey,
    FailureLedger,
    LockoutRules,
    failure_key,
)
from tests.policy.builders import LOCAL, REMOTE, peer_from

SECRET = CredentialClass.SHARED_SECRET
KEY = failure_key(REMOTE, "operator", SECRET, browser=False)


def fail(ledger: FailureLedger, key: FailureKey, times: int, *, now: float = 0.0) -> list[float]:
    return [ledger.failed(key, now=now).delay for _ in range(times)]


def test_delays_grow_to_five_seconds_and_a_good_attempt_resets_them() -> None:
    ledger = FailureLedger()
    assert fail(ledger, KEY, 8) == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    ledger.succeeded(KEY)
    assert len(ledger) == 0
    assert fail(ledger, KEY, 1) == [0.25]


def test_auth6_ten_failures_lock_for_five_minutes() -> None:
    ledger = FailureLedger()
    fail(ledger, KEY, 9)
    assert ledger.locked_for(KEY, now=0.0) == 0.0
    assert ledger.failed(KEY, now=10.0).locked_for == 300.0
    assert ledger.locked_for(KEY, now=10.0) == 300.0
    assert ledger.locked_for(KEY, now=310.0) == 0.0


def test_auth6_a_retry_while_locked_neither_extends_nor_counts() -> None:
    ledger = FailureLedger()
    fail(ledger, KEY, 10)
    for second in range(1, 300):
        outcome = ledger.failed(KEY, now=float(second))
        assert (outcome.locked_for, outcome.failures) == (300.0 - second, 10)
    assert ledger.locked_for(KEY, now=300.0) == 0.0
    assert ledger.failed(KEY, now=300.0).locked_for == 0.0


def test_auth6_failures_outside_the_window_do_not_lock() -> None:
    ledger = FailureLedger()
    for number in range(40):
        assert ledger.failed(KEY, now=number * 7.0).locked_for == 0.0


def test_auth6_ten_bad_tries_from_an_address_do_not_block_a_paired_device_from_it() -> None:
    ledger = FailureLedger()
    fail(ledger, KEY, 10)
    device = failure_key(REMOTE, "operator", SECRET, browser=False, proven_device="7b")
    token = failure_key(REMOTE, "operator", CredentialClass.DEVICE_TOKEN, browser=False)
    node = failure_key(REMOTE, "node", SECRET, browser=False)
    other = failure_key(peer_from("198.51.100.1"), "operator", SECRET, browser=False)
    assert ledger.locked_for(KEY, now=0.0) > 0
    assert [ledger.locked_for(key, now=0.0) for key in (device, token, node, other)] == [0.0] * 4


def test_auth6_success_of_one_class_does_not_forget_another() -> None:
    ledger = FailureLedger()
    fail(ledger, KEY, 9)
    ledger.succeeded(failure_key(REMOTE, "operator", CredentialClass.DEVICE_TOKEN, browser=False))
    assert ledger.failed(KEY, now=0.0).locked_for == 300.0


@pytest.mark.parametrize("credential", [CredentialClass.DEVICE_TOKEN, CredentialClass.SETUP_CODE])
def test_auth6_only_shared_secrets_lock(credential: CredentialClass) -> None:
    ledger = FailureLedger()
    key = failure_key(REMOTE, "operator", credential, browser=False)
    assert fail(ledger, key, 50)[-1] == 5.0
    assert ledger.locked_for(key, now=0.0) == 0.0


def test_direct_loopback_is_delayed_but_not_locked_out() -> None:
    ledger = FailureLedger()
    key = failure_key(LOCAL, "operator", SECRET, browser=False)
    assert fail(ledger, key, 14) == [0.25, 0.5, 1.0, 2.0, 4.0] + [5.0] * 9
    assert ledger.locked_for(key, now=0.0) == 0.0


def test_v2_a_browser_on_loopback_is_locked_out_and_the_person_beside_it_is_not() -> None:
    ledger = FailureLedger()
    page = failure_key(LOCAL, "operator", SECRET, browser=True)
    fail(ledger, page, 10)
    assert ledger.locked_for(page, now=0.0) == 300.0
    assert ledger.locked_for(failure_key(LOCAL, "operator", SECRET, browser=False), now=0.0) == 0.0


def test_v14_neither_an_origin_nor_a_header_nor_a_spelling_opens_a_second_account() -> None:
    spellings = [
        failure_key(REMOTE, "operator", SECRET, browser=True),
        failure_key(peer_from("::ffff:203.0.113.9"), "operator", SECRET, browser=False),
        failure_key(peer_from("203.0.113.9", x_forwarded_for="1.1.1.1"), "operator", SECRET, browser=False),
        failure_key(peer_from("203.0.113.9", via="1.1 x"), "operator", SECRET, browser=True),
    ]
    assert set(spellings) == {KEY}
    v6 = [failure_key(peer_from(f"2001:db8::{tail:x}"), "operator", SECRET, browser=False) for tail in range(1, 9)]
    assert len(set(v6)) == 1


def test_v35_who_comes_through_a_local_proxy_is_locked_out_apart_from_the_host_itself() -> None:
    ledger = FailureLedger()
    proxied = failure_key(peer_from(x_forwarded_for="127.0.0.1"), "operator", SECRET, browser=False)
    fail(ledger, proxied, 10)
    assert ledger.locked_for(proxied, now=0.0) == 300.0
    assert ledger.locked_for(failure_key(LOCAL, "operator", SECRET, browser=False), now=0.0) == 0.0


def test_the_table_is_capped_and_a_flood_does_not_wash_a_lock_out() -> None:
    ledger = FailureLedger(capacity=100)
    fail(ledger, KEY, 10)
    for number in range(10_000):
        ledger.failed(FailureKey(str(number), "operator", SECRET, lockable=True), now=1.0)
        assert len(ledger) <= 100
    assert ledger.locked_for(KEY, now=1.0) == 299.0


def test_the_table_is_capped_even_when_every_row_is_locked() -> None:
    ledger = FailureLedger(LockoutRules(attempts=1), capacity=10)
    for number in range(50):
        ledger.failed(FailureKey(str(number), "operator", SECRET, lockable=True), now=1.0)
        assert len(ledger) <= 10


def test_a_row_long_quiet_starts_anew() -> None:
    ledger = FailureLedger()
    fail(ledger, KEY, 5)
    assert ledger.failed(KEY, now=301.0).delay == 0.25


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 120)), max_size=60))
def test_v14_no_history_locks_for_longer_than_the_rule(steps: list[tuple[int, float]]) -> None:
    ledger = FailureLedger(capacity=3)
    now = 0.0
    for who, pause in steps:
        now += pause
        key = FailureKey(str(who), "operator", SECRET, lockable=True)
        before = ledger.locked_for(key, now=now)
        outcome = ledger.failed(key, now=now)
        assert len(ledger) <= 3
        assert 0.25 <= outcome.delay <= 5.0
        assert outcome.locked_for <= (before or 300.0)
