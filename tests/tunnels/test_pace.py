"""When a tunnel is opened again (network-facts section 2)."""

from __future__ import annotations

import pytest

from openclaw_gateway.tunnels.pace import BLOCKED_SECONDS, LONGEST_SECONDS, RECENT_SECONDS, Pace

ALMOST = 0.999


def test_network_failures_double_up_to_a_minute() -> None:
    pace = Pace()
    waits = [pace.after("refused", up_for=None, chance=ALMOST) for _ in range(10)]
    assert [round(wait) for wait in waits] == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert max(waits) <= LONGEST_SECONDS


def test_jitter_spreads_the_upper_half() -> None:
    assert Pace().after("refused", up_for=None, chance=0.0) == pytest.approx(0.5)
    assert Pace().after("refused", up_for=None, chance=ALMOST) == pytest.approx(1.0, abs=0.01)


def test_what_a_person_must_mend_does_not_loop_fast() -> None:
    pace = Pace()
    waits = [pace.after("auth-denied", up_for=None, chance=0.0) for _ in range(6)]
    assert waits[0] >= BLOCKED_SECONDS / 2
    assert waits == sorted(waits)
    assert waits[-1] <= 600


def test_net9_one_that_was_up_comes_back_fast_each_time() -> None:
    pace = Pace()
    for _ in range(50):
        assert pace.after("ended", up_for=0.3, chance=ALMOST) <= RECENT_SECONDS


def test_a_healthy_minute_forgets_everything() -> None:
    pace = Pace()
    for _ in range(8):
        pace.after("refused", up_for=None, chance=0.0)
    assert pace.after("connection-lost", up_for=61.0, chance=ALMOST) == pytest.approx(1.0, abs=0.01)
    assert pace.failures == 1
