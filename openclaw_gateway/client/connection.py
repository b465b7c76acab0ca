"""The live connection: calls out, answers and events in, a watchdog on silence.

Owns the tasks of one connection (one reads, one watches) and what waits for answers. It must not know what a method
means, how it was let in (`client.opening`), or how frames travel (`client.link`). Invariants: at most `MAX_CALLS` calls
wait at once and at most `MAX_EVENTS` events are kept, the oldest giving way (counted in `ClientEvent.gap`); whatever
ends the connection, every waiting call ends with it.

Cancellation: a call that is cancelled gives up its answer; of its frame `client.link` says what becomes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

import attrs
import trio

from openclaw_gateway.client.errors import CallTimedOut, ClientClosed
from openclaw_gateway.client.handshake import Hello
from openclaw_gateway.client.link import GOODBYE_SECONDS, FrameLink
from openclaw_gateway.client.speech import Frame
from openclaw_gateway.errors import CallFailed, LocalProtocolError
from openclaw_gateway.protocol.close import CloseCode

__all__ = ["MAX_CALLS", "MAX_EVENTS", "ClientEvent", "GatewayClient"]

MAX_CALLS: Final = 1024
MAX_EVENTS: Final = 1024


@attrs.frozen
class ClientEvent:
    """One event. ``gap``: how many events before this one were lost, on the way or because nobody took them in time."""

    name: str
    payload: Any
    seq: int | None = None
    gap: int = 0


@attrs.define
class _Waiting:
    done: trio.Event = attrs.field(factory=trio.Event)
    frame: Frame | None = None


class GatewayClient:
    """Made by `open_client`. Safe to use from several tasks of one Trio run."""

    def __init__(self, link: FrameLink, hello: Hello) -> None:
        self._link = link
        self._hello = hello
        self._pending: dict[str, _Waiting] = {}
        self._next_id = 0
        self._events: deque[ClientEvent] = deque()
        self._lost = 0
        self._seq: int | None = None
        self._wake = trio.Event()
        link.on_end = self._wake_all

    @property
    def hello(self) -> Hello:
        return self._hello

    @property
    def secure(self) -> bool:
        """Whether everything but the greeting travels end-to-end encrypted inside the WebSocket."""
        return self._link.secure

    @property
    def closed(self) -> ClientClosed | None:
        """Why the connection ended, None while it lives."""
        return self._link.closed

    async def call(self, method: str, params: object = None, *, timeout: float | None = 30.0) -> Any:
        """Send one request and wait for its answer: the decoded ``payload``.

        ``params``: anything msgspec can encode as a JSON object, None for none; ``timeout``: seconds, None waits for
        ever. Raises `CallFailed` (the gateway's error), `CallTimedOut`, `ClientClosed`, `LocalProtocolError` (over
        `MAX_CALLS`). Cancelled, the answer is given up; the gateway may carry out the request all the same."""
        if self._link.closed is not None:
            raise self._link.closed
        if len(self._pending) >= MAX_CALLS:
            raise LocalProtocolError(f"more than {MAX_CALLS} calls wait for answers on this connection")
        self._next_id += 1
        id_ = str(self._next_id)
        encoded = self._link.speech.request(id_, method, params)
        waiting = self._pending[id_] = _Waiting()
        try:
            with trio.move_on_after(math.inf if timeout is None else timeout):
                await self._link.send(encoded)
                await waiting.done.wait()
        finally:
            del self._pending[id_]
        frame = waiting.frame
        if frame is None:
            if self._link.closed is not None:
                raise self._link.closed
            raise CallTimedOut(method, timeout or 0.0)
        if frame.ok:
            return frame.payload
        raise _call_failed(frame.error or {})

    async def events(self) -> AsyncIterator[ClientEvent]:
        """The events as they come, for one task at a time. Ends when we closed; raises `ClientClosed` when others
        did."""
        while True:
            while self._events:
                yield self._events.popleft()
            if self._link.closed is not None:
                if self._link.closed.by_us:
                    return
                raise self._link.closed
            await self._wake.wait()

    async def wait_closed(self) -> ClientClosed:
        """Wait until the connection has ended, and say why."""
        while self._link.closed is None:
            await self._wake.wait()
        return self._link.closed

    # --- used by open_client

    def attend(self, nursery: trio.Nursery) -> None:
        """Start what the connection lives on: tasks that end with ``nursery`` at the latest."""
        nursery.start_soon(self._read)
        nursery.start_soon(self._watch)
        nursery.start_soon(self._close_when_over)

    def _wake_all(self) -> None:
        for waiting in self._pending.values():
            waiting.done.set()
        self._wake.set()

    async def _read(self) -> None:
        """One task for the life of the connection. Never waits for those who use what it reads."""
        try:
            while True:
                self._take(await self._link.receive())
        except ClientClosed as error:
            self._link.end(error)

    def _take(self, frame: Frame) -> None:
        if frame.type == "res":
            waiting = self._pending.get(frame.id or "")
            if waiting is not None:
                waiting.frame = frame
                waiting.done.set()
            return
        if frame.type != "event" or frame.event is None:
            return
        if frame.seq is not None:
            if self._seq is not None and frame.seq > self._seq + 1:
                self._lost += frame.seq - self._seq - 1
            self._seq = frame.seq
        if frame.event == "tick":
            return  # news only for the watchdog
        if len(self._events) >= MAX_EVENTS:
            oldest = self._events.popleft()
            following = self._events[0]
            self._events[0] = attrs.evolve(following, gap=following.gap + oldest.gap + 1)
        self._events.append(ClientEvent(frame.event, frame.payload, frame.seq, self._lost))
        self._lost = 0
        self._wake.set()
        self._wake = trio.Event()

    async def _watch(self) -> None:
        """Ends a connection that has been silent for two tick intervals (close code 4000, spec wire.md section 1)."""
        patience = 2 * self.hello.tick_interval_ms / 1000
        while self._link.closed is None:
            await trio.sleep_until(self._link.heard + patience)
            if trio.current_time() >= self._link.heard + patience:
                self._link.end(ClientClosed(CloseCode.TICK_TIMEOUT, "tick timeout"))

    async def _close_when_over(self) -> None:
        """Carries out what was decided: a watchdog's verdict must reach the wire too."""
        why = await self.wait_closed()
        if why.code in {CloseCode.TICK_TIMEOUT, CloseCode.PROTOCOL_ERROR}:
            with trio.move_on_after(GOODBYE_SECONDS):
                await self._link.close(why.code, why.reason)


def _call_failed(error: dict[str, Any]) -> CallFailed:
    details, after = error.get("details"), error.get("retryAfterMs")
    return CallFailed(
        code=str(error.get("code", "")),
        message=str(error.get("message", "")),
        details=details if isinstance(details, dict) else None,
        retryable=error.get("retryable") is True,
        retry_after_ms=after if isinstance(after, int) else None,
    )
