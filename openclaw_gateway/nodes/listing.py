"""Rows of nodes: what is known of each out of the pairing records, the surfaces and the live connections in one look
(LIVE-5).

Owns the shape of a row of `node.list`, `node.describe` and `node.pair.list` (spec wire.md section 7, method-shapes). It
must not know how nodes are invoked. A node whose declared commands were not approved lends nothing: its row says
``pending-approval`` and shows neither caps nor commands. What a row says of pairing (what waits, and the address that
it came from) is for those who may see that node in the lists of pairing: `without_pairing` takes it out (V21).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from openclaw_gateway.nodes.hub import NodeHub
from openclaw_gateway.nodes.records import Surface
from openclaw_gateway.nodes.registry import NodeSession
from openclaw_gateway.pairing.overview import PairingRow, Source
from openclaw_gateway.pairing.records import PairedDevice, statement_to_wire
from openclaw_gateway.policy.nodes import node_kind

__all__ = ["describe_node", "node_rows", "node_source", "paired_row", "without_pairing"]

OF_PAIRING: Final = frozenset({"pendingRequestId", "pendingDeclaredCommands", "pendingDeclaredCaps", "remoteIp"})


def node_rows(hub: NodeHub) -> list[dict[str, Any]]:
    """One row per node, paired or connected; the connected first, then by name. Raises `DeviceBookUnreadable`."""
    rows: dict[str, dict[str, Any]] = {}
    active = _most_active(hub)
    for record in hub.book.paired():
        if record.role == "node" and record.live:
            rows[record.device_id] = _row(hub, record, hub.registry.get(record.device_id), active)
    for node in hub.registry:
        if node.node_id not in rows:
            rows[node.node_id] = _row(hub, None, node, active)
    return sorted(rows.values(), key=lambda row: (not row["connected"], row.get("displayName") or row["nodeId"]))


def describe_node(hub: NodeHub, node_id: str) -> dict[str, Any] | None:
    """One node's row with what only `node.describe` shows; None for an unknown node. Raises as `node_rows`."""
    record, node = hub.book.lookup(node_id, "node"), hub.registry.get(node_id)
    if record is None and node is None:
        return None
    row = _row(hub, record, node, _most_active(hub))
    if node is not None and node.link.grant is not None and node.link.grant.params.path_env:
        row["pathEnv"] = node.link.grant.params.path_env
    return row


def without_pairing(row: dict[str, Any]) -> dict[str, Any]:
    """The row for somebody who may not see that node's pairing."""
    return {name: value for name, value in row.items() if name not in OF_PAIRING}


def node_source(hub: NodeHub) -> Source:
    """Surfaces in the one table of `pairing.list` (PAIR-8): those that wait, and those that were approved.

    Raises `DeviceBookUnreadable`, `SurfacesUnreadable`.
    """

    def rows() -> Iterable[PairingRow]:
        for record in hub.book.paired():
            if record.role == "node" and record.live:
                yield from _pairing_rows(hub, record)
        hub.surfaces.requests()  # raises where what waits cannot be known

    return rows


def _pairing_rows(hub: NodeHub, record: PairedDevice) -> Iterable[PairingRow]:
    surface = hub.surfaces.surface(record.device_id, record.approved_at_ms)
    request = hub.surfaces.request(record.device_id, record.approved_at_ms)
    if request is not None:
        params = {"requestId": request.request_id}
        yield PairingRow(
            kind="node",
            state="pending",
            id=request.request_id,
            subject=request.node_id,
            name=request.display_name,
            source=request.remote_ip,
            role="node",
            asks=(*request.caps, *request.commands),
            grants=_lent(request.commands),
            created_at_ms=request.requested_at_ms,
            last_seen_at_ms=record.last_seen_at_ms,
            approve=("node.pair.approve", params),
            reject=("node.pair.reject", params),
        )
    if surface is not None:
        yield PairingRow(
            kind="node",
            state="paired",
            id=record.device_id,
            subject=record.device_id,
            name=record.label or record.display_name or record.client_id,
            source=record.last_ip,
            role="node",
            asks=(),
            grants=_lent(surface.commands),
            created_at_ms=surface.approved_at_ms,
            last_seen_at_ms=record.last_seen_at_ms,
        )


def _lent(commands: Iterable[str]) -> str:
    return f"commands: {', '.join(commands) or 'none'}"


def paired_row(hub: NodeHub, record: PairedDevice, surface: Surface | None) -> dict[str, Any]:
    """A row of ``paired`` in `node.pair.list`, and ``node`` in the answer to `node.pair.approve`."""
    facts = hub.facts.of(record.device_id)
    row: dict[str, Any] = {
        "nodeId": record.device_id,
        "clientId": record.client_id,
        "clientMode": record.client_mode,
        "displayName": record.label or record.display_name,
        "platform": record.platform,
        "version": facts.version,
        "deviceFamily": record.device_family,
        "remoteIp": record.last_ip,
        "caps": list(surface.caps) if surface is not None else [],
        "commands": list(surface.commands) if surface is not None else [],
        "createdAtMs": record.created_at_ms,
        "approvedAtMs": surface.approved_at_ms if surface is not None else None,
        "lastConnectedAtMs": facts.last_connected_at_ms,
        "lastSeenAtMs": facts.last_seen_at_ms or record.last_seen_at_ms,
        "lastSeenReason": facts.last_seen_reason,
        "keyStatement": statement_to_wire(record.key_statement),
    }
    return {name: value for name, value in row.items() if value is not None}


def _row(hub: NodeHub, record: PairedDevice | None, node: NodeSession | None, active: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"caps": [], "commands": [], "sessionHost": False, "nodePluginTools": []}
    if record is not None:
        surface = hub.surfaces.surface(record.device_id, record.approved_at_ms)
        row |= paired_row(hub, record, surface)
        del row["createdAtMs"]
        row["kind"] = node_kind(record.platform, record.device_family, record.client_id)
        row["approvalState"] = _approval(hub, record, surface, node, row)
        stats = hub.facts.of(record.device_id).host_stats
        if stats is not None:
            row["hostStats"] = dict(stats)
    else:
        row["approvalState"] = "unapproved"
    row["paired"] = record is not None
    row["connected"] = node is not None
    if node is not None:
        _add_live(hub, row, node, active)
    return row


def _approval(
    hub: NodeHub, record: PairedDevice, surface: Surface | None, node: NodeSession | None, row: dict[str, Any]
) -> str:
    """The word of ``approvalState``; adds to the row what waits."""
    request = hub.surfaces.request(record.device_id, record.approved_at_ms)
    asks = node is not None and node.awaiting and bool(node.declared or node.caps)
    wider = node is not None and (surface is None or not surface.covers(node.caps, node.declared))
    if request is not None:
        row["pendingRequestId"] = request.request_id
        row["pendingDeclaredCommands"] = list(request.commands)
        row["pendingDeclaredCaps"] = list(request.caps)
    elif node is not None and asks and wider:
        row["pendingDeclaredCommands"] = sorted(node.declared)
        row["pendingDeclaredCaps"] = list(node.caps)
    else:
        return "unapproved" if surface is None else "approved"
    return "pending-approval" if surface is None else "pending-reapproval"


def _add_live(hub: NodeHub, row: dict[str, Any], node: NodeSession, active: str | None) -> None:
    """What the connection says; the platform stays the pinned one where there is one (V31)."""
    grant = node.link.grant
    assert grant is not None
    params = grant.params
    row["nodeId"] = node.node_id
    for name, value in (
        ("displayName", params.client.display_name or params.client.id),
        ("platform", params.client.platform),
        ("deviceFamily", params.client.device_family),
        ("clientId", params.client.id),
        ("clientMode", params.client.mode),
    ):
        if row.get(name) is None and value is not None:
            row[name] = value
    lent = hub.lends(node)
    row["version"] = params.client.version
    row["remoteIp"] = node.link.client_address
    row["secureChannel"] = node.link.secure
    row["caps"] = [cap for cap in node.caps if cap in row["caps"]]
    row["commands"] = sorted(lent)
    row["connectedAtMs"] = node.connected_at_ms
    row["lastSeenAtMs"] = max(row.get("lastSeenAtMs") or 0, node.connected_at_ms)
    row["lastSeenReason"] = "connect"
    row["nodePluginTools"] = [tool for tool in node.tools if tool.get("command") in lent]
    row["sessionHost"] = bool(node.inventory and node.inventory["workerHost"].get("enabled") is True)
    if params.client.model_identifier is not None:
        row["modelIdentifier"] = params.client.model_identifier
    if params.permissions:
        row["permissions"] = dict(params.permissions)
    if node.stats is not None:
        row["hostStats"] = dict(node.stats)
    if node.active_at_ms is not None:
        row["lastActiveAtMs"] = node.active_at_ms
        row["presenceUpdatedAtMs"] = node.activity_at_ms
        row["active"] = node.node_id == active


def _most_active(hub: NodeHub) -> str | None:
    """The Mac at which a person was last active."""
    told = [(node.active_at_ms, node.activity_at_ms or 0, node.node_id) for node in hub.registry if node.active_at_ms]
    return max(told)[2] if told else None
