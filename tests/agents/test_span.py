"""Days that somebody asks for."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.agents.span import read_span

NOW = int(datetime(2026, 3, 29, 22, 30, tzinfo=UTC).timestamp() * 1000)  # the night of summer time in Vienna
HOUR = 3_600_000


def at(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type,misc]


@pytest.mark.parametrize(
    ("asked", "start", "end", "days"),
    [
        ({}, at(2026, 2, 28), at(2026, 3, 30), 30),
        ({"range_": "7d"}, at(2026, 3, 23), at(2026, 3, 30), 7),
        ({"days": 1}, at(2026, 3, 29), at(2026, 3, 30), 1),
        ({"days": "2"}, at(2026, 3, 28), at(2026, 3, 30), 2),
        ({"days": "many"}, at(2026, 2, 28), at(2026, 3, 30), 30),
        ({"range_": "all"}, 0, at(2026, 3, 30), 20_542),
        ({"start_date": "2026-03-01", "end_date": "2026-03-01"}, at(2026, 3, 1), at(2026, 3, 2), 1),
        ({"mode": "specific", "time_zone": "Europe/Vienna", "days": 1}, at(2026, 3, 29, 22), at(2026, 3, 30, 22), 1),
        (
            {"mode": "specific", "time_zone": "Europe/Vienna", "start_date": "2026-03-29", "end_date": "2026-03-29"},
            at(2026, 3, 28, 23), at(2026, 3, 29, 22), 1,
        ),
        ({"mode": "specific", "utc_offset": "UTC+5:45", "days": 1},
         at(2026, 3, 29, 18, 15), at(2026, 3, 30, 18, 15), 1),
        ({"mode": "specific", "time_zone": "No/Where", "utc_offset": "UTC-3", "days": 1},
         at(2026, 3, 29, 3), at(2026, 3, 30, 3), 1),
    ],
)  # fmt: skip
def test_days_begin_and_end_where_the_caller_lives(asked: dict[str, Any], start: int, end: int, days: int) -> None:
    span = read_span(NOW, **asked)
    assert (span.start_ms, span.end_ms + 1, span.days) == (start, end, days)


def test_a_moment_belongs_to_the_callers_day() -> None:
    span = read_span(NOW, mode="specific", time_zone="Europe/Vienna")
    assert (span.day(NOW - HOUR), span.day(NOW)) == ("2026-03-29", "2026-03-30")
    assert read_span(NOW).day(NOW) == "2026-03-29"


def test_the_hosts_own_days() -> None:
    span = read_span(NOW, mode="gateway", days=1)
    assert span.zone is None
    assert span.day(span.start_ms) == span.day(span.end_ms) == datetime.fromtimestamp(NOW / 1000).date().isoformat()  # noqa: DTZ006 - that is the question


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"start_date": "2026-03-01"}, "together"),
        ({"start_date": "2026-02-30", "end_date": "2026-03-01"}, "startDate is a calendar date"),
        ({"start_date": "2026-03-01", "end_date": "20260301"}, "endDate is a calendar date"),
        ({"start_date": "2026-03-02", "end_date": "2026-03-01"}, "must not be after"),
        ({"start_date": "2026-03-02", "end_date": "9999-12-31"}, "too far away"),
        ({"mode": "specific", "time_zone": "../../etc/passwd"}, "IANA"),
        ({"mode": "specific", "time_zone": "Europe"}, "IANA"),
        ({"mode": "specific", "time_zone": "x" * 100_000}, "IANA"),
        ({"mode": "specific", "utc_offset": "UTC+15"}, "UTC+14:00"),
        ({"range_": "2w"}, "7d, 30d"),
    ],
)
def test_what_is_no_span_is_said(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        read_span(NOW, **asked)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "mode": st.sampled_from(["utc", "gateway", "specific"]),
            "time_zone": st.text(max_size=8) | st.just("Asia/Kolkata"),
            "utc_offset": st.text(max_size=8) | st.just("UTC-12"),
            "start_date": st.text(max_size=10) | st.dates().map(str),
            "end_date": st.text(max_size=10) | st.dates().map(str),
            "range_": st.sampled_from(["7d", "all", "x"]),
            "days": st.integers() | st.floats() | st.text(max_size=4) | st.none() | st.lists(st.integers()),
        },
    )
)
def test_whatever_is_asked_is_a_span_or_a_value_error(asked: dict[str, Any]) -> None:
    try:
        span = read_span(NOW, **asked)
    except ValueError:
        return
    assert span.start_ms <= span.end_ms
    assert span.day(max(0, span.start_ms))
