"""Which message comes next: every lane in order, one message of a lane at a time, whoever is due first.

Owns the order in memory. It must not know the store, tasks or handlers. Pure but for its own state: `now` in, a message
out.

Invariants: `take` never gives a message of a lane that has one out; a lane whose first message waits for a later try
holds the ones behind it back (order before speed); a dead letter holds nobody back; taking and putting costs
O(log lanes), however many messages wait.
"""

from __future__ import annotations

import heapq
from collections import deque

import attrs

from openclaw_gateway.queues.records import QueuedMessage

__all__ = ["Held", "Lanes"]


@attrs.define(eq=False)
class Held:
    """A message in memory: its state, its size in bytes, and its payload where that is at hand."""

    message: QueuedMessage
    size: int
    payload: bytes | None = None


class Lanes:
    """The messages of one queue that wait. Times are Unix milliseconds."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Held]] = {}
        self._out: set[str] = set()
        self._heap: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return len(self._lanes)

    def add(self, held: Held) -> None:
        """At the end of its lane."""
        lane = held.message.lane
        waiting = self._lanes.setdefault(lane, deque())
        waiting.append(held)
        if len(waiting) == 1:
            self._offer(lane)

    def put_back(self, held: Held) -> None:
        """Where it was in its lane, after `remove`."""
        lane = held.message.lane
        waiting = self._lanes.setdefault(lane, deque())
        if held in waiting:
            return
        place = sum(other.message.order < held.message.order for other in waiting)
        waiting.insert(place, held)
        if place == 0:
            self._offer(lane)

    def take(self, now: int) -> Held | None:
        """The message that is due and was due first; its lane rests until `release`. None where none is."""
        while self._heap:
            due, order, lane = self._heap[0]
            head = self._head(lane)
            if head is None or (head.message.due_at_ms, head.message.order) != (due, order):
                heapq.heappop(self._heap)  # of a head that is not the head any more
                continue
            if due > now:
                return None
            heapq.heappop(self._heap)
            self._out.add(lane)
            return head
        return None

    def next_due(self) -> int | None:
        """When the next message is due; None where nothing waits for a time (some may still be out)."""
        while self._heap:
            due, order, lane = self._heap[0]
            head = self._head(lane)
            if head is not None and (head.message.due_at_ms, head.message.order) == (due, order):
                return due
            heapq.heappop(self._heap)
        return None

    def release(self, lane: str) -> None:
        """The message that was taken is back, with whatever changed in it, or was removed."""
        self._out.discard(lane)
        self._offer(lane)

    def refresh(self, lane: str) -> None:
        """The first message of a lane is due at another time now."""
        self._offer(lane)

    def remove(self, held: Held) -> None:
        """Take a message out of its lane for good."""
        lane = held.message.lane
        waiting = self._lanes.get(lane)
        if waiting is None or held not in waiting:
            return
        waiting.remove(held)
        if not waiting:
            del self._lanes[lane]
        else:
            self._offer(lane)

    def _head(self, lane: str) -> Held | None:
        waiting = self._lanes.get(lane)
        return waiting[0] if waiting and lane not in self._out else None

    def _offer(self, lane: str) -> None:
        head = self._head(lane)
        if head is not None:
            heapq.heappush(self._heap, (head.message.due_at_ms, head.message.order, lane))
