"""Work that waits for a node that is not here: bounded, durable, handed out once.

Owns the queue of `node.pending.*`. It must not know who is connected or allowed: whoever takes items out says which of
them may still be handed out, and the others are dropped (V34).

Invariants: an item is on the disk before its enqueue returns; an item handed out by `drain` is gone from the disk
before it is told; at most `MAX_PER_NODE` for one node, `MAX_TOTAL` in all, none longer than a day.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

from openclaw_gateway.nodes import rows
from openclaw_gateway.nodes.records import QueuedItem
from openclaw_gateway.store import Store

__all__ = ["WorkQueue"]

MAX_PER_NODE: Final = 64
MAX_TOTAL: Final = 2048
DEFAULT_TTL_MS: Final = 3_600_000
MAX_TTL_MS: Final = 86_400_000


class WorkQueue:
    """Times are Unix milliseconds. All that changes raises `StoreError`, and changes nothing then."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._items: dict[str, QueuedItem] = {}
        self._revisions: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._items)

    def restore(self, items: Iterable[QueuedItem]) -> None:
        self._items = {item.id: item for item in items}

    def revision(self, node_id: str) -> int:
        """Grows with each change of the node's queue while the gateway runs."""
        return self._revisions.get(node_id, 0)

    def of(self, node_id: str, now: int) -> list[QueuedItem]:
        """What waits for the node, the urgent first, then the oldest."""
        mine = [item for item in self._items.values() if item.node_id == node_id and item.expires_at_ms > now]
        return sorted(mine, key=lambda item: (-item.rank, item.created_at_ms))

    async def put(
        self, node_id: str, paired_at_ms: int, type_: str, *, rank: int, ttl_ms: int | None, now: int
    ) -> QueuedItem | None:
        """Queue one item; the same type that waits already is not queued twice. None where there is no room."""
        same = (one for one in self.of(node_id, now) if (one.type, one.paired_at_ms) == (type_, paired_at_ms))
        twin = next(same, None)
        if twin is not None and twin.rank >= rank:
            return twin
        item = QueuedItem(
            id=str(uuid.uuid4()),
            node_id=node_id,
            paired_at_ms=paired_at_ms,
            type=type_,
            rank=rank,
            created_at_ms=now,
            expires_at_ms=now + min(ttl_ms or DEFAULT_TTL_MS, MAX_TTL_MS),
        )

        def apply(result: tuple[bool, tuple[str, ...]]) -> None:
            put, expired = result
            for id_ in expired:
                self._items.pop(id_, None)
            if put:
                self._items[item.id] = item
                self._changed(node_id)

        work = partial(rows.put_item, item=item, now=now, per_node=MAX_PER_NODE, total=MAX_TOTAL)
        put, _ = await self._store.run(work, then=apply)
        return item if put else None

    async def drain(
        self, node_id: str, most: int, now: int, *, may: Callable[[QueuedItem], bool]
    ) -> tuple[list[QueuedItem], bool]:
        """Take out up to ``most`` items; what may not be handed out any more is dropped. Also whether more waits."""
        allowed: list[QueuedItem] = []
        dropped: list[QueuedItem] = []
        for item in self.of(node_id, now):
            (allowed if may(item) else dropped).append(item)
        taken = set(await self.take(node_id, [item.id for item in (*allowed[:most], *dropped)]))
        return [item for item in allowed[:most] if item.id in taken], len(allowed) > most

    async def take(self, node_id: str, ids: Sequence[str]) -> tuple[str, ...]:
        """Delete these of the node's items; the ids that were there."""
        if not ids:
            return ()

        def apply(gone: tuple[str, ...]) -> None:
            for id_ in gone:
                self._items.pop(id_, None)
            if gone:
                self._changed(node_id)

        work = partial(rows.take_items, node_id=node_id, ids=list(ids)[: 2 * MAX_PER_NODE])
        return await self._store.run(work, then=apply)

    def forget(self, node_id: str) -> None:
        """The node's rows are gone; so is what was known of them."""
        for id_ in [item.id for item in self._items.values() if item.node_id == node_id]:
            del self._items[id_]
        self._revisions.pop(node_id, None)

    async def expire(self, now: int) -> None:
        """Delete what is past its time; costs nothing when nothing is."""
        if all(item.expires_at_ms > now for item in self._items.values()):
            return

        def apply(gone: tuple[str, ...]) -> None:
            for id_ in gone:
                self._items.pop(id_, None)

        await self._store.run(partial(rows.expire_items, now=now), then=apply)

    def _changed(self, node_id: str) -> None:
        self._revisions[node_id] = self._revisions.get(node_id, 0) + 1
