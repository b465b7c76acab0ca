"""Events: encoded once, offered to every live connection that may hear them.

Owns who listens and what an event may say to whom. It must not know how bytes travel: a listener takes an
`OutgoingEvent` and decides by its own buffer. Default-deny: an event without a scope goes to every admitted connection,
an event with one only to those that hold it, an event for one role only to that role.

Invariants: publishing never waits for a peer; the payload is encoded once per dialect, not once per connection; a
listener that fails does not keep the others from hearing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import attrs
import msgspec
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.frames import encode_event
from openclaw_gateway.protocol.scopes import satisfies

__all__ = ["EventBus", "Listener", "OutgoingEvent"]

log = get_logger("events")


@attrs.define(eq=False)
class OutgoingEvent:
    """One event on its way. ``body`` is the OpenClaw frame without ``seq``; other dialects read ``payload`` (encoded
    JSON). ``shared`` is what each dialect made of it for the first connection that speaks it, under the dialect's name.
    """

    name: str
    payload: msgspec.Raw
    body: bytes
    scope: str | None
    role: str | None
    droppable: bool
    numbered: bool
    state_version: dict[str, int] | None = None
    shared: dict[str, bytes | memoryview] = attrs.field(factory=dict)
    leads: dict[int, bytes] = attrs.field(factory=dict)  # of small ones: all but the number, by the number's length

    def may_hear(self, role: str, scopes: frozenset[str]) -> bool:
        if self.role is not None and role != self.role:
            return False
        return self.scope is None or (role == "operator" and satisfies(scopes, self.scope))


class Listener(Protocol):
    @property
    def role(self) -> str: ...
    @property
    def scopes(self) -> frozenset[str]: ...
    def offer(self, event: OutgoingEvent) -> bool: ...


@attrs.define(eq=False)
class _Subscription:
    names: frozenset[str]
    channel: trio.MemorySendChannel[tuple[str, Any]]
    missed: int = 0


class EventBus:
    def __init__(self) -> None:
        self._listeners: dict[Listener, None] = {}
        self._subscriptions: set[_Subscription] = set()
        self.names: dict[str, None] = {}
        self.on_gone: list[Callable[[Listener], None]] = []  # told of each listener that left

    def declare(self, names: Iterable[str]) -> None:
        """Name events that this gateway may send; they appear in ``hello-ok.features.events``."""
        self.names.update(dict.fromkeys(names))

    def add(self, listener: Listener) -> None:
        self._listeners[listener] = None

    def discard(self, listener: Listener) -> None:
        if listener in self._listeners:
            del self._listeners[listener]
            for tell in self.on_gone:
                tell(listener)

    def publish_nowait(
        self,
        event: str,
        payload: Any,
        *,
        scope: str | None = "operator.read",
        role: str | None = None,
        droppable: bool = False,
        numbered: bool = True,
        state_version: dict[str, int] | None = None,
        only: Iterable[Listener] | None = None,
        hears: Callable[[Listener], bool] | None = None,
    ) -> int:
        """Offer an event to all (or to ``only`` these) listeners that may hear it; returns how many took it.

        ``droppable`` events are the first to be left out for a peer that reads slowly. ``numbered=False`` leaves out
        ``seq``: for what is meant for one peer alone. ``hears`` says no to listeners that must not learn of it although
        they hold the scope. Raises `TypeError` where ``payload`` cannot be JSON.
        """
        outgoing = make_event(
            event, payload, scope=scope, role=role, droppable=droppable, numbered=numbered, state_version=state_version
        )
        taken = 0
        for listener in tuple(self._listeners if only is None else only):
            try:
                if not outgoing.may_hear(listener.role, listener.scopes) or (hears is not None and not hears(listener)):
                    continue
                if listener.offer(outgoing):
                    taken += 1
            except Exception as exc:
                log.exception("listener failed", exc=exc, event_name=event)
        if only is None:
            self._tell_subscribers(event, payload)
        return taken

    async def publish(self, event: str, payload: Any, *, scope: str = "operator.read", droppable: bool = False) -> int:
        """`publish_nowait` and a checkpoint, so that a loop that publishes lets others run."""
        taken = self.publish_nowait(event, payload, scope=scope, droppable=droppable)
        await trio.lowlevel.checkpoint()
        return taken

    def _tell_subscribers(self, event: str, payload: Any) -> None:
        for subscription in self._subscriptions:
            if not subscription.names or event in subscription.names:
                try:
                    subscription.channel.send_nowait((event, payload))
                except trio.WouldBlock:
                    subscription.missed += 1
                except trio.BrokenResourceError:
                    pass  # its reader closed the channel and is on its way out

    @asynccontextmanager
    async def subscribe(
        self, *names: str, capacity: int = 256
    ) -> AsyncIterator[trio.MemoryReceiveChannel[tuple[str, Any]]]:
        """Hear events in this process: ``async with bus.subscribe("presence") as events: async for name, payload in
        events``.

        Without names: all. Over ``capacity`` unread events the newest are left out.
        """
        send, receive = trio.open_memory_channel[tuple[str, Any]](capacity)
        subscription = _Subscription(frozenset(names), send)
        self._subscriptions.add(subscription)
        try:
            async with receive:
                yield receive
        finally:
            self._subscriptions.discard(subscription)
            send.close()


def make_event(
    event: str,
    payload: Any,
    *,
    scope: str | None = None,
    role: str | None = None,
    droppable: bool = False,
    numbered: bool = True,
    state_version: dict[str, int] | None = None,
) -> OutgoingEvent:
    raw = payload if isinstance(payload, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(payload))
    body = encode_event(event, raw, state_version=state_version)
    return OutgoingEvent(event, raw, body, scope, role, droppable, numbered, state_version)
