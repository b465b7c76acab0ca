"""`node.list` and `node.pair.list`: what is known of nodes, out of the device book and the live connections in one look
(LIVE-5).

Owns the shape of a node's row (spec wire.md section 7, method-shapes.md). It must not know how nodes are invoked. A
node whose declared commands were not approved lends nothing: its row says ``pending-approval`` and shows neither caps
nor commands.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.pairing.records import PairedDevice
from openclaw_gateway.server.session import Session

__all__ = ["node_rows"]


def node_rows(paired: Iterable[PairedDevice], sessions: Iterable[Session]) -> list[dict[str, Any]]:
    """One row per node: those paired (connected or not) and those connected, newest connection first."""
    live: dict[str, Session] = {}
    for session in sessions:
        if session.role == "node":
            live[session.device_id or session.conn_id] = session
    rows: dict[str, dict[str, Any]] = {}
    for record in paired:
        if record.role == "node" and record.live:
            rows[record.device_id] = _paired_row(record)
    for node_id, session in live.items():
        rows.setdefault(node_id, {"nodeId": node_id, "paired": False}).update(_live_members(session))
    return sorted(rows.values(), key=lambda row: (not row["connected"], row.get("displayName") or row["nodeId"]))


def _paired_row(record: PairedDevice) -> dict[str, Any]:
    return {
        "nodeId": record.device_id,
        "displayName": record.label or record.display_name,
        "platform": record.platform,
        "deviceFamily": record.device_family,
        "clientId": record.client_id,
        "clientMode": record.client_mode,
        "remoteIp": record.last_ip,
        "caps": [],
        "commands": [],
        "approvalState": "pending-approval",
        "approvedAtMs": record.approved_at_ms,
        "lastSeenAtMs": record.last_seen_at_ms,
        "paired": True,
        "connected": False,
    }


def _live_members(session: Session) -> dict[str, Any]:
    assert session.grant is not None
    params = session.grant.params
    connected_at = now_ms() - round(session.connected_for * 1000)
    return {
        "displayName": params.client.display_name or params.client.id,
        "platform": params.client.platform,
        "version": params.client.version,
        "deviceFamily": params.client.device_family,
        "clientId": params.client.id,
        "clientMode": params.client.mode,
        "remoteIp": session.client_address,
        "caps": [],
        "commands": [],
        "pendingDeclaredCommands": list(params.commands),
        "approvalState": "pending-approval",
        "connectedAtMs": connected_at,
        "connected": True,
    }
