"""What a person (or a part that knows better) decides about messages that wait: try again, try now, drop.

Owns these decisions and what they may touch. It must not know who decides, or how a message is handed out.

Invariants: a message that is under way is left alone; a dead letter that is tried again needs room like a new message;
what was dropped is durably gone before anybody is told; a drop that could not be written leaves its messages where they
were in their lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import attrs

from openclaw_gateway.queues import rows
from openclaw_gateway.queues.contents import Contents
from openclaw_gateway.queues.ledger import Ledger
from openclaw_gateway.queues.records import QueuedMessage, QueueFull
from openclaw_gateway.store import Store, StoreError

__all__ = ["Decisions"]


class Decisions:
    """About the messages of one queue. ``on_dropped`` is told of every message that was dropped."""

    def __init__(
        self,
        contents: Contents,
        ledger: Ledger,
        store: Store,
        *,
        clock: Callable[[], int],
        on_dropped: Callable[[QueuedMessage], None],
    ) -> None:
        self._contents = contents
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._on_dropped = on_dropped

    async def retry(self, ids: Iterable[str]) -> list[str]:
        """Try these again at once, dead letters too, and count their tries anew. The ids that were here and not under
        way. Raises `QueueFull` where there is room for none of them."""
        contents = self._contents
        done: list[str] = []
        for held in contents.resting(ids):
            if not contents.rests(held.message.id):
                continue  # handed out, or gone, while those before it were written
            was_dead = held.message.state == "dead"
            if was_dead and not contents.has_room(held.size):
                if not done:
                    raise QueueFull(contents.name, contents.rules.full_retry_ms)
                break
            changed = attrs.evolve(held.message, attempts=0, due_at_ms=self._clock(), state="waiting", last_error=None)
            await self._ledger.change(held, changed)
            if changed.id not in contents:
                continue  # dropped meanwhile
            if was_dead:
                contents.lanes.add(held)
            else:
                contents.lanes.refresh(changed.lane)
            done.append(changed.id)
        contents.wake()
        return done

    def hurry(self, lane_prefix: str) -> None:
        """What waits in the lanes that begin so is due now: whatever it waited for is there. Changes no count."""
        now = self._clock()
        for held in self._contents:
            message = held.message
            waits = message.state == "waiting" and message.due_at_ms > now and message.id not in self._contents.running
            if waits and message.lane.startswith(lane_prefix):
                held.message = attrs.evolve(message, due_at_ms=now)
                self._contents.lanes.refresh(message.lane)
        self._contents.wake()

    async def drop(self, ids: Iterable[str]) -> list[str]:
        """Remove these for good. The ids that were here and not under way."""
        contents = self._contents
        resting = contents.resting(ids)
        for held in resting:
            contents.lanes.remove(held)
        dropped = [held.message.id for held in resting]

        def then(_: None) -> None:
            for held in resting:
                contents.forget(held)
                self._on_dropped(held.message)

        try:
            await self._store.run(partial(rows.drop, ids=dropped), then=then)
        except StoreError:
            for held in resting:
                if held.message.state != "dead":
                    contents.lanes.put_back(held)
            raise
        contents.wake()
        return dropped
