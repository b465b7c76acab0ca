"""The invoke broker: a command to a node and its answer back to exactly the caller that asked.

Owns open invokes, their one deadline (NODE-1), retries of a node that is not ready, cancellation, and what arrives too
late. It must not know frames, stores or what a person approved: `authorise` is asked before each dispatch, so that
what changed while an invoke waited counts (V34).

Invariants: an answer reaches a caller only if invoke id, node and generation are the open invoke's (LIVE-1); an open
invoke ends in every case: answer, deadline, the node's end, the caller's end; nothing is sent twice for one
idempotency key while its first dispatch is remembered; open invokes and late answers are bounded by count and bytes.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import attrs
import msgspec
import trio

from openclaw_gateway.events.bus import OutgoingEvent, make_event
from openclaw_gateway.nodes.registry import NodeRegistry, NodeSession
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.rpc.table import CallError
from openclaw_gateway.value import Value

__all__ = ["Broker", "Invocation", "NodeAnswer", "not_connected"]

MAX_OPEN_PER_NODE: Final = 256
MAX_OPEN: Final = 4096
MAX_PARAMS_BYTES: Final = 8 * 1024 * 1024
MAX_RESULT_CHARS: Final = 25 * 1024 * 1024
MAX_PROGRESS_CHARS: Final = 16_384
MAX_LATE: Final = 256
MAX_LATE_CHARS: Final = 32 * 1024 * 1024
LATE_SECONDS: Final = 300.0
RETRIES: Final = (0.25, 0.5, 1.0, 2.0)  # seconds before each of the four retries of NODE_NOT_READY
NOT_READY: Final = "NODE_NOT_READY"

log = get_logger("nodes")


class Hearer(Protocol):
    """A caller that can be told of progress: a WebSocket session."""

    def offer(self, event: OutgoingEvent) -> bool: ...


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Invocation(Value):
    """What a caller asks of a node. ``timeout`` in seconds is the one deadline of both sides."""

    node_id: str
    command: str
    params: Any = attrs.field(default=None, repr=False)
    has_params: bool = False
    timeout: float
    key: str | None = None
    principal: str = ""
    hearer: Hearer | None = None


@attrs.frozen(eq=False, repr=False)
class NodeAnswer(Value):
    """What a node answered: ``error`` as (code, message), or a result, which may be empty."""

    payload_json: str | None = attrs.field(default=None, repr=False)
    error: tuple[str, str] | None = None

    @property
    def chars(self) -> int:
        return 0 if self.payload_json is None else len(self.payload_json)


@attrs.define(eq=False, repr=False)
class _Open:
    id: str
    node: NodeSession
    call: Invocation
    run_id: str | None
    done: trio.Event = attrs.field(factory=trio.Event)
    answer: NodeAnswer | None = None
    seq: int = -1


@attrs.define(eq=False, repr=False)
class _Late:
    """An invoke whose caller was answered already, or left; its result may still come."""

    open: _Open
    where: tuple[str, str, str] | None
    fingerprint: bytes
    expires: float


class Broker:
    def __init__(
        self,
        registry: NodeRegistry,
        *,
        authorise: Callable[[Invocation], NodeSession],
        max_result_chars: int = MAX_RESULT_CHARS,
    ) -> None:
        """``authorise`` returns the live session that may be asked now, or raises `CallError`."""
        self._registry = registry
        self._authorise = authorise
        self._max_result = max_result_chars
        self._open: dict[str, _Open] = {}
        self._of_node: dict[NodeSession, dict[str, _Open]] = {}
        self._late: OrderedDict[str, _Late] = OrderedDict()
        self._late_keys: dict[tuple[str, str, str], str] = {}
        self._late_chars = 0

    @property
    def open_count(self) -> int:
        return len(self._open)

    @property
    def late_count(self) -> int:
        return len(self._late)

    # --- the caller's side

    async def invoke(self, call: Invocation) -> dict[str, Any]:
        """Ask a node and wait for its answer, at most ``call.timeout`` seconds in all, retries included.

        Returns ``{ok, nodeId, command, payload, payloadJSON}``; raises `CallError` (spec wire.md section 7, item 4).
        Cancelling tells the node to stop; what it still answers is kept for a poll with the same key.
        """
        deadline = trio.current_time() + call.timeout
        fingerprint = hashlib.sha256(msgspec.json.encode([call.command, call.params])).digest() if call.key else b""
        known = self._known(call)
        if known is not None:
            if known.fingerprint != fingerprint:
                # Not remembered as the key's answer: whoever asked first may still come for theirs.
                raise CallError(wire_error("idempotency-conflict"), repeatable=True)
            with trio.move_on_at(deadline):
                await known.open.done.wait()
            return self._reply(call, known.open.answer)
        for pause in (*RETRIES, None):
            opened = self._dispatch(call, deadline)
            try:
                with trio.move_on_at(deadline):
                    await opened.done.wait()
            finally:
                self._close(opened)
                if opened.answer is None:
                    self._give_up(opened, fingerprint)
            answer = opened.answer
            not_ready = answer is not None and answer.error is not None and answer.error[0] == NOT_READY
            if not not_ready or pause is None or trio.current_time() + pause >= deadline:
                break
            await trio.sleep(pause)
        return self._reply(call, answer)

    def _dispatch(self, call: Invocation, deadline: float) -> _Open:
        node = self._authorise(call)
        mine = self._of_node.setdefault(node, {})
        if len(mine) >= MAX_OPEN_PER_NODE or len(self._open) >= MAX_OPEN:
            limit = MAX_OPEN_PER_NODE if len(mine) >= MAX_OPEN_PER_NODE else MAX_OPEN
            raise CallError(wire_error("node-busy", limit=limit))
        run_id = str(uuid.uuid4()) if call.command == "system.run" else None
        opened = _Open(str(uuid.uuid4()), node, call, run_id)
        payload: dict[str, Any] = {"id": opened.id, "nodeId": call.node_id, "command": call.command}
        if call.has_params or run_id is not None:
            payload["paramsJSON"] = self._params_json(call, run_id)
        payload["timeoutMs"] = max(1, round((deadline - trio.current_time()) * 1000))
        payload["idempotencyKey"] = call.key or opened.id
        mine[opened.id] = self._open[opened.id] = opened
        if not node.link.offer(make_event("node.invoke.request", payload, role="node", numbered=False)):
            self._close(opened)
            raise CallError(not_connected())
        return opened

    def _params_json(self, call: Invocation, run_id: str | None) -> str:
        params = call.params
        if run_id is not None:
            params = {**(params if isinstance(params, dict) else {}), "runId": run_id}
        encoded = msgspec.json.encode(params)
        if len(encoded) > MAX_PARAMS_BYTES:
            fault = f"at /params: must NOT be longer than {MAX_PARAMS_BYTES} bytes"
            raise CallError(wire_error("invalid-params", method="node.invoke", fault=fault))
        return encoded.decode()

    def _reply(self, call: Invocation, answer: NodeAnswer | None) -> dict[str, Any]:
        if answer is None:
            answer = NodeAnswer(error=("TIMEOUT", "node invoke timed out"))
        error, payload = answer.error, None
        if error is None and answer.payload_json is not None:
            try:
                payload = msgspec.json.decode(answer.payload_json)
            except (msgspec.DecodeError, RecursionError):
                error = ("INVALID_RESULT", "the node's payload is not JSON")
        if error is not None:
            failed = {"nodeError": {"code": error[0], "message": error[1]}, "nodeCommandDispatched": True}
            wire = wire_error("node-failed", details=failed, node_code=error[0], node_message=error[1])
            # The key of a timeout may come again: it polls for the late result instead of running anything twice.
            raise CallError(wire, repeatable=error[0] in {"TIMEOUT", NOT_READY})
        return {
            "ok": True,
            "nodeId": call.node_id,
            "command": call.command,
            "payload": payload,
            "payloadJSON": answer.payload_json,
        }

    # --- the node's side

    def answered(self, link: object, id_: str, node_id: str, answer: NodeAnswer) -> bool:
        """A node answered. True where it was taken: by the caller that waits, or by what is kept for a poll."""
        opened = self._owned(link, id_, node_id)
        if opened is None:
            return False
        if answer.chars > self._max_result:
            answer = NodeAnswer(error=("RESULT_TOO_LARGE", f"the node's payload is over {self._max_result} characters"))
        late = self._late.get(id_)
        if late is not None:
            self._registry.drops["late"] += 1
            if opened.answer is not None:
                return False
            fate = "dropped: its caller gave no key" if late.where is None else "kept for a poll with its key"
            log.info("late result of a node", node_id=node_id, command=opened.call.command, reason=fate)
            if late.where is None:
                self._forget(id_)
                return False
            self._late_chars += answer.chars
        elif opened.answer is not None:
            return False
        opened.answer = answer
        opened.done.set()
        while self._late_chars > MAX_LATE_CHARS:
            self._forget(next(key for key, one in self._late.items() if one.open.answer is not None))
        return True

    def progressed(self, link: object, id_: str, node_id: str, seq: int, chunk: str) -> bool:
        """A piece of output before the answer: to the caller alone, and left out where it reads slowly."""
        opened = self._owned(link, id_, node_id)
        if opened is None or id_ not in self._open or seq <= opened.seq or len(chunk) > MAX_PROGRESS_CHARS:
            return False
        opened.seq = seq
        payload = {"invokeId": id_, "nodeId": node_id, "seq": seq, "chunk": chunk}
        self._tell(opened, "node.invoke.progress", payload)
        return True

    def run_of(self, node: NodeSession, run_id: str) -> str | None:
        """The id of the open invoke of this session that the gateway gave ``run_id``; None where there is none."""
        for opened in self._of_node.get(node, {}).values():
            if opened.run_id == run_id:
                return opened.id
        return None

    def tell_run(self, invoke_id: str, payload: Mapping[str, Any]) -> None:
        """Pass an exec event of an open invoke on to its caller."""
        opened = self._open.get(invoke_id)
        if opened is not None:
            self._tell(opened, "node.exec", {"invokeId": invoke_id, "nodeId": opened.call.node_id, **payload})

    def lost(self, node: NodeSession, reason: str) -> None:
        """The session ended: everything that waits for it fails now."""
        answer = NodeAnswer(error=("DISCONNECTED", f"node disconnected ({reason})"))
        waiting = [*self._of_node.pop(node, {}).values()]
        waiting += [late.open for late in self._late.values() if late.open.node is node]
        for opened in waiting:
            if opened.answer is None:
                opened.answer = answer
                opened.done.set()
                if opened.id in self._late:
                    self._late_chars += answer.chars

    def expire(self) -> None:
        """Forget late answers whose time is over."""
        now = trio.current_time()
        while self._late and next(iter(self._late.values())).expires <= now:
            self._forget(next(iter(self._late)))

    # --- inside

    def _owned(self, link: object, id_: str, node_id: str) -> _Open | None:
        """The invoke of that id if it is this very connection's; otherwise None, and the drop is counted by reason."""
        drops = self._registry.drops
        late = self._late.get(id_)
        opened = self._open.get(id_) or (late.open if late is not None else None)
        if self._registry.of(link) is None:
            drops["retired"] += 1
        elif opened is None:
            drops["unknown"] += 1
        elif opened.node.link is not link or opened.call.node_id != node_id:
            drops["foreign"] += 1
        else:
            return opened
        log.debug("answer of a node dropped", node_id=node_id[:80], reason="not an open invoke of this session")
        return None

    def _close(self, opened: _Open) -> None:
        self._open.pop(opened.id, None)
        mine = self._of_node.get(opened.node)
        if mine is not None:
            mine.pop(opened.id, None)
            if not mine:
                del self._of_node[opened.node]

    def _give_up(self, opened: _Open, fingerprint: bytes) -> None:
        """Deadline or caller gone: tell the node, and remember what may still come."""
        call = opened.call
        payload = {"invokeId": opened.id, "nodeId": call.node_id}
        opened.node.link.offer(make_event("node.invoke.cancel", payload, role="node", numbered=False))
        log.info("node invoke given up", node_id=call.node_id, command=call.command)
        where = (call.principal, call.node_id, call.key) if call.key else None
        opened.call = attrs.evolve(call, params=None, hearer=None)  # neither is needed for a late answer
        self.expire()
        while len(self._late) >= MAX_LATE:
            self._forget(next(iter(self._late)))
        self._late[opened.id] = _Late(opened, where, fingerprint, trio.current_time() + LATE_SECONDS)
        if where is not None:
            self._late_keys[where] = opened.id

    def _known(self, call: Invocation) -> _Late | None:
        self.expire()
        if not call.key:
            return None
        id_ = self._late_keys.get((call.principal, call.node_id, call.key))
        return self._late.get(id_) if id_ is not None else None

    def _forget(self, id_: str) -> None:
        late = self._late.pop(id_)
        if late.where is not None and self._late_keys.get(late.where) == id_:
            del self._late_keys[late.where]
        if late.open.answer is not None:
            self._late_chars -= late.open.answer.chars

    def _tell(self, opened: _Open, event: str, payload: dict[str, Any]) -> None:
        hearer = opened.call.hearer
        if hearer is not None:
            payload["idempotencyKey"] = opened.call.key or opened.id
            hearer.offer(make_event(event, payload, droppable=True, numbered=False))


def not_connected() -> WireError:
    """The error for a node that is paired and has no connection."""
    details = {
        "nodeError": {"code": "NOT_CONNECTED", "message": "node not connected"},
        "nodeCommandDispatched": False,
    }
    return wire_error("node-not-connected", details=details)
