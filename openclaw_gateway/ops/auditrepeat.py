"""Keeping a flood from washing the audit trail away: rows that repeat are counted instead of written.

Owns the decision "write this one, or count it" for connects, refusals and disconnects. Pure: ``now`` comes in. It must
not know files. The trail is bounded (six generations), so whoever could make it grow at will could push the rows about
authority out of it; LOG-1 asks the same of the log.

Invariants: at most `MAX_KEYS` are watched; of one key at most `BURST` rows are written within `WINDOW` seconds, and the
rest is one row with ``repeated``; of refusals at most `REFUSALS` rows are written within a window whatever their keys,
the rest is one row. Nothing is lost from the counts.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import attrs

from openclaw_gateway.ops.auditrows import Action
from openclaw_gateway.value import Value

__all__ = ["Entry", "Repeats"]

WINDOW: Final = 60.0  # seconds
BURST: Final = 10
REFUSALS: Final = 120
MAX_KEYS: Final = 512

_Key = tuple[object, ...]


@attrs.frozen(eq=False, repr=False)
class Entry(Value):
    """One thing to record: when (Unix seconds), what, and its fields, not cleaned yet."""

    at: float
    action: Action
    fields: dict[str, object]


@attrs.define
class _Watched:
    until: float
    written: int = 0
    counted: int = 0
    last: Entry | None = None


class Repeats:
    """Synchronous; one per trail."""

    def __init__(self) -> None:
        self._watched: OrderedDict[_Key, _Watched] = OrderedDict()  # oldest window first
        self._refusals = _Watched(0.0)

    def __len__(self) -> int:
        return len(self._watched)

    def pass_on(self, entry: Entry, now: float) -> list[Entry]:
        """What is to be written now: the entry, or nothing, and the counts that became due. ``now``: seconds."""
        due = self.due(now) if self._is_due(now) else []
        fields = entry.fields
        refused = fields.get("outcome") == "refused"
        key = (
            entry.action, fields.get("outcome"), fields.get("address"), fields.get("actor"), fields.get("client"),
            fields.get("role"), fields.get("code"),
        )  # fmt: skip
        watched = self._watched.get(key)
        if watched is None:
            if refused and self._over_budget(entry, now):
                return due
            if len(self._watched) >= MAX_KEYS:
                _, oldest = self._watched.popitem(last=False)
                due += _count(oldest)
            watched = self._watched[key] = _Watched(now + WINDOW)
        elif watched.written >= BURST or (refused and self._over_budget(None, now)):
            watched.counted += 1
            watched.last = entry
            return due
        watched.written += 1
        if refused:
            self._refusals.written += 1
        due.append(entry)
        return due

    def due(self, now: float) -> list[Entry]:
        """The counts whose window is over; ``math.inf`` gives all."""
        out: list[Entry] = []
        while self._watched:
            key, watched = next(iter(self._watched.items()))
            if watched.until > now:
                break
            del self._watched[key]
            out += _count(watched)
        if self._refusals.until <= now and self._refusals.counted:
            out += _count(self._refusals)
            self._refusals = _Watched(0.0)
        return out

    def _is_due(self, now: float) -> bool:
        if self._refusals.counted and self._refusals.until <= now:
            return True
        return bool(self._watched) and next(iter(self._watched.values())).until <= now

    def _over_budget(self, entry: Entry | None, now: float) -> bool:
        budget = self._refusals
        if budget.until <= now and not budget.counted:
            budget = self._refusals = _Watched(now + WINDOW)
        if budget.written < REFUSALS:
            return False
        if entry is not None:
            budget.counted += 1
            fields: dict[str, object] = {"outcome": "refused", "reason": "refusals from further addresses"}
            budget.last = Entry(entry.at, entry.action, fields)
        return True


def _count(watched: _Watched) -> list[Entry]:
    if not watched.counted or watched.last is None:
        return []
    last = watched.last
    return [Entry(last.at, last.action, {**last.fields, "repeated": watched.counted})]
