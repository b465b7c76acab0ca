"""One WebSocket connection from the 101 to the last byte: reader, handshake, dialects, calls, and one exit path.

Owns the life of a connection (checklist S024-S026, S044-S051). It drives `websockets`' sans-IO protocol straight from
the stream, one receive at a time (design.md, ground truths). It must not know how admission is decided
(`server.gatekeeper`), what methods mean (`rpc`), or how bytes leave (`server.writer`).

Invariants: the reader never waits for the application, so pings, pongs and closes always flow (design rule 6); every
wait before admission has a deadline (rule 8); whatever ends the connection, `_leave` then `_goodbye` run once, in this
order (rule 9); an exception in here ends this connection and no other (rule 5).

The sans-IO core yields frames. Joining fragments and UTF-8 over a whole message are done here; the size cap over a
whole message is the core's ``max_size``.
"""

from __future__ import annotations

import codecs
import contextlib
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final

import msgspec
import trio
from websockets.exceptions import PayloadTooBig
from websockets.frames import Close as CloseFrame
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.events.bus import OutgoingEvent
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.network import beyond_ceiling, under_ceiling
from openclaw_gateway.protocol import jsonrpc
from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.protocol.connect import bearer_params
from openclaw_gateway.protocol.device import Challenge
from openclaw_gateway.protocol.errors import WireError, hinted, wire_error
from openclaw_gateway.protocol.frames import FrameFault
from openclaw_gateway.rpc.table import CallError, MethodSpec
from openclaw_gateway.server.closing import CloseScope
from openclaw_gateway.server.core import ServerCore
from openclaw_gateway.server.dialect import OPENCLAW, Dialect, event_frame, event_parts
from openclaw_gateway.server.gatekeeper import Grant, Rejection, TransportCredential
from openclaw_gateway.server.recording import record_channel
from openclaw_gateway.server.secure import GREETINGS, OFFER, ChannelFault, SecureDoor, SecureLink
from openclaw_gateway.server.wire import Wire
from openclaw_gateway.server.writer import Writer

__all__ = ["Session"]

PRE_AUTH_BYTES: Final = 64 * 1024
MAX_PARKED: Final = 15  # requests that may wait behind a connect that is being decided
MAX_PARKED_BYTES: Final = 128 * 1024  # all of them: times 512 strangers this is what a flood can make us hold
MAX_RUNNING: Final = 64  # calls in flight per connection that need a task
MAX_WRONG_ROLE: Final = 10
GOODBYE_SECONDS: Final = 2.0
CUT_SECONDS: Final = 0.8  # the same where authority was taken back: all is over within a second (AUTH-5)

TEXT, BINARY, CONT, PONG = Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PONG
log = get_logger("session")


class Session:
    """One connection. Also the `CallContext` of its calls and the `Listener` of its events."""

    __slots__ = (
        "_admitting",
        "_core",
        "_credential",
        "_dialect",
        "_farewell",
        "_fragments",
        "_fragments_text",
        "_inner",
        "_last",
        "_methods",
        "_on_message",
        "_parked",
        "_protocol",
        "_running",
        "_secure",
        "_tasks",
        "_utf8",
        "_wrap",
        "_wrong_role",
        "challenge",
        "challenge_sent",
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
        "received",
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
        self._credential = credential
        self.conn_id = conn_id
        self.challenge = Challenge(nonce=nonce, ts_ms=core.now_ms())
        self.challenge_sent = monotonic()
        self._protocol = Protocol(SERVER, state=OPEN, max_size=PRE_AUTH_BYTES, logger=core.frame_logger)
        self.scope = CloseScope()
        self._tasks: trio.Nursery | None = None
        self.writer = Writer(
            wire,
            budget=core.limits.max_buffered_bytes,
            spawn=self._spawn,
            on_overflow=self._slow_consumer,
            on_broken=self._broken,
        )
        self.grant: Grant | None = None
        self.role = ""
        self.scopes: frozenset[str] = frozenset()
        self._dialect = dialect
        self.dialect = dialect.name  # until the first frame says that it is JSON-RPC
        self._methods: Mapping[str, MethodSpec] = {}
        self._on_message = self._handshake_message
        self._secure: SecureLink | None = None  # from a greeting on
        self._inner = self._on_message  # who takes what comes out of the secure channel
        self._wrap: Callable[[bytes], bytes] = dialect.wrap  # a body as the frame in which it leaves
        self._admitting = False
        self._parked: list[bytes] = []
        self._running: set[trio.CancelScope] = set()
        self._farewell: Close | None = None  # the connection ends with it after the answer that is due
        self._wrong_role = 0
        self._fragments: bytearray | None = None
        self._fragments_text = False
        self._utf8: codecs.IncrementalDecoder | None = None
        self._last = b""  # the Close frame that the sans-IO core wrote as an echo
        self.opened_at = self.challenge_sent
        self.received = 0  # bytes; the watchdog reads it as a sign of life
        self.ping_at = 0.0  # fields of server.heartbeat
        self.ping_mark: int | None = None
        self.pong_by: float | None = None
        self.progress = (0, 0)
        self.moved_at = self.challenge_sent

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
                    self._greet(switching)
                    await self._barrier(trailing)
            finally:
                self._leave()
                cut = self.scope.cause is not None and self.scope.cause.close.code is CloseCode.DEVICE_REMOVED
                with trio.move_on_after(CUT_SECONDS if cut else GOODBYE_SECONDS, shield=True):
                    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await self._goodbye()  # a peer that resets instead of reading it has gone, no more
                self.wire.abort()
                tasks.cancel_scope.cancel()

    def _greet(self, switching: bytes) -> None:
        """The 101 and the challenge in one flush (PROTO-2)."""
        payload: dict[str, Any] = {"nonce": self.challenge.nonce, "ts": self.challenge.ts_ms}
        if self._core.secure is not None and self._core.secure.offered and self._dialect is OPENCLAW:
            payload["secureChannel"] = OFFER
        self.writer.push(switching + self._wrap(self._dialect.greeting("connect.challenge", payload)))
        self.writer.flush()

    async def _barrier(self, trailing: bytes) -> None:
        try:
            await self._read(trailing)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._broken()
        except Exception as exc:
            log.exception("connection failed", exc=exc, conn_id=self.conn_id)
            self.scope.close(CloseCode.INTERNAL_ERROR, "internal error")

    async def _read(self, data: bytes) -> None:
        protocol, writer, receive = self._protocol, self.writer, self.wire.receive_some
        if not data:
            data = await receive()
        while data:
            if self.scope.cause is not None:
                return  # what came in the moment in which the connection was given up is not carried out any more
            self.received += len(data)
            at_boundary = not protocol.reader.buffer
            protocol.receive_data(data)
            for frame in protocol.events_received():
                self._frame(frame)  # type: ignore[arg-type]
                if self.scope.closing:
                    return
            if protocol.writes:
                control = b"".join(protocol.data_to_send())
                if protocol.state is not OPEN:
                    self._protocol_ended(control, data if at_boundary else b"")
                    return
                writer.push(control)
            writer.flush()
            data = await receive()
        self.scope.close(CloseCode.ABNORMAL, "connection lost", by_peer=True, abrupt=True)

    def _protocol_ended(self, control: bytes, data: bytes) -> None:
        """The peer said Close (echo it as it came) or broke the protocol (say so in our words)."""
        protocol = self._protocol
        if protocol.parser_exc is None:
            received = protocol.close_rcvd
            self._last = control
            code = received.code if received is not None else CloseCode.NO_STATUS
            reason = received.reason if received is not None else ""
            self.scope.close(_known(code), reason, by_peer=True)
        elif isinstance(protocol.parser_exc, PayloadTooBig):
            self._too_big(data)
        else:
            code = protocol.close_sent.code if protocol.close_sent is not None else CloseCode.PROTOCOL_ERROR
            self.scope.close(_known(code), str(protocol.parser_exc))

    def _too_big(self, data: bytes) -> None:
        """Answer with the request's id where it can be read, then 1009 (C13, WS-1). Strangers are told nothing."""
        if self.grant is None:
            self.scope.close(CloseCode.TOO_BIG)
            return
        error = wire_error("too-big", limit=self._core.limits.max_payload)
        id_ = _id_of_oversized(data, self._core.limits.max_payload, self._dialect.find_id)
        if id_ is not None:
            self._reply_error(id_, error)
        self.scope.close(CloseCode.TOO_BIG, error.message)

    # --- frames

    def _frame(self, frame: Frame) -> None:
        opcode = frame.opcode
        if opcode is TEXT or opcode is BINARY:
            if frame.fin:
                data = bytes(frame.data)  # the same object where it is bytes already
                if opcode is TEXT and not data.isascii() and not _is_utf8(data):
                    self.scope.close(CloseCode.INVALID_DATA, "text is not UTF-8")
                    return
                self._on_message(data)
            else:
                self._fragments = bytearray()
                self._fragments_text = opcode is TEXT
                self._utf8 = codecs.getincrementaldecoder("utf-8")() if self._fragments_text else None
                self._fragment(frame)
        elif opcode is CONT:
            self._fragment(frame)
        elif opcode is PONG:
            self.ping_mark = self.pong_by = None

    def _fragment(self, frame: Frame) -> None:
        assert self._fragments is not None
        self._fragments += frame.data
        if self._utf8 is not None:
            try:
                self._utf8.decode(bytes(frame.data), frame.fin)
            except UnicodeDecodeError:
                self.scope.close(CloseCode.INVALID_DATA, "text is not UTF-8")
                return
        if frame.fin:
            data, self._fragments, self._utf8 = bytes(self._fragments), None, None
            self._on_message(data)

    # --- handshake

    def _handshake_message(self, data: bytes) -> None:
        if self._admitting:
            waiting = sum(map(len, self._parked)) + len(data)
            if len(self._parked) >= MAX_PARKED or waiting > MAX_PARKED_BYTES:
                self.scope.close(CloseCode.POLICY, "too many pending handshake frames")
            else:
                self._parked.append(data)
            return
        door = self._core.secure if self._dialect is OPENCLAW else None
        if door is not None and (door.offered and data[:1] in GREETINGS if self._secure is None else not self.secure):
            self._greet_securely(door, data)
            return
        if self._dialect is OPENCLAW and jsonrpc.sniff(data) == "jsonrpc":
            self._jsonrpc_first(data)
            return
        request = self._dialect.decode(data, PRE_AUTH_BYTES)
        if isinstance(request, FrameFault):
            if request.fatal is not None:
                self.scope.close(request.fatal, request.fault)
            elif request.json:
                self.scope.close(CloseCode.POLICY, "invalid request frame")
            else:
                self.scope.close(CloseCode.NORMAL)
        elif request.method != "connect":
            error = wire_error("first-not-connect")
            self._reply_error(request.id, error)
            self.scope.close(CloseCode.POLICY, error.message)
        else:
            self._admit_in_background(request.id, request.params)

    # --- the secure channel: only for those who greet

    def _greet_securely(self, door: SecureDoor, data: bytes) -> None:
        try:
            if self._secure is None:
                self._secure = door.begin(self.challenge)
            answer = self._secure.greet(data)
        except (GatewayError, OSError) as exc:
            log.error("secure channel: the gateway's key cannot be used", error=str(exc), conn_id=self.conn_id)
            self.scope.close(CloseCode.INTERNAL_ERROR, "internal error")
            return
        except ChannelFault as fault:
            self._channel_fault(fault)
            return
        if answer is not None:
            self.writer.push(answer)
        if self._secure.ready:
            self.challenge = self._secure.bind(self.challenge)
            self._wrap = self._secure.wrap
            self._on_message = self._sealed_message

    def _sealed_message(self, data: bytes) -> None:
        assert self._secure is not None
        limit = self._core.limits.max_payload if self.grant is not None else PRE_AUTH_BYTES
        try:
            frame = self._secure.open(data, limit=limit)
        except ChannelFault as fault:
            if fault.too_big:
                self._too_big(b"")
            else:
                self._channel_fault(fault)
        else:
            self._inner(frame)

    def _channel_fault(self, fault: ChannelFault) -> None:
        """Forged, replayed, cut, or meant for another key: nothing after it can be believed."""
        log.warning("secure channel refused", reason=str(fault), peer=self.peer.client_address, conn_id=self.conn_id)
        record_channel(self._core.audit, self, str(fault), CloseCode.POLICY)
        self.scope.close(CloseCode.POLICY, f"secure channel: {fault}")

    def _jsonrpc_first(self, data: bytes) -> None:
        """JSON-RPC: either ``connect`` comes first, or the credential came with the upgrade and any call may."""
        self.dialect = "jsonrpc"
        message = jsonrpc.decode_message(data)
        if isinstance(message, jsonrpc.Call) and message.method == "connect":
            self._admit_in_background(message.id, message.params)
            return
        self._parked.append(data)
        self._admit_in_background(None, None)

    def _admit_in_background(self, id_: jsonrpc.Id, params: msgspec.Raw | None) -> None:
        self._admitting = True
        assert self._tasks is not None
        self._tasks.start_soon(self._admit, id_, params)

    async def _admit(self, id_: jsonrpc.Id, params: msgspec.Raw | None) -> None:
        with trio.CancelScope() as scope:
            self._running.add(scope)
            try:
                core = self._core
                raw = params if params is not None else bearer_params(protocol=4, scopes=core.bearer_scopes)
                verdict = await core.gatekeeper.connect(
                    raw,
                    peer=self.peer,
                    credential=self._credential,
                    challenge=self.challenge,
                    challenge_age=monotonic() - self.challenge_sent,
                    transport=self.dialect,
                    conn_id=self.conn_id,
                    opened_by=self._secure.opened_by if self._secure is not None else None,
                )
                if isinstance(verdict, Rejection):
                    await self._reject(id_, verdict, answered=params is not None)
                else:
                    self._open(id_ if params is not None else None, verdict, hello=params is not None)
            except Exception as exc:
                log.exception("admission failed", exc=exc, conn_id=self.conn_id)
                self.scope.close(CloseCode.INTERNAL_ERROR, "internal error")
            finally:
                self._running.discard(scope)

    async def _reject(self, id_: jsonrpc.Id, verdict: Rejection, *, answered: bool) -> None:
        if verdict.delay:
            self.scope.keep_open()  # the delay is ours; the handshake deadline is the peer's
            await trio.sleep(verdict.delay)
        if answered:
            self._reply_error(id_, verdict.error)
        elif self._parked:
            first = jsonrpc.decode_message(self._parked[0])
            self._reply_error(first.id if isinstance(first, jsonrpc.Call) else None, verdict.error)
        self.scope.close(verdict.close.code, verdict.close.reason)

    def _open(self, id_: jsonrpc.Id, grant: Grant, *, hello: bool) -> None:
        core = self._core
        if self.scope.closing:
            return
        full = core.registry.refuse_admission(self)
        if full is not None:
            if hello:
                self._reply_error(id_, full)
            core.turned_away(self, full)
            self.scope.close(CloseCode.TRY_AGAIN_LATER, full.message)
            return
        self.grant, self.role, self.scopes = grant, grant.role, frozenset(grant.scopes)
        self.scope.keep_open()
        self._methods = under_ceiling(core.table.view(self.role, self.scopes), self.peer.arrival.ceiling)
        self._inner = self._jsonrpc_message if self.dialect == "jsonrpc" else self._openclaw_message
        if self._secure is None:
            self._on_message = self._inner
            self._protocol.max_message_size = core.limits.max_payload
        else:
            self._protocol.max_message_size = self._secure.sealed_size(core.limits.max_payload)
        core.registry.admitted(self)
        self.wire.leave_to_watchdog()
        if hello:
            self._reply(id_, core.hello(self, grant))
        core.joined(self)
        parked, self._parked = self._parked, []
        for data in parked:
            self._inner(data)
            if self.scope.cause is not None:
                break
        self.writer.flush()

    # --- calls

    def _openclaw_message(self, data: bytes) -> None:
        request = self._dialect.decode(data, self._core.limits.max_payload)
        if isinstance(request, FrameFault):
            if request.fatal is CloseCode.TOO_BIG:
                self._reply_error(request.id or "invalid", wire_error("too-big", limit=self._core.limits.max_payload))
            elif request.json:
                self._reply_error(request.id or "invalid", wire_error("invalid-frame", fault=request.fault))
            if request.fatal is not None:
                self.scope.close(request.fatal, request.fault)
            return
        spec = self._methods.get(request.method)
        if spec is not None and spec.inline:
            try:
                payload = self._core.dispatcher.run_inline(spec, self, request.params)
                self.writer.push(self._wrap(self._dialect.ok(request.id, spec.name, payload)))
            except CallError as exc:
                self._reply_error(request.id, exc.error)
            except (TypeError, ValueError, OverflowError) as exc:  # the handler's result cannot be JSON
                self._reply_error(request.id, self._core.dispatcher.unencodable(spec.name, exc))
            return
        self._start_call(request.id, request.method, spec, request.params)

    def _jsonrpc_message(self, data: bytes) -> None:
        message = jsonrpc.decode_message(data)
        if isinstance(message, jsonrpc.Invalid):
            self.writer.push(self._wrap(jsonrpc.encode_invalid(message)))
        elif isinstance(message, jsonrpc.Batch):
            if not self._start(self._run_batch, message):
                self._reply_error(None, wire_error("too-many-calls", limit=MAX_RUNNING))
        elif not self._start(self._run_jsonrpc, message) and not message.notification:
            self._reply_error(message.id, wire_error("too-many-calls", limit=MAX_RUNNING))

    def _start_call(self, id_: str, method: str, spec: MethodSpec | None, params: msgspec.Raw) -> None:
        if spec is None:
            self._reply_error(id_, self._refusal(method))
        elif not self._start(self._run_call, spec, id_, params):
            self._reply_error(id_, wire_error("too-many-calls", limit=MAX_RUNNING))

    def _refusal(self, method: str) -> WireError:
        if not self.peer.arrival.ceiling.allows(method):
            return beyond_ceiling(method, self.peer.arrival)
        error = self._core.table.refusal(method, self.role, self.scopes)
        if error.message.startswith("unauthorized role"):
            self._wrong_role += 1
            if self._wrong_role > MAX_WRONG_ROLE:
                self.scope.close(CloseCode.POLICY, "repeated unauthorized calls")
        return error

    def _start(self, task: Any, *args: Any) -> bool:
        if self._tasks is None or len(self._running) >= MAX_RUNNING:
            return False
        scope = trio.CancelScope()
        self._running.add(scope)
        self._tasks.start_soon(self._in_scope, scope, task, *args)
        return True

    async def _in_scope(self, scope: trio.CancelScope, task: Any, *args: Any) -> None:
        try:
            with scope:
                await task(*args)
        except Exception as exc:
            log.exception("call failed", exc=exc, conn_id=self.conn_id)
            self.scope.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self._running.discard(scope)
        self.writer.flush()
        if self._farewell is not None:
            self.cut(self._farewell.code, self._farewell.reason, keep_answers=True)

    async def _run_call(self, spec: MethodSpec, id_: str, params: msgspec.Raw) -> None:
        try:
            payload = await self._core.dispatcher.run(spec, self, params)
            self.writer.push(self._wrap(self._dialect.ok(id_, spec.name, payload)))
        except CallError as exc:
            self._reply_error(id_, exc.error)
        except (TypeError, ValueError, OverflowError) as exc:
            self._reply_error(id_, self._core.dispatcher.unencodable(spec.name, exc))

    async def _run_jsonrpc(self, call: jsonrpc.Call) -> None:
        reply = await self._answer_jsonrpc(call)
        if reply is not None:
            self.writer.push(self._wrap(reply))

    async def _run_batch(self, batch: jsonrpc.Batch) -> None:
        replies = []
        for item in batch.items:
            if (reply := await self._answer_jsonrpc(item)) is not None:
                replies.append(reply)
            if self._farewell is not None:
                break  # what comes behind it in the batch has lost its authority
        if replies:
            self.writer.push(self._wrap(jsonrpc.encode_batch(replies)))

    async def _answer_jsonrpc(self, call: jsonrpc.Call | jsonrpc.Invalid) -> bytes | None:
        if isinstance(call, jsonrpc.Invalid):
            return jsonrpc.encode_invalid(call)
        try:
            spec = self._methods.get(call.method)
            if spec is None:
                raise CallError(self._refusal(call.method))
            reply = jsonrpc.encode_result(call.id, await self._core.dispatcher.run(spec, self, call.params))
        except CallError as exc:
            reply = jsonrpc.encode_error(call.id, exc.error)
        except (TypeError, ValueError, OverflowError) as exc:
            reply = jsonrpc.encode_error(call.id, self._core.dispatcher.unencodable(call.method, exc))
        return None if call.notification else reply

    def _reply(self, id_: jsonrpc.Id, payload: Any) -> None:
        """The answer to ``connect``."""
        if self.dialect == "jsonrpc":
            self.writer.push(self._wrap(jsonrpc.encode_result(id_, payload)))
        else:
            self.writer.push(self._wrap(self._dialect.ok(str(id_), "connect", payload)))
        self.writer.flush()

    def _reply_error(self, id_: jsonrpc.Id, error: WireError) -> None:
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
        for scope in tuple(self._running):
            scope.cancel()
        cause = self.scope.cause
        if cause is not None and not cause.abrupt:
            self.writer.finish(_close_frame(cause.close), keep_pending=keep_answers)

    def disarm(self) -> None:
        """Take no further calls: the connection is about to end behind an answer that it is owed."""
        self._methods = {}

    def close_when_answered(self, code: CloseCode, reason: str) -> None:
        """End the connection behind the answer to the call that runs now; only for that call's own handler, when
        nothing waits any more between it and the answer.
        """
        self._farewell = Close(code, reason)

    def _spawn(self, task: Any) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(task)

    def _slow_consumer(self) -> None:
        self.scope.close(CloseCode.POLICY, "slow consumer")

    def _broken(self) -> None:
        self.scope.close(CloseCode.ABNORMAL, "connection lost", by_peer=True, abrupt=True)

    def _leave(self) -> None:
        """Everything that must not outlive the connection; synchronous, so no cancellation can come in between."""
        for scope in tuple(self._running):
            scope.cancel()
        self._core.registry.remove(self)
        self._core.left(self)

    async def _goodbye(self) -> None:
        """Flush the Close frame, then let the peer read it: reading goes on (and away) until it hangs up."""
        cause = self.scope.cause
        assert cause is not None
        if cause.abrupt:
            return
        last = self._last or _close_frame(cause.close)
        self.writer.finish(last, keep_pending=cause.close.reason != "slow consumer")
        await self.writer.wait_drained()
        await self.wire.send_eof()
        while await self.wire.receive_some():
            pass


def _close_frame(close: Close) -> bytes:
    return Frame(Opcode.CLOSE, _close_payload(close)).serialize(mask=False)


def _close_payload(close: Close) -> bytes:
    if close.code is CloseCode.NO_STATUS:
        return b""
    return CloseFrame(int(close.code), close.reason).serialize()


def _known(code: int) -> CloseCode:
    """The table's member for a code a peer sent; private codes of clients count as a normal goodbye."""
    try:
        return CloseCode(code)
    except ValueError:
        return CloseCode.NORMAL


def _is_utf8(data: bytes | bytearray | memoryview) -> bool:
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _id_of_oversized(data: bytes, limit: int, find_id: Callable[[bytes], str | None]) -> str | None:
    """The request id at the beginning of a frame over the limit, if ``data`` starts at a frame and holds it."""
    view = memoryview(data)
    while len(view) >= 14:
        size = view[1] & 0x7F
        head = 2
        if size == 126:
            size, head = int.from_bytes(view[2:4], "big"), 4
        elif size == 127:
            size, head = int.from_bytes(view[2:10], "big"), 10
        if size > limit:
            mask, start = bytes(view[head : head + 4]), bytes(view[head + 4 : head + 4 + 2048])
            return find_id(bytes(byte ^ mask[index & 3] for index, byte in enumerate(start)))
        view = view[head + 4 + size :]
    return None
