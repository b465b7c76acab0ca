"""Which days somebody asks for: a range of calendar days in one time zone, as the Control UI and `usage-cost` say it.

Owns the reading of OpenClaw's parameters (mode, timeZone, utcOffset, startDate and endDate, range, days) and the day
that a moment belongs to. It must not know what is counted. Loaded when somebody asks. Times are Unix milliseconds; the
zones are those of the host (`zoneinfo`).

Invariants: a span is whole days; nothing here takes longer for a longer span.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs

from openclaw_gateway.value import Value

__all__ = ["Span", "read_span"]

RANGES: Final = {"7d": 7, "30d": 30, "90d": 90, "1y": 365}
DEFAULT_DAYS: Final = 30
MAX_DAYS: Final = 36_600
MAX_ZONE: Final = 64
_OFFSET: Final = re.compile(r"UTC([+-])(\d{1,2})(?::([0-5]\d))?", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@attrs.frozen(eq=False, repr=False)
class Span(Value):
    """``start_ms`` to ``end_ms``, both included; ``zone`` None: the host's own."""

    start_ms: int
    end_ms: int
    zone: tzinfo | None

    def day(self, at_ms: int) -> str:
        """YYYY-MM-DD"""
        return datetime.fromtimestamp(at_ms / 1000, self.zone).date().isoformat()

    @property
    def days(self) -> int:
        return round((self.end_ms + 1 - self.start_ms) / 86_400_000)


def read_span(
    now_ms: int,
    *,
    mode: str | None = None,
    time_zone: str | None = None,
    utc_offset: str | None = None,
    start_date: str | None = None,
    end_date: str | None = None,
    range_: str | None = None,
    days: Any = None,
) -> Span:
    """The days that are meant; without any word the last 30 in UTC. Raises `ValueError`, in words for the caller."""
    zone = _zone(mode, time_zone, utc_offset)
    if (start_date is None) != (end_date is None):
        raise ValueError("startDate and endDate must be provided together")
    if start_date is not None and end_date is not None:
        first, last = _date("startDate", start_date), _date("endDate", end_date)
        if first > last:
            raise ValueError("startDate must not be after endDate")
        return _span(first, last, zone)
    today = datetime.fromtimestamp(now_ms / 1000, zone).date()
    if range_ == "all":
        return attrs.evolve(_span(today, today, zone), start_ms=0)
    if range_ is not None and range_ not in RANGES:
        raise ValueError("range is 7d, 30d, 90d, 1y or all")
    count = RANGES[range_] if range_ is not None else _days(days)
    return _span(max(date.min, today - timedelta(days=count - 1)), today, zone)


def _span(first: date, last: date, zone: tzinfo | None) -> Span:
    try:
        end = _start(last + timedelta(days=1), zone) - 1
        return Span(_start(first, zone), end, zone)
    except (OverflowError, ValueError, OSError) as exc:
        raise ValueError("these days are too far away") from exc


def _start(day: date, zone: tzinfo | None) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)


def _zone(mode: str | None, time_zone: str | None, utc_offset: str | None) -> tzinfo | None:
    if mode == "gateway":
        return None
    if mode != "specific":
        return UTC
    offset = _offset(utc_offset) if utc_offset else None
    if time_zone is None:
        return offset or UTC
    try:
        if len(time_zone) <= MAX_ZONE:
            return ZoneInfo(time_zone)
    except (KeyError, ValueError, OSError):  # unknown, no name at all, or a folder of the zone files
        pass
    if offset is not None:
        return offset
    raise ValueError("timeZone is the name of an IANA time zone, such as Europe/Vienna")


def _offset(text: str) -> tzinfo:
    found = _OFFSET.fullmatch(text.strip())
    minutes = int(found[2]) * 60 + int(found[3] or 0) if found is not None else 10_000
    minutes = -minutes if found is not None and found[1] == "-" else minutes
    if not -720 <= minutes <= 840:
        raise ValueError("utcOffset is UTC-12:00 to UTC+14:00")
    return timezone(timedelta(minutes=minutes))


def _date(name: str, text: str) -> date:
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError(f"{name} is a calendar date, YYYY-MM-DD")


def _days(given: Any) -> int:
    try:
        return max(1, min(int(float(given)), MAX_DAYS)) if given is not None else DEFAULT_DAYS
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_DAYS
