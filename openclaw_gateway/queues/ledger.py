"""The messages of a queue in the store and in memory, kept the same.

Owns reading payloads and writing what changes in messages that were accepted: their state, their kind, and the dead
letters that have to go. It must not know why something changes, or who handles a message.

Invariants: another state holds in memory even where the store fails, so that a broken store stops nobody; what removes
messages or tells them apart by kind is durable before memory says so; of the payloads that are looked through only
`AT_HAND_BYTES` at a time are in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Final

import attrs

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.queues import rows
from openclaw_gateway.queues.contents import AT_HAND_BYTES, Contents
from openclaw_gateway.queues.lanes import Held
from openclaw_gateway.queues.records import QueuedMessage
from openclaw_gateway.store import Store, StoreError

__all__ = ["Ledger"]

LOOK_BATCH: Final = 256  # messages that are read at a time where all of them are looked at

log = get_logger("queue")


class Ledger:
    """Writes for `contents` into ``store``."""

    def __init__(self, contents: Contents, store: Store) -> None:
        self._contents = contents
        self._store = store

    async def payload(self, held: Held) -> bytes | None:
        """From memory or the store; None where it has none (any more). Raises `StoreError`."""
        if held.payload is not None:
            return held.payload
        return await self._store.run(partial(rows.payload, id_=held.message.id))

    async def change(self, held: Held, changed: QueuedMessage) -> None:
        """Write and remember. Without the store the change holds in memory; after a restart the message is tried."""
        self._contents.replace(held, changed)
        try:
            await self._store.run(
                partial(
                    rows.put_back,
                    id_=changed.id,
                    attempts=changed.attempts,
                    due=changed.due_at_ms,
                    state=changed.state,
                    uncertain=changed.uncertain,
                    error=changed.last_error,
                )
            )
        except StoreError as exc:
            log.warning("queue cannot be written", queue=self._contents.name, message_id=changed.id, error=str(exc))

    async def discard(self) -> None:
        """Dead letters over their limits go, the oldest first."""
        going = self._contents.going
        over = [held for held in self._contents.dead.over() if held.message.id not in going]
        if not over:
            return
        ids = [held.message.id for held in over]

        def then(_: None) -> None:
            for held in over:
                self._contents.forget(held)
            self._contents.dead.discarded += len(over)

        going.update(ids)
        try:
            await self._store.run(partial(rows.drop, ids=ids), then=then)
        except StoreError as exc:
            log.warning("dead letters cannot be removed", queue=self._contents.name, error=str(exc))
            return
        finally:
            going.difference_update(ids)
        log.warning("dead letters removed: over their limit", queue=self._contents.name, count=len(over))

    async def look_through(self, kinds: Collection[str], take: Callable[[QueuedMessage], None]) -> None:
        """Show ``take`` every message of these kinds that waits, with its payload, in the order of acceptance; of the
        payloads `AT_HAND_BYTES` at a time are in memory. Raises `StoreError`.
        """
        batch: list[Held] = []
        size = 0
        for held in [one for one in self._contents if one.message.state != "dead" and one.message.kind in kinds]:
            batch.append(held)
            size += held.size
            if size >= AT_HAND_BYTES or len(batch) >= LOOK_BATCH:
                await self._show(batch, take)
                batch, size = [], 0
        await self._show(batch, take)

    async def _show(self, batch: list[Held], take: Callable[[QueuedMessage], None]) -> None:
        if not batch:
            return
        found = dict(await self._store.run(partial(rows.payloads, ids=[held.message.id for held in batch])))
        for held in batch:
            payload = found.get(held.message.id)
            if payload is not None:
                take(attrs.evolve(self._contents.shown(held), payload=payload))

    async def reclassify(self, kinds: Mapping[str, str]) -> None:
        """The messages of these ids are of another kind, durable when this returns: whoever they are handed out to next
        is told so. Ids that are not here change nothing. Raises `StoreError`.
        """

        def then(_: None) -> None:
            for id_, kind in kinds.items():
                held = self._contents.get(id_)
                if held is not None:
                    held.message = attrs.evolve(held.message, kind=kind)

        await self._store.run(partial(rows.reclassify, kinds=list(kinds.items())), then=then)
