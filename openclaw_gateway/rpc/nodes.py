"""Methods about nodes for operators: which there are, what they may lend, and asking them.

Owns their scopes, parameters and answers (spec wire.md section 7, method-shapes node.*). What they do is `nodes.hub`'s;
the methods that nodes themselves call are in `rpc.nodeside`. V21: `node.list` and `node.describe` tell of the pairing
of a node what `node.pair.list` would tell the same caller, and everybody what its own device waits for.
"""

from __future__ import annotations

from typing import Any, Final

import attrs

from openclaw_gateway.nodes.broker import Invocation
from openclaw_gateway.nodes.hub import NodeHub
from openclaw_gateway.nodes.listing import describe_node, node_rows, paired_row, without_pairing
from openclaw_gateway.nodes.queue import MAX_PER_NODE, MAX_TTL_MS
from openclaw_gateway.nodes.records import request_to_wire
from openclaw_gateway.nodes.surfaces import SurfacesUnreadable
from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.pairing.devices import DeviceBookUnreadable
from openclaw_gateway.policy.nodes import invoke_scope
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.scopes import ADMIN, PAIRING, satisfies
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.pairing import decider, own_device_of, refusals
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, NoParams
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["register"]

MAX_TIMEOUT_MS: Final = 3_600_000
MAX_LABEL: Final = 128
_TYPES: Final = {"status.request": None, "location.request": "location.get"}


@attrs.frozen(eq=False, repr=False)
class NodeParams(Value):
    node_id: str


@attrs.frozen(eq=False, repr=False)
class RequestParams(Value):
    request_id: str


@attrs.frozen(eq=False, repr=False)
class RenameParams(Value):
    node_id: str
    display_name: str


@attrs.frozen(eq=False, repr=False)
class InvokeParams(Value):
    node_id: str
    command: str
    params: Any = attrs.field(default=None, repr=False)
    timeout_ms: int | None = None
    idempotency_key: str | None = None
    session_key: str | None = None
    turn_source_channel: str | None = None
    turn_source_to: str | None = None
    turn_source_account_id: str | None = None
    turn_source_thread_id: str | int | float | None = None


@attrs.frozen(eq=False, repr=False)
class EnqueueParams(Value):
    node_id: str
    type: str
    priority: str = "normal"
    expires_in_ms: int | None = None
    wake: bool | None = None


def need_scopes(context: CallContext, *scopes: str) -> None:
    """Raise the refusal for the first of the scopes that the caller does not hold."""
    for scope in scopes:
        if not satisfies(context.scopes, scope):
            details = {"missingScope": scope, "requiredScopes": list(scopes)}
            raise CallError(wire_error("missing-scope", scope=scope, details=details))


def fault(method: str, text: str) -> CallError:
    return CallError(wire_error("invalid-params", method=method, fault=text))


def unavailable(exc: Exception) -> CallError:
    error = CallError(wire_error("store-unavailable"))
    error.__cause__ = exc
    return error


def register(table: MethodTable, hub: NodeHub, *, audit: AuditTrail) -> None:
    """Add the methods of this module to ``table``; each decision is in ``audit`` before it is answered."""
    _register_lists(table, hub)
    _register_decisions(table, hub, audit)
    _register_records(table, hub, audit)
    _register_asking(table, hub)


def _pairing_of(context: CallContext) -> str | None:
    """The one node whose pairing this caller may see (an empty text: none's); None where it may see all."""
    if satisfies(context.scopes, PAIRING):
        return own_device_of(context)
    return context.device_id or ""


def _register_lists(table: MethodTable, hub: NodeHub) -> None:
    def list_nodes(context: CallContext, params: NoParams) -> dict[str, Any]:
        try:
            rows = node_rows(hub)
        except DeviceBookUnreadable as exc:
            raise unavailable(exc) from exc
        visible = _pairing_of(context)
        if visible is not None:
            rows = [row if row["nodeId"] == visible else without_pairing(row) for row in rows]
        return {"ts": hub.clock(), "nodes": rows}

    def describe(context: CallContext, params: NodeParams) -> dict[str, Any]:
        try:
            row = describe_node(hub, params.node_id)
        except DeviceBookUnreadable as exc:
            raise unavailable(exc) from exc
        if row is None:
            raise CallError(wire_error("unknown-node", node=params.node_id[:80]))
        if _pairing_of(context) not in {None, params.node_id}:
            row = without_pairing(row)
        return {"ts": hub.clock(), **row}

    def list_pairings(context: CallContext, params: NoParams) -> dict[str, Any]:
        try:
            records = [record for record in hub.book.paired() if record.role == "node" and record.live]
            waiting = hub.surfaces.requests()
        except (DeviceBookUnreadable, SurfacesUnreadable) as exc:
            raise unavailable(exc) from exc
        own = own_device_of(context)
        records = [record for record in records if own in {None, record.device_id}]
        live = {record.device_id: record.approved_at_ms for record in records}
        pending = [request_to_wire(one) for one in waiting if live.get(one.node_id) == one.paired_at_ms]
        paired = []
        for record in records:
            row = paired_row(hub, record, hub.surfaces.surface(record.device_id, record.approved_at_ms))
            paired.append({**row, "connected": hub.registry.get(record.device_id) is not None})
        return {"pending": pending, "paired": paired}

    table.method("node.list", scope="operator.read")(list_nodes)
    table.method("node.pair.list", scope="operator.pairing")(list_pairings)
    table.method("node.describe", scope="operator.read", params=NodeParams)(describe)


def _register_decisions(table: MethodTable, hub: NodeHub, audit: AuditTrail) -> None:
    async def approve(context: CallContext, params: RequestParams) -> dict[str, Any]:
        """V20: whoever approves holds what the surface takes; what was checked is what is granted."""
        request = hub.surfaces.request_by_id(params.request_id)
        if request is None or own_device_of(context) not in {None, request.node_id}:
            raise CallError(wire_error("unknown-surface-request"))
        need_scopes(context, *request.approve_scopes)
        try:
            change = await hub.approve(request, f"operator:{context.principal}"[:256])
        except (StoreError, SurfacesUnreadable) as exc:
            raise unavailable(exc) from exc
        record = hub.record(request.node_id)
        if change is None or record is None:
            raise CallError(wire_error("unknown-surface-request"))
        await recorded(
            audit,
            Action.PAIRING_APPROVED,
            context,
            device=request.node_id,
            role="node",
            request_id=request.request_id,
            commands=request.commands,
        )
        return {"requestId": request.request_id, "node": paired_row(hub, record, change.surface)}

    async def reject(context: CallContext, params: RequestParams) -> dict[str, Any]:
        own, request = own_device_of(context), hub.surfaces.request_by_id(params.request_id)
        if own is not None and (request is None or request.node_id != own):
            raise CallError(wire_error("unknown-surface-request"))
        try:
            change = await hub.reject(params.request_id)
        except (StoreError, SurfacesUnreadable) as exc:
            raise unavailable(exc) from exc
        if change is None:
            raise CallError(wire_error("unknown-surface-request"))
        await recorded(
            audit,
            Action.PAIRING_REJECTED,
            context,
            device=change.node_id,
            role="node",
            request_id=params.request_id,
            commands=change.ended[0][0].commands,
        )
        return {"requestId": params.request_id, "nodeId": change.node_id}

    table.method("node.pair.approve", scope="operator.pairing", params=RequestParams)(approve)
    table.method("node.pair.reject", scope="operator.pairing", params=RequestParams)(reject)


def _register_records(table: MethodTable, hub: NodeHub, audit: AuditTrail) -> None:
    async def remove(context: CallContext, params: NodeParams) -> dict[str, Any]:
        roles = _known_roles(context, params.node_id)
        mixed = roles != {"node"} or context.device_id == params.node_id
        if mixed:
            need_scopes(context, ADMIN)  # nobody sheds or cuts an operator's device by the way of its node
        try:
            with refusals(context, "revocation"):
                await hub.remove(params.node_id, decider(context), whole=not mixed)
        except SurfacesUnreadable as exc:
            raise unavailable(exc) from exc
        await recorded(audit, Action.PAIRING_REMOVED, context, device=params.node_id, role="node")
        return {"nodeId": params.node_id}

    async def rename(context: CallContext, params: RenameParams) -> dict[str, Any]:
        label = params.display_name.strip()
        if not label or len(label) > MAX_LABEL or not label.isprintable():
            raise fault("node.rename", f"at /displayName: must be 1 to {MAX_LABEL} printable characters")
        _known_roles(context, params.node_id)
        with refusals(context):
            await hub.rename(params.node_id, label, decider(context))
        await recorded(audit, Action.PAIRING_RENAMED, context, device=params.node_id, role="node", label=label)
        return {"nodeId": params.node_id, "displayName": label}

    def _known_roles(context: CallContext, node_id: str) -> set[str]:
        try:
            live = {record.role for record in hub.book.records_of(node_id) if record.live}
        except DeviceBookUnreadable as exc:
            raise unavailable(exc) from exc
        if "node" not in live or own_device_of(context) not in {None, node_id}:
            raise CallError(wire_error("unknown-node", node=node_id[:80]))
        return live

    table.method("node.pair.remove", scope="operator.pairing", params=NodeParams)(remove)
    table.method("node.rename", scope="operator.pairing", params=RenameParams)(rename)


def _register_asking(table: MethodTable, hub: NodeHub) -> None:
    async def invoke(context: CallContext, params: InvokeParams) -> dict[str, Any]:
        if not params.command or not params.node_id:
            raise fault("node.invoke", "at root: nodeId and command must NOT have fewer than 1 characters")
        timeout_ms = params.timeout_ms or hub.invoke_timeout_ms
        if not 0 < timeout_ms <= MAX_TIMEOUT_MS:
            raise fault("node.invoke", f"at /timeoutMs: must be >= 0 and <= {MAX_TIMEOUT_MS}")
        key = params.idempotency_key
        if key is not None and not 0 < len(key) <= 256:
            raise fault("node.invoke", "at /idempotencyKey: must be 1 to 256 characters")
        need_scopes(context, invoke_scope(params.command))
        call = Invocation(
            node_id=params.node_id,
            command=params.command,
            params=params.params,
            has_params=params.params is not None,
            timeout=timeout_ms / 1000,
            key=key,
            principal=context.principal,
            hearer=context if callable(getattr(context, "offer", None)) else None,  # type: ignore[arg-type]
        )
        return await hub.invoke(call)

    async def enqueue(context: CallContext, params: EnqueueParams) -> dict[str, Any]:
        """Only for a node whose surface is approved: what came before that is dropped, not kept for later."""
        if params.type not in _TYPES:
            raise fault("node.pending.enqueue", "at /type: must be equal to one of the allowed values")
        if params.priority not in {"normal", "high"}:
            raise fault("node.pending.enqueue", "at /priority: must be equal to one of the allowed values")
        if params.expires_in_ms is not None and not 1000 <= params.expires_in_ms <= MAX_TTL_MS:
            raise fault("node.pending.enqueue", f"at /expiresInMs: must be >= 1000 and <= {MAX_TTL_MS}")
        record = hub.record(params.node_id)
        if record is None or hub.surfaces.surface(record.device_id, record.approved_at_ms) is None:
            raise CallError(wire_error("node-pairing-changed"))
        try:
            item = await hub.queue.put(
                record.device_id,
                record.approved_at_ms,
                params.type,
                rank=int(params.priority == "high"),
                ttl_ms=params.expires_in_ms,
                now=hub.clock(),
            )
        except StoreError as exc:
            raise unavailable(exc) from exc
        if item is None:
            raise CallError(wire_error("node-queue-full", limit=MAX_PER_NODE))
        return {
            "nodeId": record.device_id,
            "revision": hub.queue.revision(record.device_id),
            "queued": item.to_wire(),
            "wakeTriggered": False,
        }

    deadline = MAX_TIMEOUT_MS / 1000 + 10.0  # behind every deadline that a caller may ask for
    table.method("node.invoke", scope="operator.write", params=InvokeParams, deadline=deadline, idempotent=True)(invoke)
    table.method("node.pending.enqueue", scope="operator.write", params=EnqueueParams)(enqueue)
