"""Running a call: decode its params, hold its limits, turn whatever happens into a payload or a `CallError`.

Owns deadlines, concurrency, idempotency and the crash barrier around handlers (design rules 5 and 6). It must not know
connections or dialects: WebSocket sessions, JSON-RPC and `POST /rpc` all end here, so that no path has weaker checks
than another (V41).

Invariants: a handler's exception never leaves as itself; what leaves is a payload that can be encoded or a `CallError`;
the idempotency table never holds more than `MAX_KEYS` entries, nor one for longer than `KEY_SECONDS` after its answer,
nor answers of more than `MAX_KEPT_CHARS`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from time import perf_counter
from typing import Any, Final

import attrs
import msgspec
import trio

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.errors import FORBIDDEN, WireError, wire_error
from openclaw_gateway.rpc.table import CallContext, CallError, MethodSpec, MethodTable, camel

__all__ = ["Dispatcher", "to_wire"]

MAX_KEYS: Final = 1000
MAX_KEPT_CHARS: Final = 16 * 1024 * 1024  # answers in all; counted by the text at their top, where the big ones have it
KEY_SECONDS: Final = 300.0
_SLOW_INLINE_SECONDS: Final = 0.05

log = get_logger("rpc")


def to_wire(value: Any) -> Any:
    """An attrs instance as an object with camelCase members; everything else as it is."""
    if attrs.has(type(value)):
        return {camel(field.name): to_wire(getattr(value, field.name)) for field in attrs.fields(type(value))}
    if isinstance(value, list | tuple):
        return [to_wire(item) for item in value]
    return value


def _chars(payload: Any) -> int:
    if not isinstance(payload, dict):
        return 0
    return sum(len(value) for value in payload.values() if isinstance(value, str))


@attrs.define(eq=False)
class _Once:
    """One idempotent call: whoever comes second waits for the first one's answer."""

    fingerprint: bytes
    done: trio.Event
    payload: Any = None
    error: CallError | None = None
    expires: float = 0.0
    chars: int = 0


class Dispatcher:
    def __init__(self, table: MethodTable) -> None:
        self.table = table
        self._once: OrderedDict[tuple[str, str, str], _Once] = OrderedDict()
        self._kept_chars = 0

    def run_inline(self, spec: MethodSpec, context: CallContext, raw: msgspec.Raw) -> Any:
        """Run a ``def`` handler now. Raises only `CallError`."""
        started = perf_counter()
        try:
            payload = spec.handler(context, spec.params.read(spec.name, raw))
        except CallError:
            raise
        except Exception as exc:
            raise self._incident(spec, exc) from exc
        took = perf_counter() - started
        if took > _SLOW_INLINE_SECONDS:
            log.warning("inline handler was slow", method=spec.name, duration_ms=round(took * 1000))
        return payload if type(payload) is dict else to_wire(payload)

    async def run(self, spec: MethodSpec, context: CallContext, raw: msgspec.Raw) -> Any:
        """Run any handler under its limits. Raises `CallError`; cancellation stops the handler and is passed on."""
        params = spec.params.read(spec.name, raw)
        key = getattr(params, "idempotency_key", None) if spec.idempotent else None
        if key:
            return await self._run_once(spec, context, params, raw, key)
        return await self._run_limited(spec, context, params)

    async def _run_limited(self, spec: MethodSpec, context: CallContext, params: Any) -> Any:
        limiter = spec.limiter
        if limiter is None:
            return await self._run_bounded(spec, context, params)
        stats = limiter.statistics()
        if stats.borrowed_tokens >= stats.total_tokens and stats.tasks_waiting >= spec.queue:
            raise CallError(wire_error("method-busy", method=spec.name, limit=int(stats.total_tokens)))
        # The wait for a place counts against nothing but the connection's life: the deadline is the handler's.
        borrower = object()
        await limiter.acquire_on_behalf_of(borrower)
        try:
            return await self._run_bounded(spec, context, params)
        finally:
            limiter.release_on_behalf_of(borrower)

    async def _run_bounded(self, spec: MethodSpec, context: CallContext, params: Any) -> Any:
        try:
            with trio.move_on_after(spec.deadline) as late:
                payload = spec.handler(context, params)
                if hasattr(payload, "__await__"):
                    payload = await payload
                return to_wire(payload)
        except CallError:
            raise
        except Exception as exc:
            raise self._incident(spec, exc) from exc
        if late.cancelled_caught:
            log.warning("handler passed its deadline", method=spec.name, conn_id=context.conn_id)
        raise CallError(wire_error("deadline", method=spec.name, seconds=spec.deadline))

    async def _run_once(self, spec: MethodSpec, context: CallContext, params: Any, raw: msgspec.Raw, key: str) -> Any:
        now = trio.current_time()
        self._forget(now)
        where = (context.principal, spec.name, key)
        fingerprint = hashlib.sha256(raw).digest()
        once = self._once.get(where)
        if once is not None:
            if once.fingerprint != fingerprint:
                raise CallError(wire_error("idempotency-conflict"))
            await once.done.wait()
            if once.error is not None:
                raise CallError(once.error.error)
            return once.payload
        if len(self._once) >= MAX_KEYS and not self._evict():
            raise CallError(wire_error("method-busy", method=spec.name, limit=MAX_KEYS))
        once = self._once[where] = _Once(fingerprint, trio.Event())
        try:
            once.payload = await self._run_limited(spec, context, params)
        except CallError as exc:
            once.error = exc
            if exc.error.retryable or exc.repeatable or exc.error.code == FORBIDDEN:
                # A retry must get a second chance, and so must whoever was given the missing scope meanwhile.
                self._once.pop(where, None)
            raise
        except BaseException:
            # Cancelled with its connection: twins that wait are told to retry, and a retry runs afresh.
            once.error = CallError(wire_error("shutting-down"))
            self._once.pop(where, None)
            raise
        finally:
            once.expires = trio.current_time() + KEY_SECONDS
            once.done.set()
        once.chars = _chars(once.payload)
        self._kept_chars += once.chars
        while self._kept_chars > MAX_KEPT_CHARS and self._evict():
            pass
        return once.payload

    def _forget(self, now: float) -> None:
        while self._once:
            where, oldest = next(iter(self._once.items()))
            if not oldest.done.is_set() or oldest.expires > now:
                return
            self._drop(where)

    def _evict(self) -> bool:
        for where, once in self._once.items():
            if once.done.is_set():
                self._drop(where)
                return True
        return False

    def _drop(self, where: tuple[str, str, str]) -> None:
        self._kept_chars -= self._once.pop(where).chars

    @staticmethod
    def unencodable(method: str, exc: Exception) -> WireError:
        """The error for a handler's result that cannot be JSON; logged under the incident that it names."""
        incident = secrets.token_hex(4)
        log.exception("result cannot be encoded", exc=exc, method=method, incident=incident)
        return wire_error("internal", incident=incident)

    @staticmethod
    def _incident(spec: MethodSpec, exc: Exception) -> CallError:
        incident = secrets.token_hex(4)
        log.exception("handler failed", exc=exc, method=spec.name, incident=incident)
        return CallError(wire_error("internal", incident=incident))
