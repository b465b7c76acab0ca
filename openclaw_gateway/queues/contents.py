"""What lies in a queue at this moment, in memory: every message without its payload, and how much room is left.

Owns the messages by id, their lanes and dead letters, which of them are handed out, the count and the bytes against the
limits, and the payloads that are kept at hand. It must not know the store, handlers or the clock: who changes something
here for good writes it, too (`ledger`).

Invariants: dead letters take no room; the room of a put under way is spoken for before it is taken; the payloads at
hand never exceed `AT_HAND_BYTES`; whoever waits for work is woken by every message that comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import trio

from openclaw_gateway.queues.deadletters import DeadLetters
from openclaw_gateway.queues.lanes import Held, Lanes
from openclaw_gateway.queues.records import QueuedMessage, QueueFull, QueueRules, State

__all__ = ["AT_HAND_BYTES", "Contents"]

AT_HAND_BYTES: Final = 2 * 1024 * 1024  # payloads kept in memory between acceptance and hand-out


class Contents:
    """The messages of one queue. Iterating gives them in the order of acceptance."""

    def __init__(self, name: str, rules: QueueRules) -> None:
        self.name = name
        self.rules = rules
        self.lanes = Lanes()
        self.dead = DeadLetters(rules.max_dead, rules.max_dead_bytes)
        self.running: set[str] = set()
        self.going: set[str] = set()  # dead letters whose removal is being written: nobody else decides about them
        self.woken = trio.Event()
        self.at_hand = 0
        self._held: dict[str, Held] = {}
        self._bytes = 0  # of what is not dead
        self._reserved = [0, 0]  # messages and bytes of puts under way

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, id_: str) -> bool:
        return id_ in self._held

    def __iter__(self) -> Iterator[Held]:
        return iter(self._held.values())

    def get(self, id_: str) -> Held | None:
        return self._held.get(id_)

    def resting(self, ids: Iterable[str]) -> list[Held]:
        """Those of these that `rests`."""
        return [self._held[id_] for id_ in dict.fromkeys(ids) if self.rests(id_)]

    def rests(self, id_: str) -> bool:
        """Whether a message is here, neither under way nor on its way out."""
        return id_ in self._held and id_ not in self.running and id_ not in self.going

    def holds(self, id_: str) -> bool:
        """Whether a message is here and not a dead letter."""
        held = self._held.get(id_)
        return held is not None and held.message.state != "dead"

    def shown(self, held: Held) -> QueuedMessage:
        """A message as everybody but its handler sees it."""
        running = held.message.id in self.running
        return attrs.evolve(held.message, state="running") if running else held.message

    def messages(self, state: State | None = None) -> list[QueuedMessage]:
        """What is here, without payloads, in the order of acceptance."""
        found = (self.shown(held) for held in self._held.values())
        return [message for message in found if state is None or message.state == state]

    @property
    def counts(self) -> dict[str, int]:
        """How many messages wait, run and lie dead, the bytes of the first two, and those of the dead."""
        dead = sum(id_ not in self.running for id_ in self.dead)
        running = len(self.running)
        waiting = len(self._held) - dead - running
        return {
            "waiting": waiting,
            "running": running,
            "dead": dead,
            "bytes": self._bytes,
            "deadBytes": self.dead.bytes,
        }

    # --- room

    @property
    def fullness(self) -> float:
        """How much of the room is taken, from 0 to 1: of the count or of the bytes, whichever is more."""
        return max(self._live / max(1, self.rules.max_messages), self._bytes / max(1, self.rules.max_bytes))

    @property
    def _live(self) -> int:
        return len(self._held) - len(self.dead)

    def has_room(self, size: int) -> bool:
        count = self._live + self._reserved[0]
        held = self._bytes + self._reserved[1]
        return count < self.rules.max_messages and held + size <= self.rules.max_bytes

    def check_room(self, size: int) -> None:
        """Raises `QueueFull`."""
        if not self.has_room(size):
            raise QueueFull(self.name, self.rules.full_retry_ms)

    @contextmanager
    def reserved(self, size: int) -> Iterator[None]:
        """Room for one message is spoken for within the block. Raises `QueueFull`."""
        self.check_room(size)
        self._reserved[0] += 1
        self._reserved[1] += size
        try:
            yield
        finally:
            self._reserved[0] -= 1
            self._reserved[1] -= size

    # --- coming, changing and going

    def admit(self, message: QueuedMessage, size: int, payload: bytes | None = None) -> None:
        """A message is here from now on, its payload at hand where there is room for that."""
        at_hand = payload is not None and self.at_hand + size <= AT_HAND_BYTES
        self.at_hand += size if at_hand else 0
        held = Held(message, size, payload if at_hand else None)
        self._held[message.id] = held
        if message.state == "dead":
            self.dead.add(held)
            return
        self._bytes += held.size
        self.lanes.add(held)
        self.wake()

    def replace(self, held: Held, changed: QueuedMessage) -> None:
        """A message is in another state, its payload let go. Who brings a dead one back puts it into its lane, too."""
        held.message = changed
        self._drop_payload(held)
        if changed.state == "dead":
            self.lanes.remove(held)
            if changed.id in self._held and changed.id not in self.dead:
                self.dead.add(held)
                self._bytes -= held.size
        elif self.dead.remove(held):
            self._bytes += held.size

    def forget(self, held: Held) -> None:
        """A message is here no more."""
        self._drop_payload(held)
        if self._held.pop(held.message.id, None) is not None and not self.dead.remove(held):
            self._bytes -= held.size
        self.lanes.remove(held)

    def _drop_payload(self, held: Held) -> None:
        if held.payload is not None:
            self.at_hand -= held.size
            held.payload = None

    # --- hand-out

    def take(self, now: int) -> Held | None:
        """The message that is due and was due first, running from now on. None where none is."""
        held = self.lanes.take(now)
        if held is not None:
            self.running.add(held.message.id)
        return held

    def release(self, held: Held) -> None:
        """The message that was taken is back, with whatever changed in it, or was removed."""
        self.running.discard(held.message.id)
        self.lanes.release(held.message.lane)

    def wake(self) -> None:
        """Whoever waits for work looks again."""
        self.woken.set()
        self.woken = trio.Event()
