"""A short memory of what went on: the ring that `diagnostics.stability` answers from.

Owns the last `CAPACITY` happenings with a sequence number each. It must not know what they mean, and holds no secrets:
a payload is a handful of plain values. Invariant: bounded, whatever happens.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["StabilityLog"]

CAPACITY: Final = 512


class StabilityLog:
    def __init__(self, capacity: int = CAPACITY) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=capacity)
        self._seq = 0
        self.capacity = capacity

    def note(self, type_: str, data: Mapping[str, Any] | None = None) -> None:
        self._seq += 1
        self._events.append({"seq": self._seq, "ts": time.time_ns() // 1_000_000, "type": type_, **(data or {})})

    def view(self, *, limit: int = 50, type_: str | None = None) -> dict[str, Any]:
        """The newest ``limit`` events (of one type), oldest first, with counts by type over all that is remembered."""
        chosen = [event for event in self._events if type_ in {None, event["type"]}]
        shown = chosen[-limit:] if limit > 0 else []
        return {
            "generatedAt": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "capacity": self.capacity,
            "count": len(shown),
            "dropped": self._seq - len(self._events),
            "firstSeq": shown[0]["seq"] if shown else 0,
            "lastSeq": shown[-1]["seq"] if shown else 0,
            "events": shown,
            "summary": {"byType": dict(Counter(event["type"] for event in chosen))},
        }
