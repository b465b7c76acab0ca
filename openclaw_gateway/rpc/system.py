"""Methods about the gateway as a whole: health, status, presence, heartbeats, identity, stability.

Owns their shapes (method-shapes.md). It must not know connections beyond their count. What scopes may see is cut here:
the shape of a reply does not change with the caller, only members that name this machine are left out below
``operator.admin`` (V50, V51).
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from openclaw_gateway.agents.overview import without_names
from openclaw_gateway.events.presence import Presence
from openclaw_gateway.ops.health import Health, machine_memory, process_memory
from openclaw_gateway.ops.stability import StabilityLog
from openclaw_gateway.protocol.scopes import satisfies
from openclaw_gateway.rpc.table import ANY_OPERATOR, CallContext, MethodTable, NoParams
from openclaw_gateway.value import Value

__all__ = ["register"]

_MAX_TEXT = 2000


@attrs.frozen(eq=False, repr=False)
class HealthParams(Value):
    probe: bool = False
    include_sensitive: bool | None = None


@attrs.frozen(eq=False, repr=False)
class StatusParams(Value):
    include_channel_summary: bool = True
    include_cli_projection: bool = False


@attrs.frozen(eq=False, repr=False)
class SystemEventParams(Value):
    text: str
    device_id: str | None = None
    instance_id: str | None = None
    host: str | None = None
    ip: str | None = None
    mode: str | None = None
    version: str | None = None
    platform: str | None = None
    device_family: str | None = None
    model_identifier: str | None = None
    last_input_seconds: int | None = None
    reason: str | None = None
    roles: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@attrs.frozen(eq=False, repr=False)
class SetHeartbeatsParams(Value):
    enabled: bool


@attrs.frozen(eq=False, repr=False)
class StabilityParams(Value):
    limit: int = 50
    type: str | None = None
    since_seq: int | None = None


def register(
    table: MethodTable,
    *,
    health: Health,
    presence: Presence,
    stability: StabilityLog,
    connections: Callable[[], dict[str, Any]],
    applied_hash: Callable[[], str | None],
    identity: Callable[[], dict[str, Any]],
    listeners: Callable[[], list[dict[str, Any]]],
    tls: Callable[[], dict[str, Any] | None],
    tailscale: Callable[[], dict[str, Any]] = lambda: {"mode": "off", "state": "off"},
    tunnels: Callable[[], list[dict[str, Any]]] = list,
    on_health: Callable[[], None],
    discovery: Callable[[], dict[str, Any]],
    channel_summary: Callable[[], list[str]],
    sessions: Callable[[], dict[str, Any]],
) -> None:
    """Add this family. ``connections`` tells counts by role, ``applied_hash`` the SHA-256 of
    the configuration text in use (None without a file), ``identity`` the gateway's device id and key,
    ``listeners`` where it listens and for whom, ``tls`` how its certificate is doing (None: no TLS), ``on_health``
    is called after a health call that asked for a probe (the ``health`` event follows it), ``discovery`` tells how
    this gateway is announced on the LAN, ``channel_summary`` gives a line for each account of a message channel,
    ``sessions`` what `status` tells of conversations.
    """

    def get_health(context: CallContext, params: HealthParams) -> dict[str, Any]:
        if params.probe:
            on_health()
        view = {**health.view(), "modelRuntime": {"degraded": False, "pendingAgents": []}}
        return view if satisfies(context.scopes, "operator.read") else without_names(view)

    def get_status(context: CallContext, params: StatusParams) -> dict[str, Any]:
        out: dict[str, Any] = {
            "runtimeVersion": health.server_version,
            "uptimeMs": health.uptime_ms,
            "heartbeat": {"defaultAgentId": health.view()["defaultAgentId"], "agents": []},
            "channelSummary": channel_summary() if params.include_channel_summary else [],
            "queuedSystemEvents": [],
            "degradedSecretOwners": [],
            "degradedPlugins": [],
            "tasks": {
                "total": 0,
                "active": 0,
                "terminal": 0,
                "failures": 0,
                "byStatus": {},
                "byRuntime": {},
            },
            "taskAudit": {"total": 0, "warnings": 0, "errors": 0, "byCode": {}},
            "sessions": sessions(),
            "modelRuntime": {"degraded": False, "pendingAgents": []},
            "tailscale": tailscale(),
            "tunnels": tunnels(),
            "connections": connections(),
            "parts": {name: trouble or "ready" for name, trouble in health.parts.items()},
            "configIssues": list(health.config_issues),
            "appliedConfigHash": applied_hash(),
            "discovery": discovery(),
            "tls": tls(),
            "eventLoop": health.loop.view(),
            "processMemory": process_memory(),
        }
        if "operator.admin" in context.scopes:
            out["pid"] = os.getpid()
        return out

    def get_presence(context: CallContext, params: NoParams) -> msgspec.Raw:
        return presence.encoded()

    def post_system_event(context: CallContext, params: SystemEventParams) -> dict[str, Any]:
        key = params.device_id or params.instance_id or params.host or context.conn_id
        entry = {
            "host": params.host,
            "ip": params.ip,
            "mode": params.mode,
            "version": params.version,
            "platform": params.platform,
            "deviceFamily": params.device_family,
            "modelIdentifier": params.model_identifier,
            "lastInputSeconds": params.last_input_seconds,
            "deviceId": params.device_id,
            "instanceId": params.instance_id,
            "roles": list(params.roles) or None,
            "tags": list(params.tags) or None,
            "text": params.text[:_MAX_TEXT],
        }
        shown = {name: value for name, value in entry.items() if value is not None}
        presence.update(key[:256], shown, reason=(params.reason or "system-event")[:64])
        return {"ok": True}

    def get_last_heartbeat(context: CallContext, params: NoParams) -> dict[str, Any] | None:
        return health.last_heartbeat

    def set_heartbeats(context: CallContext, params: SetHeartbeatsParams) -> dict[str, Any]:
        health.heartbeats_enabled = params.enabled
        return {"ok": True, "enabled": params.enabled}

    def get_identity(context: CallContext, params: NoParams) -> dict[str, Any]:
        return identity()

    def get_listeners(context: CallContext, params: NoParams) -> dict[str, Any]:
        return {"listeners": listeners()}

    def get_stability(context: CallContext, params: StabilityParams) -> dict[str, Any]:
        return stability.view(limit=max(0, min(params.limit, stability.capacity)), type_=params.type)

    def get_system(context: CallContext, params: NoParams) -> dict[str, Any]:
        return {
            "machineName": platform.node(),
            "hostname": platform.node(),
            "platform": platform.system().lower(),
            "release": platform.release(),
            "arch": platform.machine(),
            "osLabel": f"{platform.system()} {platform.release()}",
            "pid": os.getpid(),
            "uptimeMs": health.uptime_ms,
            "cpuCount": os.cpu_count() or 1,
            "loadAverage": [round(load, 2) for load in os.getloadavg()],
            "eventLoop": health.loop.view(),
            "processMemory": process_memory(),
            # What OpenClaw's own gateway runs on; here it is this.
            "nodeVersion": f"Python {platform.python_version()}",
            **machine_memory(),
        }

    read = "operator.read"
    table.method("health", scope=ANY_OPERATOR, params=HealthParams)(get_health)
    table.method("status", scope=read, params=StatusParams)(get_status)
    table.method("system-presence", scope=read)(get_presence)
    table.method("system-event", scope="operator.admin", params=SystemEventParams)(post_system_event)
    table.method("last-heartbeat", scope=read)(get_last_heartbeat)
    table.method("set-heartbeats", scope="operator.admin", params=SetHeartbeatsParams)(set_heartbeats)
    table.method("gateway.identity.get", scope=read, also_nodes=True)(get_identity)
    table.method("gateway.listeners", scope=read)(get_listeners)
    table.method("diagnostics.stability", scope=read, params=StabilityParams)(get_stability)
    table.method("system.info", scope="operator.admin", params=NoParams, lenient=True)(get_system)


def host_facts(version: str, host: str) -> dict[str, Any]:
    """The gateway's own presence entry, but for time and reason."""
    return {
        "host": host,
        "version": version,
        "platform": platform.system().lower(),
        "deviceFamily": platform.system(),
        "instanceId": "gateway",
        "text": f"Gateway: {host} · {version}",
    }
