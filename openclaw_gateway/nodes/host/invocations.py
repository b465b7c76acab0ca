"""What the gateway asks of this node: each ``node.invoke.request`` taken, bounded, carried out, answered once.

Owns decoding, the caps, cancellation and the answer. It must not know what a command does. Invariants (design rules 6
and 8): taking a request never waits; at most `MAX_RUNNING` run at once, the next is refused at once; parameters over
`MAX_PARAMS_BYTES` are refused before decoding and a result over `MAX_RESULT_BYTES` is not sent; members that claim an
approval are refused wherever they stand (V30, `policy.nodes`); a request that was cancelled is never answered; a
repeated id is carried out once; a failing command answers its caller and hurts nobody else; of a request that came
sealed nothing leaves readable, neither result, error nor event (`seals`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol

import attrs
import msgspec
import trio

from openclaw_gateway.client.errors import CallTimedOut, ClientClosed
from openclaw_gateway.errors import CallFailed, GatewayError
from openclaw_gateway.nodes.host.errors import CommandFailed
from openclaw_gateway.nodes.host.seals import Opened, Seals
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.nodes import reserved_field
from openclaw_gateway.protocol.sealed import is_sealed

__all__ = [
    "MAX_PARAMS_BYTES",
    "MAX_RESULT_BYTES",
    "MAX_RUNNING",
    "NOT_READY",
    "Gateway",
    "Handler",
    "Invocation",
    "Invocations",
]

MAX_RUNNING: Final = 64
MAX_PARAMS_BYTES: Final = 1024 * 1024
MAX_RESULT_BYTES: Final = 8 * 1024 * 1024
MAX_REMEMBERED: Final = 1024
NOT_READY: Final = "NODE_NOT_READY"  # the gateway tries again within the caller's deadline
DEFAULT_SECONDS: Final = 30.0
LONGEST_SECONDS: Final = 3600.0
_CLEANUP_SECONDS: Final = 3.0
_REPORT_SECONDS: Final = 30.0
_MAX_ID: Final = 256

log = get_logger("node")


class Gateway(Protocol):
    """The part of `GatewayClient` that answering needs."""

    async def call(self, method: str, params: object = None, *, timeout: float | None = 30.0) -> Any: ...


class _Request(msgspec.Struct):
    id: str
    nodeId: str  # noqa: N815  as on the wire
    command: str
    paramsJSON: str | None = None  # noqa: N815
    timeoutMs: int | None = None  # noqa: N815
    idempotencyKey: str | None = None  # noqa: N815


@attrs.frozen
class Invocation:
    """One request. ``deadline``: the Trio time at which its caller gives up; ``sealed``: the gateway cannot read it."""

    id: str
    node_id: str
    command: str
    deadline: float
    gateway: Gateway = attrs.field(repr=False)
    sealed: bool = False

    async def tell(self, event: str, payload: Mapping[str, Any]) -> None:
        """Send a ``node.event`` and wait until it is taken; a gateway that refuses it changes nothing here.

        Of a sealed request nothing is told: an event says what was run and what came of it.
        """
        if self.sealed:
            return
        params = {"event": event, "payloadJSON": msgspec.json.encode(payload).decode()}
        try:
            await self.gateway.call("node.event", params, timeout=5.0)
        except (CallFailed, CallTimedOut) as error:
            log.debug("node event not taken", event_name=event, error=str(error))


Handler = Callable[[Invocation, dict[str, Any]], Awaitable[Any]]


@attrs.define
class _Running:
    scope: trio.CancelScope
    cancelled: bool = False


class Invocations:
    """The requests of one connection. ``handlers``: command name → what carries it out."""

    def __init__(
        self, gateway: Gateway, handlers: Mapping[str, Handler], node_id: str, seals: Seals | None = None
    ) -> None:
        self._gateway = gateway
        self._handlers = handlers
        self._node_id = node_id
        self._seals = seals
        self._running: dict[str, _Running] = {}
        self._seen: OrderedDict[str, None] = OrderedDict()

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def remembered(self) -> int:
        return len(self._seen)

    def take(self, nursery: trio.Nursery, payload: Any) -> None:
        """Start what an event asks for. Never waits, never raises."""
        try:
            request = msgspec.convert(payload, _Request)
        except msgspec.ValidationError:
            log.warning("invoke request not understood")
            return
        if request.nodeId != self._node_id or len(request.id) > _MAX_ID or request.id in self._seen:
            log.warning("invoke request not ours or repeated", command=request.command[:128])
            return
        if len(self._running) >= MAX_RUNNING:
            # The refusal itself is bounded too: as many may be on their way as commands may run.
            if len(nursery.child_tasks) < 3 * MAX_RUNNING:
                nursery.start_soon(
                    self._refuse, request, CommandFailed(NOT_READY, f"{MAX_RUNNING} commands run already")
                )
            return
        self._remember(request.id)
        running = self._running[request.id] = _Running(trio.CancelScope())
        nursery.start_soon(self._carry_out, request, running)

    def cancel(self, payload: Any) -> None:
        """The caller gave up: stop the command; nothing more is said about it."""
        id_ = payload.get("invokeId") if isinstance(payload, dict) else None
        running = self._running.get(id_) if isinstance(id_, str) else None
        if running is not None:
            running.cancelled = True
            running.scope.cancel()

    def _remember(self, id_: str) -> None:
        self._seen[id_] = None
        if len(self._seen) > MAX_REMEMBERED:
            self._seen.popitem(last=False)

    async def _carry_out(self, request: _Request, running: _Running) -> None:
        seconds = request.timeoutMs / 1000 if request.timeoutMs and request.timeoutMs > 0 else DEFAULT_SECONDS
        deadline = trio.current_time() + min(seconds, LONGEST_SECONDS)
        invocation = Invocation(request.id, request.nodeId, request.command, deadline, self._gateway)
        answer: dict[str, Any] | None = None
        try:
            # A handler that minds the deadline answers by itself; this ends one that does not.
            running.scope.deadline = deadline + _CLEANUP_SECONDS
            with running.scope:
                answer = await self._answer(invocation, request)
        except ClientClosed:
            return  # the connection's own end is told elsewhere
        finally:
            del self._running[request.id]
        if running.cancelled:
            log.info("invoke cancelled", command=request.command[:128])
            return
        if answer is None:
            answer = _failure(CommandFailed("TIMEOUT", f"{request.command}: not done in {seconds:g} s"))
        await self._send(request, answer)

    async def _answer(self, invocation: Invocation, request: _Request) -> dict[str, Any]:
        handler = self._handlers.get(request.command)
        opened: Opened | None = None
        try:
            if handler is None:
                raise CommandFailed("INVALID_REQUEST", f"this node has no command {request.command[:128]}")
            params = _params(request.paramsJSON)
            opened = await self._admit(request, params)
            if opened is not None:
                params = opened.params
                deadline = min(invocation.deadline, trio.current_time() + opened.expires_in)
                invocation = attrs.evolve(invocation, deadline=deadline, sealed=True)
            reserved = reserved_field(params, request.command)
            if reserved is not None:
                raise CommandFailed("INVALID_REQUEST", f"{reserved} is reserved: nobody approves in parameters")
            result = await handler(invocation, params)
            if opened is not None:
                result = self._seal(opened, {"ok": True, "payload": result})
            encoded = msgspec.json.encode(result).decode()
            if len(encoded) > MAX_RESULT_BYTES:
                raise CommandFailed("RESULT_TOO_LARGE", f"the result is over {MAX_RESULT_BYTES} bytes")
        except CommandFailed as error:
            return await self._failed(request, opened, error)
        except ClientClosed:
            raise
        except Exception as exc:
            log.exception("node command failed", exc=exc, command=request.command[:128])
            return _failure(CommandFailed("INTERNAL", "the node failed to carry it out; its log says why"))
        return {"ok": True, "payloadJSON": encoded}

    async def _admit(self, request: _Request, params: dict[str, Any]) -> Opened | None:
        if self._seals is not None:
            return await self._seals.admit(request.command, request.idempotencyKey, params)
        if is_sealed(params):
            raise CommandFailed("SEALED_UNSUPPORTED", "this node has no key for sealed invokes")
        return None

    def _seal(self, opened: Opened, answer: dict[str, Any]) -> dict[str, Any]:
        assert self._seals is not None
        return self._seals.seal(opened, answer)

    async def _failed(self, request: _Request, opened: Opened | None, error: CommandFailed) -> dict[str, Any]:
        """The answer of a command that failed. What went wrong may say what was asked, so it is sealed too."""
        if error.code == NOT_READY:
            self._seen.pop(request.id, None)  # nothing was done, and the gateway asks again
            if opened is not None and self._seals is not None:
                await self._seals.release(opened)
                return _failure(CommandFailed(NOT_READY, "the node cannot take more at the moment"))
        if opened is None or error.code == "RESULT_TOO_LARGE":
            return _failure(error)
        told = {"ok": False, "error": {"code": error.code, "message": error.message}}
        return {"ok": True, "payloadJSON": msgspec.json.encode(self._seal(opened, told)).decode()}

    async def _refuse(self, request: _Request, error: CommandFailed) -> None:
        await self._send(request, _failure(error))

    async def _send(self, request: _Request, answer: Mapping[str, Any]) -> None:
        params = {"id": request.id, "nodeId": request.nodeId, **answer}
        try:
            await self._gateway.call("node.invoke.result", params, timeout=_REPORT_SECONDS)
        except ClientClosed:
            return  # the connection's own end is told elsewhere
        except GatewayError as error:
            log.info("invoke result not taken", command=request.command[:128], error=str(error))


def _failure(error: CommandFailed) -> dict[str, Any]:
    return {"ok": False, "error": {"code": error.code, "message": error.message}}


def _params(text: str | None) -> dict[str, Any]:
    """The parameters as an object. Raises `CommandFailed`."""
    if text is None or text == "":
        return {}
    if len(text) > MAX_PARAMS_BYTES:
        raise CommandFailed("INVALID_REQUEST", f"paramsJSON is over {MAX_PARAMS_BYTES} bytes")
    try:
        params = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise CommandFailed("INVALID_REQUEST", "paramsJSON is not JSON") from error
    if params is None:
        return {}
    if not isinstance(params, dict):
        raise CommandFailed("INVALID_REQUEST", "paramsJSON must be an object")
    return params
