"""What is known of a node besides its pairing, as values: an approved surface, a surface that waits, durable facts.

Owns the records and their wire shapes (spec wire.md sections 7 and 11, method-shapes node.*). Pure: no clock, no files.
It must not know how records are stored nor who is connected.

Invariants: a surface belongs to one pairing (``paired_at_ms``), so that pairing a removed node anew revives nothing
(V33); names are printable and bounded; nothing in here is a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.policy.nodes import approve_scopes
from openclaw_gateway.value import Value

__all__ = [
    "EVENTS",
    "Declaration",
    "NodeFacts",
    "QueuedItem",
    "Surface",
    "SurfaceRequest",
    "names",
    "request_to_wire",
    "resolved_payload",
]

# Events of this room, for hello-ok.features.events.
EVENTS: Final = (
    "node.pair.requested",
    "node.pair.resolved",
    "node.invoke.request",
    "node.invoke.cancel",
    "node.invoke.progress",
    "node.exec",
    "node.hostStats",
    "node.presence",
    "node.runnerInventory.changed",
)
MAX_NAMES: Final = 256
MAX_NAME: Final = 128


def names(values: Iterable[str]) -> tuple[str, ...]:
    """Each once, sorted, at most 256; what is too long or not printable is left out, not changed."""
    kept = {value for value in values if 0 < len(value) <= MAX_NAME and value.isprintable()}
    return tuple(sorted(kept))[:MAX_NAMES]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Declaration(Value):
    """What a node says it can do, cut to what its kind may lend, with what is shown to whoever approves."""

    node_id: str
    paired_at_ms: int
    caps: tuple[str, ...]
    commands: tuple[str, ...]
    client_id: str
    client_mode: str
    display_name: str
    platform: str
    version: str
    device_family: str
    remote_ip: str


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Surface(Value):
    """What a person allowed a node to lend: the ceiling of everything it declares now or later."""

    node_id: str
    paired_at_ms: int
    caps: tuple[str, ...]
    commands: tuple[str, ...]
    approved_at_ms: int
    approved_via: str  # "operator:<principal>" or "setup-code"

    def covers(self, caps: Iterable[str], commands: Iterable[str]) -> bool:
        return set(caps) <= set(self.caps) and set(commands) <= set(self.commands)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class SurfaceRequest(Value):
    """A surface that waits for a person. One per node; it does not expire by time."""

    request_id: str
    node_id: str
    paired_at_ms: int
    caps: tuple[str, ...]
    commands: tuple[str, ...]
    client_id: str
    client_mode: str
    display_name: str
    platform: str
    version: str
    device_family: str
    remote_ip: str
    requested_at_ms: int

    def covers(self, caps: Iterable[str], commands: Iterable[str]) -> bool:
        return set(caps) <= set(self.caps) and set(commands) <= set(self.commands)

    @property
    def approve_scopes(self) -> tuple[str, ...]:
        return approve_scopes(self.commands)


@attrs.frozen(kw_only=True, eq=False, repr=False)
class NodeFacts(Value):
    """What outlives a connection for people to read: when a node was here last and how its host was doing."""

    node_id: str
    last_connected_at_ms: int | None = None
    last_seen_at_ms: int | None = None
    last_seen_reason: str | None = None
    version: str | None = None
    host_stats: Mapping[str, Any] | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class QueuedItem(Value):
    """Work that waits for a node. ``rank`` 1 comes before 0."""

    id: str
    node_id: str
    paired_at_ms: int
    type: str  # status.request | location.request
    rank: int
    created_at_ms: int
    expires_at_ms: int

    def to_wire(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": self.type,
            "priority": "high" if self.rank else "normal",
            "createdAtMs": self.created_at_ms,
            "expiresAtMs": self.expires_at_ms,
        }


def request_to_wire(request: SurfaceRequest) -> dict[str, Any]:
    """`node.pair.requested`, and a row of ``pending`` in `node.pair.list`."""
    return {
        "requestId": request.request_id,
        "nodeId": request.node_id,
        "clientId": request.client_id,
        "clientMode": request.client_mode,
        "displayName": request.display_name,
        "platform": request.platform,
        "version": request.version,
        "deviceFamily": request.device_family,
        "remoteIp": request.remote_ip,
        "caps": list(request.caps),
        "commands": list(request.commands),
        "requiredApproveScopes": list(request.approve_scopes),
        "silent": False,
        "ts": request.requested_at_ms,
    }


def resolved_payload(request_id: str, node_id: str, decision: str, now: int) -> dict[str, Any]:
    """`node.pair.resolved`: approved, rejected, superseded, removed."""
    return {"requestId": request_id, "nodeId": node_id, "decision": decision, "ts": now}
