"""One WebSocket connection from the 101 to the last byte: answers, events, and one exit path.

Owns the life of a connection (checklist S044-S051). It must not know how frames become messages (`server.reader`), how
a peer is admitted (`server.handshake`, `server.gatekeeper`), how its calls are carried out (`server.calls`, `rpc`), or
how bytes leave (`server.writer`).

Invariants: every wait before admission has a deadline (rule 8); whatever ends the connection, `_leave` then `_goodbye`
run once, in this order (rule 9); an exception in here ends this connection and no other (rule 5).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import trio

from openclaw_gateway.events.bus import OutgoingEvent
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.protocol import jsonrpc
from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.protocol.errors import WireError, hinted, wire_error
from openclaw_gateway.server.calls import Calls
from openclaw_gateway.server.closing import CloseScope
from openclaw_gateway.server.core import ServerCore
from openclaw_gateway.server.dialect import OPENCLAW, Dialect, event_frame, event_parts
from openclaw_gateway.server.frames import close_frame, id_of_oversized
from openclaw_gateway.server.gatekeeper import Grant, TransportCredential
from openclaw_gateway.server.handshake import PRE_AUTH_BYTES, Handshake
from openclaw_gateway.server.reader import Reader
from openclaw_gateway.server.recording import record_channel
from openclaw_gateway.server.secure import ChannelFault, SecureLink
from openclaw_gateway.server.wire import Wire
from openclaw_gateway.server.writer import Writer

__all__ = ["Session"]

GOODBYE_SECONDS: Final = 2.0
CUT_SECONDS: Final = 0.8  # the same where authority was taken back: all is over within a second (AUTH-5)

log = get_logger("session")


class Session:
    """One connection. Also the `CallContext` of its calls and the `Listener` of its events."""

    __slots__ = (
        "_core",
        "_dialect",
        "_handshake",
        "_inner",
        "_reader",
        "_secure",
        "_tasks",
        "_wrap",
        "calls",
        "conn_id",
        "dialect",
        "grant",
        "moved_at",
        "opened_at",
        "peer",
        "ping_at",
        "ping_mark",
        "pong_by",
        "progress",
        "role",
        "scope",
        "scopes",
        "wire",
        "writer",
    )

    def __init__(
        self, core: ServerCore, wire: Wire, peer: Peer, credential: TransportCredential, *, conn_id: str, nonce: str,
        dialect: Dialect = OPENCLAW,
    ) -> None:  # fmt: skip
        self._core = core
        self.wire = wire
        self.peer = peer
        self.conn_id = conn_id
        self.opened_at = monotonic()
        self.scope = CloseScope()
        self._tasks: trio.Nursery | None = None
        self.writer = Writer(
            wire,
            budget=core.limits.max_buffered_bytes,
            spawn=self.spawn,
            on_overflow=self._slow_consumer,
            on_broken=self._broken,
        )
        self.grant: Grant | None = None
        self.role = ""
        self.scopes: frozenset[str] = frozenset()
        self._dialect = dialect
        self.dialect = dialect.name  # until the first frame says that it is JSON-RPC
        self.calls = Calls(self, core, dialect)
        self._handshake = Handshake(self, core, credential, dialect, nonce=nonce)
        self._reader = Reader(
            wire,
            self.writer,
            self.scope,
            limit=PRE_AUTH_BYTES,
            on_message=self._handshake.message,
            on_pong=self._ponged,
            on_too_big=self._too_big,
            logger=core.frame_logger,
        )
        self._secure: SecureLink | None = None  # from a greeting on
        self._inner = self._reader.on_message  # who takes what comes out of the secure channel
        self._wrap: Callable[[bytes], bytes] = dialect.wrap  # a body as the frame in which it leaves
        self.ping_at = 0.0  # fields of server.heartbeat
        self.ping_mark: int | None = None
        self.pong_by: float | None = None
        self.progress = (0, 0)
        self.moved_at = self.opened_at

    # --- what calls and events need to know

    @property
    def principal(self) -> str:
        return self.grant.principal if self.grant is not None else ""

    @property
    def client_id(self) -> str:
        return self.grant.params.client.id if self.grant is not None else ""

    @property
    def auth_method(self) -> str:
        return self.grant.method if self.grant is not None else ""

    @property
    def device_id(self) -> str | None:
        return self.grant.device_id if self.grant is not None else None

    @property
    def client_address(self) -> str:
        return self.peer.client_address

    @property
    def secure(self) -> bool:
        """Whether all that is said here travels through an end-to-end encrypted channel."""
        return self._secure is not None and self._secure.ready

    @property
    def received(self) -> int:
        """Bytes so far; the watchdog reads it as a sign of life."""
        return self._reader.received

    @property
    def connected_for(self) -> float:
        """Seconds since the upgrade."""
        return monotonic() - self.opened_at

    # --- life

    async def run(self, switching: bytes, trailing: bytes) -> None:
        """Serve the connection to its end. ``switching`` is the 101 head, ``trailing`` what came behind the upgrade
        request.

        Never raises but `trio.Cancelled`. A cancellation from outside still flushes a Close frame within
        `GOODBYE_SECONDS`.
        """
        core = self._core
        core.registry.add(self)
        async with trio.open_nursery() as tasks:
            self._tasks = tasks
            try:
                with self.scope:
                    self.scope.close_at(trio.current_time() + core.limits.handshake_seconds, Close(CloseCode.NORMAL))
                    self._handshake.greet(switching)
                    await self._barrier(trailing)
            finally:
                self._leave()
                cut = self.scope.cause is not None and self.scope.cause.close.code is CloseCode.DEVICE_REMOVED
                with trio.move_on_after(CUT_SECONDS if cut else GOODBYE_SECONDS, shield=True):
                    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await self._goodbye()  # a peer that resets instead of reading it has gone, no more
                self.wire.abort()
                tasks.cancel_scope.cancel()

    async def _barrier(self, trailing: bytes) -> None:
        try:
            await self._reader.run(trailing)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._broken()
        except Exception as exc:
            log.exception("connection failed", exc=exc, conn_id=self.conn_id)
            self.scope.close(CloseCode.INTERNAL_ERROR, "internal error")

    def _too_big(self, data: bytes) -> None:
        """Answer with the request's id where it can be read, then 1009 (C13, WS-1). Strangers are told nothing."""
        if self.grant is None:
            self.scope.close(CloseCode.TOO_BIG)
            return
        error = wire_error("too-big", limit=self._core.limits.max_payload)
        id_ = id_of_oversized(data, self._core.limits.max_payload, self._dialect.find_id)
        if id_ is not None:
            self.reply_error(id_, error)
        self.scope.close(CloseCode.TOO_BIG, error.message)

    # --- the secure channel: only for those who greeted

    def _sealed_message(self, data: bytes) -> None:
        assert self._secure is not None
        limit = self._core.limits.max_payload if self.grant is not None else PRE_AUTH_BYTES
        try:
            frame = self._secure.open(data, limit=limit)
        except ChannelFault as fault:
            if fault.too_big:
                self._too_big(b"")
            else:
                self.channel_fault(fault)
        else:
            self._inner(frame)

    def channel_fault(self, fault: ChannelFault) -> None:
        """Forged, replayed, cut, or meant for another key: nothing after it can be believed."""
        log.warning("secure channel refused", reason=str(fault), peer=self.peer.client_address, conn_id=self.conn_id)
        record_channel(self._core.audit, self, str(fault), CloseCode.POLICY)
        self.scope.close(CloseCode.POLICY, f"secure channel: {fault}")

    # --- what the handshake decides

    def seal(self, link: SecureLink) -> None:
        """Let everything from here on, in both directions, go through ``link``."""
        self._secure = link
        self._wrap = link.wrap
        self._reader.on_message = self._sealed_message

    def open(self, grant: Grant) -> None:
        """Be admitted: from here on calls are taken. Synchronous, so that nothing comes between verdict and session."""
        core = self._core
        self.grant, self.role, self.scopes = grant, grant.role, frozenset(grant.scopes)
        self.scope.keep_open()
        self.calls.allow()
        self._inner = self.calls.jsonrpc_message if self.dialect == "jsonrpc" else self.calls.openclaw_message
        if self._secure is None:
            self._reader.on_message = self._inner
            self._reader.accept(core.limits.max_payload)
        else:
            self._reader.accept(self._secure.sealed_size(core.limits.max_payload))
        core.registry.admitted(self)
        self.wire.leave_to_watchdog()

    def deliver(self, data: bytes) -> None:
        """Take a message that waited while the connection was being admitted."""
        self._inner(data)

    # --- answers

    def answer(self, body: bytes) -> None:
        """Queue ``body`` as the frame in which it leaves; whoever has no more to say flushes."""
        self.writer.push(self._wrap(body))

    def reply(self, id_: jsonrpc.Id, payload: Any) -> None:
        """The answer to ``connect``."""
        if self.dialect == "jsonrpc":
            self.writer.push(self._wrap(jsonrpc.encode_result(id_, payload)))
        else:
            self.writer.push(self._wrap(self._dialect.ok(str(id_), "connect", payload)))
        self.writer.flush()

    def reply_error(self, id_: jsonrpc.Id, error: WireError) -> None:
        if self.grant is None:
            error = hinted(error)  # whoever is turned away hears what to do next (AUTH-2)
        if self.dialect == "jsonrpc":
            self.writer.push(self._wrap(jsonrpc.encode_error(id_, error)))
        else:
            self.writer.push(self._wrap(self._dialect.error(str(id_), error.to_wire())))

    # --- events

    def offer(self, event: OutgoingEvent) -> bool:
        """Queue an event if there is room; ``seq`` is given only to what is queued (WS-3)."""
        writer = self.writer
        if self.grant is None or not writer.has_room(droppable=event.droppable):
            return False
        if event.numbered:
            writer.seq += 1
        seq = writer.seq if event.numbered else None
        if self._secure is None:
            writer.send(event_frame(self._dialect, self.dialect, event, seq))
        else:  # sealed for one peer: these bytes can be nobody else's
            writer.send(self._wrap(b"".join(event_parts(self._dialect, self.dialect, event, seq))))
        return not self.scope.closing

    def _ponged(self) -> None:
        self.ping_mark = self.pong_by = None

    def ping(self) -> int:
        """Queue a ping with an empty payload; returns the writer's mark at which it has been flushed."""
        self.writer.push(b"\x89\x00")
        self.writer.flush()
        return self.writer.queued

    # --- the end

    def cut(self, code: CloseCode, reason: str, *, keep_answers: bool = False) -> None:
        """End the connection now: running calls are cancelled, and of what was answered but has not begun to leave
        nothing leaves but the Close frame (AUTH-5). Synchronous, harmless when repeated.
        """
        self.scope.close(code, reason)
        self.calls.cancel()
        cause = self.scope.cause
        if cause is not None and not cause.abrupt:
            self.writer.finish(close_frame(cause.close), keep_pending=keep_answers)

    def disarm(self) -> None:
        """Take no further calls: the connection is about to end behind an answer that it is owed."""
        self.calls.disarm()

    def close_when_answered(self, code: CloseCode, reason: str) -> None:
        """End the connection behind the answer to the call that runs now; only for that call's own handler, when
        nothing waits any more between it and the answer.
        """
        self.calls.close_when_answered(code, reason)

    def spawn(self, task: Any, *args: Any) -> None:
        """Run a task that ends with the connection. Only between the 101 and the end."""
        assert self._tasks is not None
        self._tasks.start_soon(task, *args)

    def _slow_consumer(self) -> None:
        self.scope.close(CloseCode.POLICY, "slow consumer")

    def _broken(self) -> None:
        self.scope.close(CloseCode.ABNORMAL, "connection lost", by_peer=True, abrupt=True)

    def _leave(self) -> None:
        """Everything that must not outlive the connection; synchronous, so no cancellation can come in between."""
        self.calls.cancel()
        self._core.registry.remove(self)
        self._core.left(self)

    async def _goodbye(self) -> None:
        """Flush the Close frame, then let the peer read it: reading goes on (and away) until it hangs up."""
        cause = self.scope.cause
        assert cause is not None
        if cause.abrupt:
            return
        last = self._reader.echo or close_frame(cause.close)
        self.writer.finish(last, keep_pending=cause.close.reason != "slow consumer")
        await self.writer.wait_drained()
        await self.wire.send_eof()
        while await self.wire.receive_some():
            pass
