"""``hello-ok``: what a connection is told once it is admitted, cut to what its scopes may see (V50).

Owns the shape (spec wire.md section 4) and the rule of who sees which part. Invariants: paths of this machine, the
authentication mode and the configuration's hash go to ``operator.admin`` alone; presence and health to
``operator.read`` and above; a node sees neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from openclaw_gateway.protocol.scopes import ADMIN, READ, satisfies
from openclaw_gateway.value import Value

__all__ = ["DeviceTokenGrant", "HandedToken", "HelloLimits", "HelloSnapshot", "hello_ok"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HelloLimits(Value):
    """``policy``: bytes and milliseconds."""

    max_payload: int
    max_buffered_bytes: int
    tick_interval_ms: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HelloSnapshot(Value):
    """Everything a snapshot may hold; `hello_ok` drops what the connection may not see."""

    presence: Sequence[Mapping[str, Any]] | msgspec.Raw = ()
    health: Mapping[str, Any] | msgspec.Raw = attrs.field(factory=dict)
    presence_version: int = 0
    health_version: int = 0
    uptime_ms: int = 0
    config_path: str | None = None
    state_dir: str | None = None
    auth_mode: str | None = None
    applied_config_hash: str | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class DeviceTokenGrant(Value):
    """The device's own token and, where tokens have a life, its end and what renews it. Unix milliseconds."""

    token: str = attrs.field(repr=False)
    issued_at_ms: int
    expires_at_ms: int | None = None
    refresh_token: str | None = attrs.field(default=None, repr=False)
    refresh_expires_at_ms: int | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class HandedToken(Value):
    """A token for another role of the same device, handed over when a phone redeems a setup code."""

    grant: DeviceTokenGrant
    role: str
    scopes: tuple[str, ...]

    def to_wire(self) -> dict[str, Any]:
        return {"role": self.role, "scopes": list(self.scopes), **_token_to_wire(self.grant)}


def hello_ok(
    *,
    protocol: int,
    server_version: str,
    conn_id: str,
    boot_id: str,
    methods: Sequence[str] | msgspec.Raw,
    events: Sequence[str] | msgspec.Raw,
    capabilities: Sequence[str] = (),
    snapshot: HelloSnapshot,
    limits: HelloLimits,
    role: str,
    scopes: Sequence[str],
    method: str,
    device_token: DeviceTokenGrant | None = None,
    handed: Sequence[HandedToken] = (),
) -> dict[str, Any]:
    """The payload of the reply to ``connect``; ready for `protocol.frames.encode_ok`."""
    granted = frozenset(scopes) if role == "operator" else frozenset[str]()
    auth: dict[str, Any] = {"method": method, "role": role, "scopes": list(scopes)}
    if device_token is not None:
        auth.update(_token_to_wire(device_token))
    if handed:
        auth["deviceTokens"] = [token.to_wire() for token in handed]
    return {
        "type": "hello-ok",
        "protocol": protocol,
        "server": {
            "version": server_version,
            # Without it the Control UI compares our version with its own build and starts to reload itself.
            "controlUiBuildSource": "configured",
            "bootId": boot_id,
            "connId": conn_id,
        },
        "features": {"methods": methods, "events": events, "capabilities": list(capabilities)},
        "snapshot": _visible(snapshot, granted),
        "auth": auth,
        "policy": {
            "maxPayload": limits.max_payload,
            "maxBufferedBytes": limits.max_buffered_bytes,
            "tickIntervalMs": limits.tick_interval_ms,
        },
    }


def _token_to_wire(token: DeviceTokenGrant) -> dict[str, Any]:
    row = {
        "deviceToken": token.token,
        "issuedAtMs": token.issued_at_ms,
        "expiresAtMs": token.expires_at_ms,
        "refreshToken": token.refresh_token,
        "refreshExpiresAtMs": token.refresh_expires_at_ms,
    }
    return {key: value for key, value in row.items() if value is not None}


def _visible(snapshot: HelloSnapshot, granted: frozenset[str]) -> dict[str, Any]:
    reads = satisfies(granted, READ)
    out: dict[str, Any] = {
        "presence": snapshot.presence if reads else [],
        "health": snapshot.health if reads else {},
        "stateVersion": {"presence": snapshot.presence_version, "health": snapshot.health_version},
        "uptimeMs": snapshot.uptime_ms,
    }
    if satisfies(granted, ADMIN):
        private = {
            "configPath": snapshot.config_path,
            "stateDir": snapshot.state_dir,
            "authMode": snapshot.auth_mode,
            "appliedConfigHash": snapshot.applied_config_hash,
        }
        out.update({key: value for key, value in private.items() if value is not None})
    return out
