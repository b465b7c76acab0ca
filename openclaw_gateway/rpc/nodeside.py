"""Methods that nodes call: answers to invokes, reports, waiting work. All are of role node.

Owns their parameters and answers (spec wire.md section 7; OpenClaw's protocol.schema.json). Who calls is the session
that `nodes.registry` knows under the caller's own connection, whatever node id the parameters name (V32).

Invariants: what a retired or unknown session says changes nothing, is answered calmly and counted; events are a closed
list; everything kept is bounded in `nodes.reports`.
"""

from __future__ import annotations

from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.nodes import reports
from openclaw_gateway.nodes.broker import NodeAnswer
from openclaw_gateway.nodes.hub import NodeHub
from openclaw_gateway.nodes.records import QueuedItem
from openclaw_gateway.nodes.registry import NodeSession
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.nodes import EXEC_EVENTS, NODE_EVENTS
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.rpc.nodes import fault, unavailable
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, NoParams
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["register"]

MAX_DRAIN: Final = 10
MAX_IDS: Final = 64
MAX_ERROR_CHARS: Final = 4096

log = get_logger("nodes")


@attrs.frozen(eq=False, repr=False)
class ResultParams(Value):
    id: str
    node_id: str
    ok: bool
    payload: Any = attrs.field(default=None, repr=False)
    payload_j_s_o_n: str | None = attrs.field(default=None, repr=False)
    error: dict[str, Any] | None = attrs.field(default=None, repr=False)


@attrs.frozen(eq=False, repr=False)
class ProgressParams(Value):
    invoke_id: str
    node_id: str
    seq: int
    chunk: str = attrs.field(repr=False)


@attrs.frozen(eq=False, repr=False)
class EventParams(Value):
    event: str
    payload: Any = attrs.field(default=None, repr=False)
    payload_j_s_o_n: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(eq=False, repr=False)
class DrainParams(Value):
    max_items: int = MAX_DRAIN


@attrs.frozen(eq=False, repr=False)
class AckParams(Value):
    ids: list[str]


@attrs.frozen(eq=False, repr=False)
class SkillsParams(Value):
    skills: list[Any] = attrs.field(repr=False)


@attrs.frozen(eq=False, repr=False)
class ToolsParams(Value):
    tools: list[Any] = attrs.field(repr=False)


@attrs.frozen(eq=False, repr=False)
class InventoryParams(Value):
    protocol_features: list[Any] | None = None
    worker_host: dict[str, Any] | None = None


def register(table: MethodTable, hub: NodeHub) -> None:
    """Add the methods of this module to ``table``."""
    _register_answers(table, hub)
    _register_catalogs(table, hub)
    _register_work(table, hub)


def _register_answers(table: MethodTable, hub: NodeHub) -> None:
    def result(context: CallContext, params: ResultParams) -> dict[str, Any]:
        if params.ok:
            payload_json = params.payload_j_s_o_n
            if payload_json is None and params.payload is not None:
                payload_json = msgspec.json.encode(params.payload).decode()
            answer = NodeAnswer(payload_json)
        else:
            answer = NodeAnswer(error=_error(params.error))
        taken = hub.broker.answered(context, params.id, params.node_id, answer)
        return {"ok": True} if taken else {"ok": True, "ignored": True}

    def progress(context: CallContext, params: ProgressParams) -> dict[str, Any]:
        taken = hub.broker.progressed(context, params.invoke_id, params.node_id, params.seq, params.chunk)
        return {"ok": True} if taken else {"ok": True, "ignored": True}

    def event(context: CallContext, params: EventParams) -> dict[str, Any]:
        node = hub.registry.of(context)
        if node is None:
            hub.registry.drops["retired"] += 1
            reason = "stale_connection"
        elif params.event not in NODE_EVENTS:
            hub.registry.drops["bad-event"] += 1
            reason = "unsupported_event"
        else:
            reason = _heard(hub, node, params.event, reports.payload_of(params.payload, params.payload_j_s_o_n))
        handled = reason in {"updated", "persisted", "matched"}
        return {"ok": True, "event": params.event[:128] or "?", "handled": handled, "reason": reason}

    table.method("node.invoke.result", role="node", params=ResultParams)(result)
    table.method("node.invoke.progress", role="node", params=ProgressParams)(progress)
    table.method("node.event", role="node", params=EventParams)(event)


def _heard(hub: NodeHub, node: NodeSession, name: str, payload: dict[str, Any] | None) -> str:
    """Take one event of the closed list; the ``reason`` of the answer."""
    if name in EXEC_EVENTS:
        return _exec(hub, node, name, payload)
    if name == "node.host.stats":
        stats = reports.host_stats(payload)
        if stats is not None:
            return "updated" if hub.report_stats(node, stats) else "too_frequent"
    elif name == "node.presence.alive":
        reason = reports.alive_reason(payload)
        if reason is not None and hub.record(node.node_id) is not None:
            hub.facts.note(node.node_id, last_seen_at_ms=hub.clock(), last_seen_reason=reason)
            return "persisted"
    else:
        idle = reports.activity(payload)
        if idle is not None and node.kind == "macos":
            now = hub.clock()
            node.active_at_ms = None if idle < 0 else now - idle * 1000
            node.activity_at_ms = now
            told = {"nodeId": node.node_id, "lastActiveAtMs": node.active_at_ms, "presenceUpdatedAtMs": now}
            hub.bus.publish_nowait("node.presence", told, droppable=True)
            return "updated"
    return "invalid_payload"


def _exec(hub: NodeHub, node: NodeSession, name: str, payload: dict[str, Any] | None) -> str:
    """An exec event counts only with the run id that the gateway gave to an open invoke of this session (V32)."""
    report = reports.exec_report(payload)
    invoke_id = hub.broker.run_of(node, report[0]) if report is not None else None
    if report is None or invoke_id is None:
        hub.registry.drops["unmatched-exec"] += 1
        log.warning("exec event of a node matches no open invoke", node_id=node.node_id, event_name=name)
        return "no_open_invoke"
    hub.broker.tell_run(invoke_id, {"event": name, **report[1]})
    return "matched"


def _error(error: dict[str, Any] | None) -> tuple[str, str]:
    error = error or {}
    code, message = error.get("code"), error.get("message")
    return (
        code[:128] if isinstance(code, str) and code else "UNAVAILABLE",
        message[:MAX_ERROR_CHARS] if isinstance(message, str) and message else "node invoke failed",
    )


def _register_catalogs(table: MethodTable, hub: NodeHub) -> None:
    def skills(context: CallContext, params: SkillsParams) -> dict[str, Any]:
        found = reports.skills(params.skills)
        if found is None:
            raise fault("node.skills.update", "at /skills: too many, too big or malformed")
        node = _session(context)
        node.skills = found
        return {"nodeId": node.node_id, "skills": [{"name": one["name"]} for one in found]}

    def tools(context: CallContext, params: ToolsParams) -> dict[str, Any]:
        found = reports.tools(params.tools)
        if found is None:
            raise fault("node.pluginTools.update", "at /tools: too many, too big or malformed")
        node = _session(context)
        node.tools = found
        lent = hub.lends(node)
        return {"nodeId": node.node_id, "tools": [tool for tool in found if tool.get("command") in lent]}

    def inventory(context: CallContext, params: InventoryParams) -> dict[str, Any]:
        found = reports.inventory(params.protocol_features, params.worker_host)
        if found is None:
            raise fault("node.runnerInventory.update", "at root: too big")
        node = _session(context)
        if node.inventory != found:
            node.inventory = found
            hub.bus.publish_nowait("node.runnerInventory.changed", {"nodeId": node.node_id}, droppable=True)
        return {"nodeId": node.node_id}

    def _session(context: CallContext) -> NodeSession:
        node = hub.registry.of(context)
        if node is None:
            hub.registry.drops["retired"] += 1
            raise CallError(wire_error("node-pairing-changed"))
        return node

    table.method("node.skills.update", role="node", params=SkillsParams)(skills)
    table.method("node.pluginTools.update", role="node", params=ToolsParams)(tools)
    table.method("node.runnerInventory.update", role="node", params=InventoryParams)(inventory)


def _register_work(table: MethodTable, hub: NodeHub) -> None:
    def caller(context: CallContext) -> NodeSession:
        node = hub.registry.of(context)
        if node is None:
            raise CallError(wire_error("node-pairing-changed"))
        return node

    def may(node: NodeSession, item: QueuedItem) -> bool:
        """V34: what was queued for another pairing, or needs what is not lent any more, is not handed out."""
        record = hub.record(node.node_id)
        if record is None or record.approved_at_ms != item.paired_at_ms:
            return False
        if hub.surfaces.surface(node.node_id, record.approved_at_ms) is None:
            return False
        return item.type != "location.request" or hub.may_invoke(node, "location.get")

    async def drain(context: CallContext, params: DrainParams) -> dict[str, Any]:
        if not 1 <= params.max_items <= MAX_DRAIN:
            raise fault("node.pending.drain", f"at /maxItems: must be >= 1 and <= {MAX_DRAIN}")
        node = caller(context)
        try:
            items, more = await hub.queue.drain(
                node.node_id, params.max_items, hub.clock(), may=lambda item: may(node, item)
            )
        except StoreError as exc:
            raise unavailable(exc) from exc
        revision = hub.queue.revision(node.node_id)
        wire = [item.to_wire() for item in items]
        return {"nodeId": node.node_id, "revision": revision, "items": wire, "hasMore": more}

    def pull(context: CallContext, params: NoParams) -> dict[str, Any]:
        node = caller(context)
        waiting = [item for item in hub.queue.of(node.node_id, hub.clock()) if may(node, item)]
        return {"nodeId": node.node_id, "actions": [item.to_wire() for item in waiting]}

    async def ack(context: CallContext, params: AckParams) -> dict[str, Any]:
        if not 1 <= len(params.ids) <= MAX_IDS:
            raise fault("node.pending.ack", f"at /ids: must hold 1 to {MAX_IDS} items")
        node = caller(context)
        try:
            gone = await hub.queue.take(node.node_id, params.ids)
        except StoreError as exc:
            raise unavailable(exc) from exc
        left = len(hub.queue.of(node.node_id, hub.clock()))
        return {"nodeId": node.node_id, "ackedIds": list(gone), "remainingCount": left}

    table.method("node.pending.drain", role="node", params=DrainParams)(drain)
    table.method("node.pending.pull", role="node")(pull)
    table.method("node.pending.ack", role="node", params=AckParams)(ack)
