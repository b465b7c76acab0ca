"""A durable queue: what was accepted is handed to a handler until it is done, given up, or dropped by a person.

Owns acceptance (limits, dedupe), upkeep, and the parts of one queue: what lies in it (`contents`), how that is kept the
same in the store (`ledger`), the handing out (`handout`) and what a person decides (`decisions`). It must not know what
a message means or who handles it.

Theory of operation. `put` writes the message and its dedupe key in one commit and returns; only then may anybody say
"accepted". In memory stand the messages without their payloads (those of a small budget with them, so that the usual
message is handed out without a second read).

Invariants: nothing accepted is lost: it ends by its handler's word, by a person's, or is given up, and then it stays
among the dead letters, which have limits of their own (`deadletters`): only over those the oldest goes, counted and
told; every count has a limit (`QueueRules`); whoever listens to a queue cannot break it.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.queues import rows
from openclaw_gateway.queues.contents import Contents
from openclaw_gateway.queues.decisions import Decisions
from openclaw_gateway.queues.handout import Handler, HandOut
from openclaw_gateway.queues.ledger import Ledger
from openclaw_gateway.queues.records import Accepted, Effect, NewMessage, QueuedMessage, QueueRules, State
from openclaw_gateway.store import Store

__all__ = ["MessageQueue", "open_queues"]

UPKEEP_SECONDS: Final = 60.0

log = get_logger("queue")


class MessageQueue:
    """Made by `open_queues`. Belongs to one Trio run."""

    def __init__(self, name: str, store: Store, *, clock: Callable[[], int], rules: QueueRules) -> None:
        self.name = name
        self._store = store
        self._clock = clock
        self._contents = contents = Contents(name, rules)
        self._ledger = ledger = Ledger(contents, store)
        self._hand_out = HandOut(
            contents, ledger, store, clock=clock, on_dead=lambda message: self._tell(self.on_dead, message)
        )
        self._decisions = Decisions(
            contents, ledger, store, clock=clock, on_dropped=lambda message: self._tell(self.on_dropped, message)
        )
        self.on_dead: Callable[[QueuedMessage], None] = lambda message: None
        self.on_dropped: Callable[[QueuedMessage], None] = lambda message: None
        self.on_discarded: Callable[[int], None] = lambda count: None  # dead letters over their limits, now and then

    def restore(self, found: Iterable[rows.Row]) -> None:
        """Take over what the store holds."""
        for row in found:
            self._contents.admit(row.message, row.size)

    # --- acceptance

    async def put(self, message: NewMessage) -> Accepted:
        """Accept a message: durable when this returns. A known dedupe key changes nothing and says so.

        Raises `QueueFull` and `StoreError`; then nothing was accepted. Cancelled before the store has it, nothing was
        accepted either.
        """
        with self._contents.reserved(len(message.payload)):
            effect = self._put_effect(message)
            put: rows.Put = await self._store.run(effect.work, then=effect.then)
        return put.accepted

    def put_effect(self, message: NewMessage) -> Effect:
        """The same as a part of somebody's transaction. Raises `QueueFull` now, where there is no room now."""
        self._contents.check_room(len(message.payload))
        return self._put_effect(message)

    def _put_effect(self, message: NewMessage) -> Effect:
        now = self._clock()
        work = partial(
            rows.put, queue=self.name, id_=str(uuid.uuid4()), message=message, now=now, dedupe_ms=self.rules.dedupe_ms
        )

        def then(put: rows.Put) -> None:
            if put.row is not None:
                self._contents.admit(put.row.message, put.row.size, message.payload)

        return Effect(work, then)

    # --- what is here

    def __len__(self) -> int:
        return len(self._contents)

    @property
    def rules(self) -> QueueRules:
        """The limits; others hold from when they are put in place, those of the dead letters from the start."""
        return self._contents.rules

    @rules.setter
    def rules(self, rules: QueueRules) -> None:
        self._contents.rules = rules

    @property
    def counts(self) -> dict[str, int]:
        """How many messages wait, run and lie dead, the bytes of the first two, and those of the dead."""
        return self._contents.counts

    @property
    def fullness(self) -> float:
        """How much of the room is taken, from 0 to 1: of the count or of the bytes, whichever is more."""
        return self._contents.fullness

    def messages(self, state: State | None = None) -> list[QueuedMessage]:
        """What is here, without payloads, in the order of acceptance."""
        return self._contents.messages(state)

    def holds(self, id_: str) -> bool:
        """Whether a message is here and not a dead letter."""
        return self._contents.holds(id_)

    async def payload_of(self, id_: str) -> bytes | None:
        """The payload of a message that is here."""
        held = self._contents.get(id_)
        return await self._ledger.payload(held) if held is not None else None

    # --- hand-out

    async def serve(self, handler: Handler, *, concurrency: int) -> None:
        """Hand out what is due, as `HandOut.serve` says. Never returns."""
        await self._hand_out.serve(handler, concurrency=concurrency)

    # --- what whoever understands the messages does

    async def look_through(self, kinds: Collection[str], take: Callable[[QueuedMessage], None]) -> None:
        """Show ``take`` every message of these kinds that waits, with its payload. Raises `StoreError`."""
        await self._ledger.look_through(kinds, take)

    async def reclassify(self, kinds: Mapping[str, str]) -> None:
        """The messages of these ids are of another kind, durable when this returns. Raises `StoreError`."""
        await self._ledger.reclassify(kinds)

    # --- what a person does

    async def retry(self, ids: Iterable[str]) -> list[str]:
        """Try these again at once, dead letters too, and count their tries anew. The ids that were here and not under
        way. Raises `QueueFull` where there is room for none of them."""
        return await self._decisions.retry(ids)

    def hurry(self, lane_prefix: str) -> None:
        """What waits in the lanes that begin so is due now: whatever it waited for is there. Changes no count."""
        self._decisions.hurry(lane_prefix)

    async def drop(self, ids: Iterable[str]) -> list[str]:
        """Remove these for good. The ids that were here and not under way. Raises `StoreError`: they are still here."""
        return await self._decisions.drop(ids)

    def _tell(self, listener: Callable[[QueuedMessage], None], message: QueuedMessage) -> None:
        try:
            listener(message)
        except Exception as exc:
            log.exception("message could not be told of", exc=exc, queue=self.name, message_id=message.id)

    async def supervise_upkeep(self) -> None:
        """Forget dedupe keys past their window, and tell of dead letters that had to go. Never returns; raises
        `StoreError`."""
        while True:
            await self._ledger.discard()
            discarded = self._contents.dead.take_discarded()
            if discarded:
                self.on_discarded(discarded)
            prune = partial(
                rows.prune_seen,
                queue=self.name,
                now=self._clock(),
                dedupe_ms=self.rules.dedupe_ms,
                most=self.rules.max_seen,
            )
            await self._store.run(prune)
            await trio.sleep(UPKEEP_SECONDS)


@asynccontextmanager
async def open_queues(
    store: Store, *names: str, clock: Callable[[], int], rules: QueueRules | None = None
) -> AsyncIterator[tuple[MessageQueue, ...]]:
    """The queues of these names with what the store holds of them. Raises `StoreError`."""
    queues = tuple(MessageQueue(name, store, clock=clock, rules=rules or QueueRules()) for name in names)
    for queue in queues:
        await store.run(partial(rows.load, queue=queue.name), then=queue.restore)
    yield queues
