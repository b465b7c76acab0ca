"""Presence: who is here, as the official clients show it (spec wire.md section 11).

Owns the list of entries, its version and the encoded form that `system-presence` answers with. It must not know
connections: a session tells it that a peer came or went. Nodes and user interfaces make an entry; command line and
backend connections do not.

Invariants: the gateway's own entry is always first; at most `MAX_ENTRIES`; the version grows with every change, so that
clients can tell an old snapshot from a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

__all__ = ["Presence"]

MAX_ENTRIES: Final = 512


class Presence:
    def __init__(self, own: dict[str, Any], *, now_ms: Callable[[], int], on_change: Callable[[], None]) -> None:
        self._now_ms = now_ms
        self._on_change = on_change
        self._own = {**own, "mode": "gateway", "reason": "self", "ts": now_ms()}
        self._entries: dict[str, dict[str, Any]] = {}
        self._encoded: msgspec.Raw | None = None
        self.version = 1

    def entries(self) -> list[dict[str, Any]]:
        return [self._own, *self._entries.values()]

    def encoded(self) -> msgspec.Raw:
        """The list as JSON, encoded once per change."""
        if self._encoded is None:
            self._encoded = msgspec.Raw(msgspec.json.encode(self.entries()))
        return self._encoded

    def update(self, key: str, entry: dict[str, Any], *, reason: str) -> None:
        """Set the entry of one peer. Over the cap the entry that was touched longest ago goes."""
        self._entries.pop(key, None)
        while len(self._entries) >= MAX_ENTRIES:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = {**entry, "reason": reason, "ts": self._now_ms()}
        self._changed()

    def remove(self, key: str, *, reason: str = "disconnect") -> None:
        """Tell of the departure once (the entry with ``reason``), then forget it."""
        entry = self._entries.get(key)
        if entry is None:
            return
        self.update(key, entry, reason=reason)
        del self._entries[key]
        self._encoded = None

    def _changed(self) -> None:
        self.version += 1
        self._encoded = None
        self._on_change()
