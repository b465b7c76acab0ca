"""Lengths of time and moments, in seconds.

Owns the way between ``"24h"`` and seconds in both directions. It must not know which settings are times.
Invariant: what `duration_text` writes, `duration` reads back as the same time.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

from openclaw_gateway.config.values import plain
from openclaw_gateway.config.values.plain import BadValueError

__all__ = ["duration", "duration_text", "instant"]

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)")
_MAX_SECONDS: Final = 100 * 365 * 86_400.0


def duration(value: Any, path: str = "") -> float:
    """Seconds from ``"24h"``, ``"90d"``, ``"1h30m"`` or a number of seconds."""
    del path
    seconds = 0.0
    if isinstance(value, str):
        compact = value.strip().lower()
        if compact and not _DURATION.sub("", compact).strip():
            seconds = sum(float(amount) * _UNITS[unit] for amount, unit in _DURATION.findall(compact))
    elif not isinstance(value, bool) and isinstance(value, int | float):
        seconds = float(value)
    if not 0 < seconds <= _MAX_SECONDS:
        raise BadValueError('must be a time such as "15m", "24h" or "90d", or a positive number of seconds')
    return seconds


def duration_text(seconds: float) -> str | float:
    """``86400.0`` → ``"24h"``: what `duration` reads back as the same time. Days from two on, hours below."""
    for unit, least in (("d", 2 * 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0)):
        if seconds >= least and seconds % _UNITS[unit] == 0:
            return f"{seconds / _UNITS[unit]:.0f}{unit}"
    text = f"{seconds:f}".rstrip("0") + "s"
    return text if _DURATION.fullmatch(text) and duration(text) == seconds else seconds


def instant(value: Any, path: str) -> float:
    del path
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            raise BadValueError('must be a date such as "2026-01-31" or Unix seconds') from None
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    seconds = plain.number(value)
    if not 0 <= seconds < 1e11:
        raise BadValueError("must be Unix seconds (not milliseconds)")
    return seconds
