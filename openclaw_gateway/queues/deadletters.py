"""Messages that were given up: kept apart from what still waits, until a person decides or room is needed.

Owns their order, their limits and how many had to go. It must not know the store, tasks or handlers.

Invariants: they take no room from messages that can still be delivered, and have limits of their own; what is over them
goes oldest first, as they were given up (after a restart: as they were accepted), and is counted until somebody was
told; a message is here once.
"""

from __future__ import annotations

from collections.abc import Iterator

from openclaw_gateway.queues.lanes import Held

__all__ = ["DeadLetters"]


class DeadLetters:
    """At most ``most`` messages and ``most_bytes`` of payloads, once `over` was carried out."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._held: dict[str, Held] = {}
        self.bytes = 0
        self.discarded = 0  # of which nobody was told yet

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def add(self, held: Held) -> None:
        if held.message.id not in self._held:
            self._held[held.message.id] = held
            self.bytes += held.size

    def remove(self, held: Held) -> bool:
        """Whether it was here."""
        if self._held.pop(held.message.id, None) is None:
            return False
        self.bytes -= held.size
        return True

    def over(self) -> list[Held]:
        """What has to go, oldest first."""
        found: list[Held] = []
        count, size = len(self._held), self.bytes
        for held in self._held.values():
            if count <= self._most and size <= self._most_bytes:
                break
            found.append(held)
            count -= 1
            size -= held.size
        return found

    def take_discarded(self) -> int:
        """How many had to go since the last look."""
        count, self.discarded = self.discarded, 0
        return count
