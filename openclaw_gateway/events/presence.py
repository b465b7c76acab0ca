"""Presence: who is here, as the official clients show it (spec wire.md section 11).

Owns the list of entries, its version, the encoded form that `system-presence` answers with, and when changes are told.
It must not know connections: a session tells it that a peer came or went. Nodes and user interfaces make an entry;
command line and backend connections do not.

The event carries the whole list (official clients expect it), so telling of each of n arrivals costs n² entries for
every listener. Therefore `serve` tells: of a change after a quiet time in the next turn of the loop, of what follows
together, `WINDOW_SECONDS` later. Who went is in the list that is told next, with its reason, and in no other.

Invariants: the gateway's own entry is always first; at most `MAX_ENTRIES`, and as many that went; the version grows
with every change and never goes back in what is told, so that clients can tell an old snapshot from a new one; what is
told last is what is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
import trio

__all__ = ["Presence"]

MAX_ENTRIES: Final = 512
WINDOW_SECONDS: Final = 0.1


class Presence:
    def __init__(
        self, own: dict[str, Any], *, now_ms: Callable[[], int], on_change: Callable[[list[dict[str, Any]]], None]
    ) -> None:
        """``on_change`` is given the list that is to be told now."""
        self._now_ms = now_ms
        self._on_change = on_change
        self._gone: dict[str, dict[str, Any]] = {}  # who went since the last telling
        self._changed = trio.Event()
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
        self._gone.pop(key, None)
        _put(self._entries, key, {**entry, "reason": reason, "ts": self._now_ms()})
        self._touch()

    def remove(self, key: str, *, reason: str = "disconnect") -> None:
        """Forget an entry; the departure is told once (the entry with ``reason``)."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            _put(self._gone, key, {**entry, "reason": reason, "ts": self._now_ms()})
            self._touch()

    def tell(self) -> None:
        """Tell now of what has changed since the last telling, if anything has."""
        if self._changed.is_set():
            self._changed = trio.Event()
            gone, self._gone = self._gone, {}
            self._on_change([*self.entries(), *gone.values()])

    async def serve(self) -> None:
        """Tell of changes, for ever."""
        while True:
            await self._changed.wait()
            self.tell()
            await trio.sleep(WINDOW_SECONDS)

    def _touch(self) -> None:
        self.version += 1
        self._encoded = None
        self._changed.set()


def _put(entries: dict[str, dict[str, Any]], key: str, entry: dict[str, Any]) -> None:
    while len(entries) >= MAX_ENTRIES:
        del entries[next(iter(entries))]
    entries[key] = entry
