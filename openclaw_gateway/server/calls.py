"""The calls of one connection: from a request to the answer it is owed.

Owns the calls in flight and their cap, and what a refused method is answered. It must not know how a request came in
or how an answer leaves (`server.session`), nor what a method does (`rpc`).

Invariants: the reader never waits in here (design rule 6): an inline method answers at once, every other has a task,
and over `MAX_RUNNING` it is refused with a retryable error; behind a farewell nothing is carried out any more; an
exception in a call ends its connection and no other (rule 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.network import beyond_ceiling, under_ceiling
from openclaw_gateway.protocol import jsonrpc
from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.protocol.frames import FrameFault
from openclaw_gateway.rpc.table import CallError, MethodSpec
from openclaw_gateway.server.core import ServerCore
from openclaw_gateway.server.dialect import Dialect

if TYPE_CHECKING:
    from openclaw_gateway.server.session import Session

__all__ = ["MAX_RUNNING", "MAX_WRONG_ROLE", "Calls"]

MAX_RUNNING: Final = 64  # calls in flight per connection that need a task
MAX_WRONG_ROLE: Final = 10

log = get_logger("session")


class Calls:
    """``running`` holds what a cut cancels: the scope of each call, and of an admission that is being decided."""

    __slots__ = ("_core", "_dialect", "_farewell", "_methods", "_session", "_wrong_role", "running")

    def __init__(self, session: Session, core: ServerCore, dialect: Dialect) -> None:
        self._session = session
        self._core = core
        self._dialect = dialect
        self._methods: Mapping[str, MethodSpec] = {}
        self._farewell: Close | None = None  # the connection ends with it after the answer that is due
        self._wrong_role = 0
        self.running: set[trio.CancelScope] = set()

    def allow(self) -> None:
        """Take calls from now on: those that the session's role and scopes, and its listener, allow."""
        session = self._session
        view = self._core.table.view(session.role, session.scopes)
        self._methods = under_ceiling(view, session.peer.arrival.ceiling)

    def disarm(self) -> None:
        """Take no further calls: the connection is about to end behind an answer that it is owed."""
        self._methods = {}

    def close_when_answered(self, code: CloseCode, reason: str) -> None:
        """End the connection behind the answer to the call that runs now."""
        self._farewell = Close(code, reason)

    def cancel(self) -> None:
        for scope in tuple(self.running):
            scope.cancel()

    # --- what comes in

    def openclaw_message(self, data: bytes) -> None:
        session = self._session
        request = self._dialect.decode(data, self._core.limits.max_payload)
        if isinstance(request, FrameFault):
            if request.fatal is CloseCode.TOO_BIG:
                session.reply_error(request.id or "invalid", wire_error("too-big", limit=self._core.limits.max_payload))
            elif request.json:
                session.reply_error(request.id or "invalid", wire_error("invalid-frame", fault=request.fault))
            if request.fatal is not None:
                session.scope.close(request.fatal, request.fault)
            return
        spec = self._methods.get(request.method)
        if spec is not None and spec.inline:
            try:
                payload = self._core.dispatcher.run_inline(spec, session, request.params)
                session.answer(self._dialect.ok(request.id, spec.name, payload))
            except CallError as exc:
                session.reply_error(request.id, exc.error)
            except (TypeError, ValueError, OverflowError) as exc:  # the handler's result cannot be JSON
                session.reply_error(request.id, self._core.dispatcher.unencodable(spec.name, exc))
            return
        self._start_call(request.id, request.method, spec, request.params)

    def jsonrpc_message(self, data: bytes) -> None:
        session = self._session
        message = jsonrpc.decode_message(data)
        if isinstance(message, jsonrpc.Invalid):
            session.answer(jsonrpc.encode_invalid(message))
        elif isinstance(message, jsonrpc.Batch):
            if not self._start(self._run_batch, message):
                session.reply_error(None, wire_error("too-many-calls", limit=MAX_RUNNING))
        elif not self._start(self._run_jsonrpc, message) and not message.notification:
            session.reply_error(message.id, wire_error("too-many-calls", limit=MAX_RUNNING))

    def _start_call(self, id_: str, method: str, spec: MethodSpec | None, params: msgspec.Raw) -> None:
        if spec is None:
            self._session.reply_error(id_, self._refusal(method))
        elif not self._start(self._run_call, spec, id_, params):
            self._session.reply_error(id_, wire_error("too-many-calls", limit=MAX_RUNNING))

    def _refusal(self, method: str) -> WireError:
        session = self._session
        if not session.peer.arrival.ceiling.allows(method):
            return beyond_ceiling(method, session.peer.arrival)
        error = self._core.table.refusal(method, session.role, session.scopes)
        if error.message.startswith("unauthorized role"):
            self._wrong_role += 1
            if self._wrong_role > MAX_WRONG_ROLE:
                session.scope.close(CloseCode.POLICY, "repeated unauthorized calls")
        return error

    def _start(self, task: Any, *args: Any) -> bool:
        if len(self.running) >= MAX_RUNNING:
            return False
        scope = trio.CancelScope()
        self.running.add(scope)
        self._session.spawn(self._in_scope, scope, task, *args)
        return True

    async def _in_scope(self, scope: trio.CancelScope, task: Any, *args: Any) -> None:
        try:
            with scope:
                await task(*args)
        except Exception as exc:
            log.exception("call failed", exc=exc, conn_id=self._session.conn_id)
            self._session.scope.close(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            self.running.discard(scope)
        self._session.writer.flush()
        if self._farewell is not None:
            self._session.cut(self._farewell.code, self._farewell.reason, keep_answers=True)

    async def _run_call(self, spec: MethodSpec, id_: str, params: msgspec.Raw) -> None:
        try:
            payload = await self._core.dispatcher.run(spec, self._session, params)
            self._session.answer(self._dialect.ok(id_, spec.name, payload))
        except CallError as exc:
            self._session.reply_error(id_, exc.error)
        except (TypeError, ValueError, OverflowError) as exc:
            self._session.reply_error(id_, self._core.dispatcher.unencodable(spec.name, exc))

    async def _run_jsonrpc(self, call: jsonrpc.Call) -> None:
        reply = await self._answer_jsonrpc(call)
        if reply is not None:
            self._session.answer(reply)

    async def _run_batch(self, batch: jsonrpc.Batch) -> None:
        replies = []
        for item in batch.items:
            if (reply := await self._answer_jsonrpc(item)) is not None:
                replies.append(reply)
            if self._farewell is not None:
                break  # what comes behind it in the batch has lost its authority
        if replies:
            self._session.answer(jsonrpc.encode_batch(replies))

    async def _answer_jsonrpc(self, call: jsonrpc.Call | jsonrpc.Invalid) -> bytes | None:
        if isinstance(call, jsonrpc.Invalid):
            return jsonrpc.encode_invalid(call)
        try:
            spec = self._methods.get(call.method)
            if spec is None:
                raise CallError(self._refusal(call.method))
            reply = jsonrpc.encode_result(call.id, await self._core.dispatcher.run(spec, self._session, call.params))
        except CallError as exc:
            reply = jsonrpc.encode_error(call.id, exc.error)
        except (TypeError, ValueError, OverflowError) as exc:
            reply = jsonrpc.encode_error(call.id, self._core.dispatcher.unencodable(call.method, exc))
        return None if call.notification else reply
