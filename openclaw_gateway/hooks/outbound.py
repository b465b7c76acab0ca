"""Outbound webhooks: chosen events of this gateway are sent to addresses outside, signed and retried.

Owns which events become messages, their form (Standard Webhooks 1.0: ``webhook-id``, ``webhook-timestamp``,
``webhook-signature``) and their delivery. It must not know what an event means nor how a queue retries.

Theory of operation. `serve` hears the bus and puts each chosen event into the outbound queue, once per target, with the
body that every try will send; `deliver` is the queue's handler. One lane per target: its messages keep their order, and
a target that is down holds up no other.

The accept point, from which on an event is told whatever becomes of the process: of the end of a run it is the commit
of that end (`effects` are a part of it, and `serve`, hearing of the same event a moment later, leaves it at that); of
every other event it is the put, a moment after it happened, and what happened in the last instant before a crash is not
told. Done is a message with the target's 2xx; a process that dies between that and its own note of it sends once more,
under the same id.

Invariants: an event leaves only where the configuration names it, and only names of `WEBHOOK_EVENTS` can be named; what
looks like a secret is taken out before it is written down (V51); every try of a message has the same id and body.
"""

from __future__ import annotations

import hashlib
import ssl
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec
import trio

from openclaw_gateway.config.hookblocks import WEBHOOK_EVENTS, OutboundHook
from openclaw_gateway.config.redact import redact
from openclaw_gateway.events.bus import EventBus
from openclaw_gateway.hooks.sender import SEND_SECONDS, WebhookSender
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.queues import (
    Effect,
    MessageQueue,
    NewMessage,
    QueuedMessage,
    QueueFull,
    RetryLater,
    Undeliverable,
)
from openclaw_gateway.store import StoreError

__all__ = ["KIND", "MAX_BODY", "OutboundHooks"]

KIND: Final = "webhook.event"
MAX_BODY: Final = 256 * 1024
LONGEST_WAIT_MS: Final = 3_600_000
MOST_OF_QUEUE: Final = 0.5  # what events may take of the queue: the rest is for answers to people (ROB-1)
MAX_COMMITTED: Final = 1_024
CAPACITY: Final = 256  # events between the bus and the queue
_ENDS: Final = frozenset({"final", "error", "aborted"})  # states of ``chat`` that are told
_GONE: Final = 410
_LANE: Final = "webhook:"

log = get_logger("hooks")


class OutboundHooks:
    """``clock`` gives Unix milliseconds; ``tls`` (tests) what servers are verified with instead of the system's
    certificates."""

    def __init__(
        self, bus: EventBus, queue: MessageQueue, *, clock: Callable[[], int], tls: ssl.SSLContext | None = None
    ) -> None:
        self._bus = bus
        self._queue = queue
        self._clock = clock
        self._sender = WebhookSender(clock=clock, tls=tls)
        self._targets: dict[str, OutboundHook] = {}
        self._committed: OrderedDict[bytes, bool] = OrderedDict()  # as `effects`, and not heard of on the bus yet
        self._gone: set[str] = set()  # targets that said 410; until the next change of the configuration
        self.lost = 0  # events that found no room in the queue

    def configure(self, targets: Sequence[OutboundHook]) -> None:
        """Use other targets from now on; what waits for one that is gone is given up when its turn comes."""
        self._targets = {target.name: target for target in targets if target.enabled}
        self._gone.clear()

    async def aclose(self) -> None:
        """Close idle connections."""
        await self._sender.aclose()

    # --- from the bus into the queue

    async def serve(self) -> None:
        """Never returns: puts every chosen event into the queue."""
        async with self._bus.subscribe(*WEBHOOK_EVENTS, capacity=CAPACITY) as events:
            async for name, payload in events:
                await self.take(name, payload)

    async def take(self, event: str, payload: Any) -> None:
        """One event: a message for each target that asks for it, durable when this returns."""
        for key, message in self._messages(event, payload):
            if self._committed.pop(key, None) is not None:
                continue
            try:
                self._leave_room()
                await self._queue.put(message)
            except (QueueFull, StoreError) as exc:
                self._missed(event, message, exc)

    def effects(self, event: str, payload: Any) -> Sequence[Effect]:
        """The same as parts of somebody's transaction: told if, and only if, that is committed. Never raises for want
        of room: nobody's end waits for a webhook."""
        found: list[Effect] = []
        for key, message in self._messages(event, payload):
            try:
                self._leave_room()
                found.append(self._queue.put_effect(message))
                found.append(Effect(lambda db: None, partial(self._remember, key)))
            except QueueFull as exc:
                self._missed(event, message, exc)
        return found

    def _remember(self, key: bytes, _: object) -> None:
        self._committed[key] = True
        while len(self._committed) > MAX_COMMITTED:
            self._committed.popitem(last=False)

    def _leave_room(self) -> None:
        if self._queue.fullness >= MOST_OF_QUEUE:
            raise QueueFull(self._queue.name, self._queue.rules.full_retry_ms)

    def _missed(self, event: str, message: NewMessage, exc: Exception) -> None:
        self.lost += 1
        name = message.lane.removeprefix(_LANE)
        log.warning("event not sent", name=name, event_name=event, error=str(exc), lost=self.lost)

    def _messages(self, event: str, payload: Any) -> list[tuple[bytes, NewMessage]]:
        """A message for each target that asks for the event, and what tells it from others."""
        wanted = [one for one in self._targets.values() if event in one.events and one.name not in self._gone]
        if not wanted or event not in WEBHOOK_EVENTS:
            return []
        plain = msgspec.json.decode(payload) if isinstance(payload, msgspec.Raw) else msgspec.to_builtins(payload)
        data = redact(plain)
        if event == "chat" and (not isinstance(data, dict) or data.get("state") not in _ENDS):
            return []
        at = datetime.fromtimestamp(self._clock() / 1000, tz=UTC).isoformat(timespec="milliseconds")
        body = msgspec.json.encode({"type": event, "timestamp": at.replace("+00:00", "Z"), "data": data})
        if len(body) > MAX_BODY:
            body = msgspec.json.encode({"type": event, "timestamp": at, "data": _head(data), "truncated": True})
        return [
            (
                _digest(target.name, event, data),
                NewMessage(f"{_LANE}{target.name}", f"msg_{uuid.uuid4().hex}", "gateway", KIND, body),
            )
            for target in wanted
        ]

    # --- from the queue to the target

    async def deliver(self, message: QueuedMessage) -> Sequence[Effect] | None:
        """The handler of `KIND`: one try. Raises `RetryLater` and `Undeliverable`."""
        name = message.lane.removeprefix(_LANE)
        target = self._targets.get(name)
        if target is None:
            raise Undeliverable(f"there is no target {name} any more (hooks.outbound)")
        try:
            with trio.fail_after(SEND_SECONDS):
                status, headers = await self._sender.send(target, message.dedupe, message.payload)
        except trio.TooSlowError as exc:
            raise RetryLater(f"no answer within {SEND_SECONDS:g} s") from exc
        if 200 <= status < 300:
            return None
        if status == _GONE:
            self._gone.add(name)
            log.warning("webhook target is gone: nothing more is sent to it", name=name, status=status)
            raise Undeliverable("the target says that it is gone for good (410)")
        from openclaw_gateway.models.service import retry_after_ms

        after = retry_after_ms(headers, self._clock()) if status in {429, 503} else None
        told = "a redirect, which is not followed" if 300 <= status < 400 else "no success"
        raise RetryLater(f"HTTP {status}: {told}", min(after, LONGEST_WAIT_MS) if after is not None else None)


def _digest(target: str, event: str, data: Any) -> bytes:
    """What makes an event one: who it goes to and what it says."""
    return hashlib.sha256(msgspec.json.encode([target, event, data], order="sorted")).digest()


def _head(data: Any) -> Any:
    """What fits of an event that is too large: its short members."""
    if not isinstance(data, dict):
        return None
    return {key: value for key, value in data.items() if len(msgspec.json.encode(value)) <= 1024}
