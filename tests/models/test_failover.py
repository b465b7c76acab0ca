"""Rests, other tries, other models: pure."""

from __future__ import annotations

import pytest

from openclaw_gateway.agents.records import AgentFailed
from openclaw_gateway.models.catalog import ModelRef
from openclaw_gateway.models.failover import MAX_RESTS, MAX_TRIES, MAX_WAIT_MS, Rests, in_order, moves_on, wait_ms
from openclaw_gateway.models.provider import REASONS, ModelFailed, Reason

A, B, C = (ModelRef(name, "m") for name in "abc")


def failure(reason: Reason, after_ms: int | None = None, *, shown: bool = False) -> ModelFailed:
    return ModelFailed("told", after_ms=after_ms, reason=reason, shown=shown)


def test_a_service_that_failed_rests_longer_each_time_and_is_forgiven() -> None:
    rests = Rests()
    ends = []
    now = 0
    for _ in range(6):
        rests.failed("a", "overloaded", now)
        rest = rests.get("a", now)
        assert rest is not None
        ends.append(rest.until_ms - now)
        now = rest.until_ms
        assert rests.get("a", now) is None
    assert ends == [30_000, 60_000, 300_000, 900_000, 900_000, 900_000]
    rests.failed("a", "overloaded", now + 2 * 86_400_000)
    later = rests.get("a", now + 2 * 86_400_000)
    assert later is not None
    assert later.failures == 1
    rests.answered("a")
    assert len(rests) == 0


def test_a_wait_that_was_asked_for_is_kept() -> None:
    rests = Rests()
    rests.failed("a", "rate_limit", 0, 7_000)
    rests.failed("b", "server", 0)
    assert in_order([A, B, C], rests, 1) == [C]
    assert in_order([A, B], rests, 1) == [B], "the one that rests of our own accord is tried rather than nobody"
    assert in_order([A], rests, 6_999) == []
    assert in_order([A], rests, 7_000) == [A]


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_only_what_says_something_of_the_service_makes_a_rest(reason: Reason) -> None:
    rests = Rests()
    rests.failed("a", reason, 0)
    assert (len(rests) == 1) == (
        reason in {"auth", "billing", "rate_limit", "overloaded", "server", "unreachable", "timeout"}
    )


def test_cap_rests() -> None:
    rests = Rests()
    for number in range(MAX_RESTS + 50):
        rests.failed(f"s{number}", "server", 0)
    assert len(rests) == MAX_RESTS
    assert rests.get(f"s{MAX_RESTS + 49}", 1) is not None


def test_tries_are_bounded_in_number_and_time() -> None:
    waits = [wait_ms(failure("server"), attempt, 0, 0.0) for attempt in range(1, 6)]
    assert waits == [400, 800, None, None, None]
    assert len([wait for wait in waits if wait is not None]) == MAX_TRIES - 1
    assert wait_ms(failure("rate_limit", 5_000), 1, 0, 0.0) == 5_000
    assert wait_ms(failure("rate_limit", 5_000), 2, 5_000, 0.0) is None
    assert wait_ms(failure("rate_limit", MAX_WAIT_MS + 1), 1, 0, 0.0) is None
    assert wait_ms(failure("rate_limit"), 1, 0, 0.0) is None
    spread = {wait_ms(failure("server"), 1, 0, chance / 10) for chance in range(11)}
    assert (min(spread, key=lambda one: one or 0), max(spread, key=lambda one: one or 0)) == (400, 500)


def test_what_was_shown_is_never_said_again() -> None:
    for reason in REASONS:
        assert wait_ms(failure(reason, shown=True), 1, 0, 0.0) is None
        assert not moves_on(failure(reason, shown=True))


@pytest.mark.parametrize(
    ("reason", "again", "elsewhere"),
    [
        ("auth", False, True),
        ("refusal", False, False),
        ("context_length", False, False),
        ("bad_request", False, False),
        ("not_found", False, True),
        ("malformed", True, True),
        ("timeout", False, True),
    ],
)
def test_the_reason_decides(reason: Reason, again: bool, elsewhere: bool) -> None:
    assert (wait_ms(failure(reason), 1, 0, 0.0) is not None) == again
    assert moves_on(failure(reason)) == elsewhere


def test_a_failure_is_an_agents_failure() -> None:
    assert isinstance(failure("server"), AgentFailed)
    assert str(failure("server")) == "told"
