"""A durable queue: what was accepted is handed to a handler until it is done, given up, or dropped by a person.

Owns acceptance (limits, dedupe), the order of hand-out, tries and their backoff, and dead letters. It must not know
what a message means or who handles it.

Theory of operation. `put` writes the message and its dedupe key in one commit and returns; only then may anybody say
"accepted". In memory stand the messages without their payloads (those of a small budget with them, so that the usual
message is handed out without a second read). `serve` takes the due head of a lane, notes "running" in the store without
waiting for it, and calls the handler. What the handler returns, its effects, is committed in the transaction that takes
the message out: an answer in the outbound queue and the end of its question are one step, and no crash can come between
them. A message that was running when the process died is handed out again as ``uncertain``.

Invariants: nothing accepted is lost: it ends by its handler's word, by a person's, or is given up, and then it stays
among the dead letters, which have limits of their own (`deadletters`): only over those the oldest goes, counted and
told; per lane one at a time and in order; a handler's failure is that message's alone; every count has a limit
(`QueueRules`).
"""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.backoff import backoff_ms
from openclaw_gateway.queues import rows
from openclaw_gateway.queues.deadletters import DeadLetters
from openclaw_gateway.queues.lanes import Held, Lanes
from openclaw_gateway.queues.records import (
    Accepted,
    Effect,
    NewMessage,
    QueuedMessage,
    QueueFull,
    QueueRules,
    RetryLater,
    State,
    Undeliverable,
)
from openclaw_gateway.store import Store, StoreError

__all__ = ["Handler", "MessageQueue", "open_queues"]

Handler = Callable[[QueuedMessage], Awaitable[Sequence[Effect] | None]]

AT_HAND_BYTES: Final = 2 * 1024 * 1024  # payloads kept in memory between acceptance and hand-out
LOOK_BATCH: Final = 256  # messages that are read at a time where all of them are looked at
UPKEEP_SECONDS: Final = 60.0
PUT_BACK_SECONDS: Final = 2.0
STORE_RETRY_MS: Final = 1_000
_MAX_ERROR: Final = 500

log = get_logger("queue")


class MessageQueue:
    """Made by `open_queues`. Belongs to one Trio run."""

    def __init__(self, name: str, store: Store, *, clock: Callable[[], int], rules: QueueRules) -> None:
        self.name = name
        self.rules = rules
        self._store = store
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._lanes = Lanes()
        self._dead = DeadLetters(rules.max_dead, rules.max_dead_bytes)
        self._going: set[str] = set()  # dead letters whose removal is being written: nobody else decides about them
        self._bytes = 0  # of what is not dead
        self._at_hand = 0
        self._reserved = [0, 0]  # messages and bytes of puts under way
        self._running: set[str] = set()
        self._woken = trio.Event()
        self.on_dead: Callable[[QueuedMessage], None] = lambda message: None
        self.on_dropped: Callable[[QueuedMessage], None] = lambda message: None
        self.on_discarded: Callable[[int], None] = lambda count: None  # dead letters over their limits, now and then

    def restore(self, found: Iterable[rows.Row]) -> None:
        """Take over what the store holds."""
        for row in found:
            self._admit(Held(row.message, row.size))

    def __len__(self) -> int:
        return len(self._held)

    @property
    def counts(self) -> dict[str, int]:
        """How many messages wait, run and lie dead, the bytes of the first two, and those of the dead."""
        dead = sum(id_ not in self._running for id_ in self._dead)
        running = len(self._running)
        waiting = len(self._held) - dead - running
        return {
            "waiting": waiting,
            "running": running,
            "dead": dead,
            "bytes": self._bytes,
            "deadBytes": self._dead.bytes,
        }

    def messages(self, state: State | None = None) -> list[QueuedMessage]:
        """What is here, without payloads, in the order of acceptance."""
        found = (self._shown(held) for held in self._held.values())
        return [message for message in found if state is None or message.state == state]

    # --- acceptance

    async def put(self, message: NewMessage) -> Accepted:
        """Accept a message: durable when this returns. A known dedupe key changes nothing and says so.

        Raises `QueueFull` and `StoreError`; then nothing was accepted. Cancelled before the store has it, nothing was
        accepted either.
        """
        size = len(message.payload)
        self._check_room(size)
        self._reserved[0] += 1
        self._reserved[1] += size
        effect = self._put_effect(message)
        try:
            put: rows.Put = await self._store.run(effect.work, then=effect.then)
        finally:
            self._reserved[0] -= 1
            self._reserved[1] -= size
        return put.accepted

    def put_effect(self, message: NewMessage) -> Effect:
        """The same as a part of somebody's transaction. Raises `QueueFull` now, where there is no room now."""
        self._check_room(len(message.payload))
        return self._put_effect(message)

    def _put_effect(self, message: NewMessage) -> Effect:
        now = self._clock()
        work = partial(
            rows.put, queue=self.name, id_=str(uuid.uuid4()), message=message, now=now, dedupe_ms=self.rules.dedupe_ms
        )

        def then(put: rows.Put) -> None:
            if put.row is None:
                return
            at_hand = self._at_hand + put.row.size <= AT_HAND_BYTES
            self._at_hand += put.row.size if at_hand else 0
            self._admit(Held(put.row.message, put.row.size, message.payload if at_hand else None))

        return Effect(work, then)

    @property
    def fullness(self) -> float:
        """How much of the room is taken, from 0 to 1: of the count or of the bytes, whichever is more."""
        return max(self._live / max(1, self.rules.max_messages), self._bytes / max(1, self.rules.max_bytes))

    @property
    def _live(self) -> int:
        return len(self._held) - len(self._dead)

    def holds(self, id_: str) -> bool:
        """Whether a message is here and not a dead letter."""
        held = self._held.get(id_)
        return held is not None and held.message.state != "dead"

    def _check_room(self, size: int) -> None:
        if not self._has_room(size):
            raise QueueFull(self.name, self.rules.full_retry_ms)

    def _has_room(self, size: int) -> bool:
        count = self._live + self._reserved[0]
        held = self._bytes + self._reserved[1]
        return count < self.rules.max_messages and held + size <= self.rules.max_bytes

    def _admit(self, held: Held) -> None:
        self._held[held.message.id] = held
        if held.message.state == "dead":
            self._dead.add(held)
            return
        self._bytes += held.size
        self._lanes.add(held)
        self._wake()

    def _wake(self) -> None:
        self._woken.set()
        self._woken = trio.Event()

    # --- hand-out

    async def serve(self, handler: Handler, *, concurrency: int) -> None:
        """Hand out what is due, ``concurrency`` messages at a time. Never returns.

        ``handler(message)`` returns the effects that are committed together with the message's end, or raises:
        `RetryLater`, `Undeliverable`, or anything else, which counts as a failed try. Cancelled, the handlers under way
        are cancelled, and their messages wait again as ``uncertain``.
        """
        room = trio.CapacityLimiter(concurrency)
        async with trio.open_nursery() as nursery:
            while True:
                woken = self._woken
                held = self._lanes.take(self._clock()) if room.available_tokens >= 1 else None
                if held is None:
                    due = self._lanes.next_due() if room.available_tokens >= 1 else None
                    wait = float("inf") if due is None else max(0.0, (due - self._clock()) / 1000)
                    with trio.move_on_after(wait):
                        await woken.wait()
                    continue
                self._running.add(held.message.id)
                room.acquire_on_behalf_of_nowait(held)
                nursery.start_soon(self._work_on, held, handler, room)
                await trio.lowlevel.checkpoint()

    async def _work_on(self, held: Held, handler: Handler, room: trio.CapacityLimiter) -> None:
        settled = False
        try:
            await self._try(held, handler)
            settled = True
        finally:
            if not settled:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + PUT_BACK_SECONDS):
                    await self._give_back(held)
            self._running.discard(held.message.id)
            self._lanes.release(held.message.lane)
            room.release_on_behalf_of(held)
            self._wake()

    async def _try(self, held: Held, handler: Handler) -> None:
        message = held.message
        if message.uncertain and message.attempts >= self.rules.max_attempts:
            await self._failed(held, f"the process ended during {message.attempts} tries", dead=True, counts=False)
            return
        try:
            payload = await self._payload(held)
            if payload is None:
                self._forget(held)
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._note_begin, message.id)
                effects = tuple(await handler(attrs.evolve(message, payload=payload)) or ())
            await self._store.run(
                partial(rows.finish, id_=message.id, effects=effects), then=partial(self._done, held, effects)
            )
        except Exception as exc:  # noqa: BLE001 - one barrier: a message's failure is its own
            await self._settle(held, exc)

    async def _settle(self, held: Held, exc: Exception) -> None:
        cause: BaseException = exc
        while isinstance(cause, ExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        if isinstance(cause, StoreError):
            # The handler may have done its work; only its end could not be written.
            await self._failed(held, str(cause), after_ms=STORE_RETRY_MS, counts=False, uncertain=True)
        elif isinstance(cause, RetryLater):
            await self._failed(held, str(cause), after_ms=cause.after_ms, counts=cause.counts)
        elif isinstance(cause, Undeliverable):
            await self._failed(held, str(cause), dead=True)
        elif isinstance(cause, QueueFull):
            await self._failed(held, str(cause), after_ms=cause.retry_after_ms, counts=False)
        else:
            log.exception("message failed", exc=cause, queue=self.name, message_id=held.message.id)
            await self._failed(held, type(cause).__name__)

    async def _note_begin(self, id_: str) -> None:
        await self._store.run(partial(rows.begin, id_=id_))

    async def _payload(self, held: Held) -> bytes | None:
        if held.payload is not None:
            return held.payload
        return await self._store.run(partial(rows.payload, id_=held.message.id))

    def _done(self, held: Held, effects: Sequence[Effect], results: Sequence[Any] | None) -> None:
        self._forget(held)
        if results is None:
            return  # it had ended before: a commit that was thought lost came through after all
        for effect, result in zip(effects, results, strict=True):
            if effect.then is None:
                continue
            try:
                effect.then(result)
            except Exception as exc:
                log.exception("an effect broke after its commit", exc=exc, queue=self.name, message_id=held.message.id)

    async def _failed(
        self,
        held: Held,
        why: str,
        *,
        after_ms: int | None = None,
        dead: bool = False,
        counts: bool = True,
        uncertain: bool = False,
    ) -> None:
        message = held.message
        attempts = message.attempts + (1 if counts else 0)
        dead = dead or attempts >= self.rules.max_attempts
        wait = after_ms
        if wait is None:
            wait = backoff_ms(
                attempts,
                first_ms=self.rules.first_retry_ms,
                cap_ms=self.rules.longest_retry_ms,
                jitter=random.random(),  # noqa: S311 - spreads retries, guards nothing
            )
        changed = attrs.evolve(
            message,
            attempts=attempts,
            due_at_ms=self._clock() + wait,
            state="dead" if dead else "waiting",
            uncertain=uncertain or message.uncertain,
            last_error=why[:_MAX_ERROR],
        )
        await self._change(held, changed)
        if dead:
            log.error("message given up", queue=self.name, message_id=message.id, attempts=attempts, error=why)
            self._tell(self.on_dead, changed)
            await self._discard()
        else:
            log.info("message will be tried again", queue=self.name, message_id=message.id, delay_ms=wait, error=why)

    async def _give_back(self, held: Held) -> None:
        """A try was broken off: it may have reached the outside, and it does not count."""
        changed = attrs.evolve(held.message, uncertain=True, state="waiting")
        await self._change(held, changed)

    async def _change(self, held: Held, changed: QueuedMessage) -> None:
        """Write and remember. Without the store the change holds in memory; after a restart the message is tried."""
        held.message = changed
        self._drop_payload(held)
        if changed.state == "dead":
            self._lanes.remove(held)
            if changed.id in self._held and changed.id not in self._dead:
                self._dead.add(held)
                self._bytes -= held.size
        elif self._dead.remove(held):
            self._bytes += held.size
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
            log.warning("queue cannot be written", queue=self.name, message_id=changed.id, error=str(exc))

    async def _discard(self) -> None:
        """Dead letters over their limits go, the oldest first."""
        over = [held for held in self._dead.over() if held.message.id not in self._going]
        if not over:
            return
        ids = [held.message.id for held in over]

        def then(_: None) -> None:
            for held in over:
                self._forget(held)
            self._dead.discarded += len(over)

        self._going.update(ids)
        try:
            await self._store.run(partial(rows.drop, ids=ids), then=then)
        except StoreError as exc:
            log.warning("dead letters cannot be removed", queue=self.name, error=str(exc))
            return
        finally:
            self._going.difference_update(ids)
        log.warning("dead letters removed: over their limit", queue=self.name, count=len(over))

    def _tell(self, listener: Callable[[QueuedMessage], None], message: QueuedMessage) -> None:
        try:
            listener(message)
        except Exception as exc:
            log.exception("message could not be told of", exc=exc, queue=self.name, message_id=message.id)

    def _forget(self, held: Held) -> None:
        self._drop_payload(held)
        if self._held.pop(held.message.id, None) is not None and not self._dead.remove(held):
            self._bytes -= held.size
        self._lanes.remove(held)

    def _drop_payload(self, held: Held) -> None:
        if held.payload is not None:
            self._at_hand -= held.size
            held.payload = None

    def _shown(self, held: Held) -> QueuedMessage:
        running = held.message.id in self._running
        return attrs.evolve(held.message, state="running") if running else held.message

    # --- what whoever understands the messages does

    async def look_through(self, kinds: Collection[str], take: Callable[[QueuedMessage], None]) -> None:
        """Show ``take`` every message of these kinds that waits, with its payload, in the order of acceptance; of the
        payloads `AT_HAND_BYTES` at a time are in memory. Raises `StoreError`.
        """
        batch: list[Held] = []
        size = 0
        for held in [one for one in self._held.values() if one.message.state != "dead" and one.message.kind in kinds]:
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
                take(attrs.evolve(self._shown(held), payload=payload))

    async def reclassify(self, kinds: Mapping[str, str]) -> None:
        """The messages of these ids are of another kind, durable when this returns: whoever they are handed out to next
        is told so. Ids that are not here change nothing. Raises `StoreError`.
        """

        def then(_: None) -> None:
            for id_, kind in kinds.items():
                held = self._held.get(id_)
                if held is not None:
                    held.message = attrs.evolve(held.message, kind=kind)

        await self._store.run(partial(rows.reclassify, kinds=list(kinds.items())), then=then)

    # --- what a person does

    async def retry(self, ids: Iterable[str]) -> list[str]:
        """Try these again at once, dead letters too, and count their tries anew. The ids that were here and not under
        way. Raises `QueueFull` where there is room for none of them."""
        done: list[str] = []
        for held in self._resting(ids):
            if not self._rests(held.message.id):
                continue  # handed out, or gone, while those before it were written
            was_dead = held.message.state == "dead"
            if was_dead and not self._has_room(held.size):
                if not done:
                    raise QueueFull(self.name, self.rules.full_retry_ms)
                break
            changed = attrs.evolve(held.message, attempts=0, due_at_ms=self._clock(), state="waiting", last_error=None)
            await self._change(held, changed)
            if changed.id not in self._held:
                continue  # dropped meanwhile
            if was_dead:
                self._lanes.add(held)
            else:
                self._lanes.refresh(changed.lane)
            done.append(changed.id)
        self._wake()
        return done

    def hurry(self, lane_prefix: str) -> None:
        """What waits in the lanes that begin so is due now: whatever it waited for is there. Changes no count."""
        now = self._clock()
        for held in self._held.values():
            message = held.message
            waits = message.state == "waiting" and message.due_at_ms > now and message.id not in self._running
            if waits and message.lane.startswith(lane_prefix):
                held.message = attrs.evolve(message, due_at_ms=now)
                self._lanes.refresh(message.lane)
        self._wake()

    async def drop(self, ids: Iterable[str]) -> list[str]:
        """Remove these for good. The ids that were here and not under way."""
        resting = self._resting(ids)
        for held in resting:
            self._lanes.remove(held)
        dropped = [held.message.id for held in resting]

        def then(_: None) -> None:
            for held in resting:
                self._forget(held)
                self._tell(self.on_dropped, held.message)

        try:
            await self._store.run(partial(rows.drop, ids=dropped), then=then)
        except StoreError:
            for held in resting:
                if held.message.state != "dead":
                    self._lanes.put_back(held)
            raise
        self._wake()
        return dropped

    async def payload_of(self, id_: str) -> bytes | None:
        """The payload of a message that is here."""
        held = self._held.get(id_)
        return await self._payload(held) if held is not None else None

    def _resting(self, ids: Iterable[str]) -> list[Held]:
        return [self._held[id_] for id_ in dict.fromkeys(ids) if self._rests(id_)]

    def _rests(self, id_: str) -> bool:
        return id_ in self._held and id_ not in self._running and id_ not in self._going

    async def supervise_upkeep(self) -> None:
        """Forget dedupe keys past their window, and tell of dead letters that had to go. Never returns; raises
        `StoreError`."""
        while True:
            await self._discard()
            discarded = self._dead.take_discarded()
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
