"""Handing out: what is due goes to the handler, and what the handler says becomes the message's end or its next try.

Owns the tasks that handlers run in, tries, their backoff, and when a message is given up. It must not know what a
message means, how it was accepted, or what a person may do with it.

Theory of operation. `serve` takes the due head of a lane, notes "running" in the store without waiting for it, and
calls the handler. What the handler returns, its effects, is committed in the transaction that takes the message out: an
answer in the outbound queue and the end of its question are one step, and no crash can come between them. A message
that was running when the process died is handed out again as ``uncertain``.

Invariants: per lane one at a time and in order; a handler's failure is that message's alone; a try that was broken off
does not count; a message ends by its handler's word or is given up after `QueueRules.max_attempts`, and is never lost.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.backoff import backoff_ms
from openclaw_gateway.queues import rows
from openclaw_gateway.queues.contents import Contents
from openclaw_gateway.queues.lanes import Held
from openclaw_gateway.queues.ledger import Ledger
from openclaw_gateway.queues.records import Effect, QueuedMessage, QueueFull, RetryLater, Undeliverable
from openclaw_gateway.store import Store, StoreError

__all__ = ["HandOut", "Handler"]

Handler = Callable[[QueuedMessage], Awaitable[Sequence[Effect] | None]]

PUT_BACK_SECONDS: Final = 2.0
STORE_RETRY_MS: Final = 1_000
_MAX_ERROR: Final = 500

log = get_logger("queue")


class HandOut:
    """Of one queue. ``on_dead`` is told of every message that was given up."""

    def __init__(
        self,
        contents: Contents,
        ledger: Ledger,
        store: Store,
        *,
        clock: Callable[[], int],
        on_dead: Callable[[QueuedMessage], None],
    ) -> None:
        self._contents = contents
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._on_dead = on_dead

    async def serve(self, handler: Handler, *, concurrency: int) -> None:
        """Hand out what is due, ``concurrency`` messages at a time. Never returns.

        ``handler(message)`` returns the effects that are committed together with the message's end, or raises:
        `RetryLater`, `Undeliverable`, or anything else, which counts as a failed try. Cancelled, the handlers under way
        are cancelled, and their messages wait again as ``uncertain``.
        """
        contents = self._contents
        room = trio.CapacityLimiter(concurrency)
        async with trio.open_nursery() as nursery:
            while True:
                woken = contents.woken
                held = contents.take(self._clock()) if room.available_tokens >= 1 else None
                if held is None:
                    due = contents.lanes.next_due() if room.available_tokens >= 1 else None
                    wait = float("inf") if due is None else max(0.0, (due - self._clock()) / 1000)
                    with trio.move_on_after(wait):
                        await woken.wait()
                    continue
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
            self._contents.release(held)
            room.release_on_behalf_of(held)
            self._contents.wake()

    async def _try(self, held: Held, handler: Handler) -> None:
        message = held.message
        if message.uncertain and message.attempts >= self._contents.rules.max_attempts:
            await self._failed(held, f"the process ended during {message.attempts} tries", dead=True, counts=False)
            return
        try:
            payload = await self._ledger.payload(held)
            if payload is None:
                self._contents.forget(held)
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
            log.exception("message failed", exc=cause, queue=self._contents.name, message_id=held.message.id)
            await self._failed(held, type(cause).__name__)

    async def _note_begin(self, id_: str) -> None:
        await self._store.run(partial(rows.begin, id_=id_))

    def _done(self, held: Held, effects: Sequence[Effect], results: Sequence[Any] | None) -> None:
        self._contents.forget(held)
        if results is None:
            return  # it had ended before: a commit that was thought lost came through after all
        for effect, result in zip(effects, results, strict=True):
            if effect.then is None:
                continue
            try:
                effect.then(result)
            except Exception as exc:
                name, id_ = self._contents.name, held.message.id
                log.exception("an effect broke after its commit", exc=exc, queue=name, message_id=id_)

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
        name, rules, message = self._contents.name, self._contents.rules, held.message
        attempts = message.attempts + (1 if counts else 0)
        dead = dead or attempts >= rules.max_attempts
        wait = after_ms
        if wait is None:
            wait = backoff_ms(
                attempts,
                first_ms=rules.first_retry_ms,
                cap_ms=rules.longest_retry_ms,
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
        await self._ledger.change(held, changed)
        if dead:
            log.error("message given up", queue=name, message_id=message.id, attempts=attempts, error=why)
            self._on_dead(changed)
            await self._ledger.discard()
        else:
            log.info("message will be tried again", queue=name, message_id=message.id, delay_ms=wait, error=why)

    async def _give_back(self, held: Held) -> None:
        """A try was broken off: it may have reached the outside, and it does not count."""
        changed = attrs.evolve(held.message, uncertain=True, state="waiting")
        await self._ledger.change(held, changed)
