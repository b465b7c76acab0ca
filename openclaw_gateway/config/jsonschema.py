"""The JSON Schema of openclaw.json (draft 2020-12), made from the attrs classes.

Owns ``openclaw config schema`` and ``config.schema``: types, defaults, allowed words and a sentence for each setting.
Must not be imported at a start. The sentences live here; docs/reference/configuration.md has one heading for each
(tests compare both with the schema).

Invariants: every setting has a sentence; unknown keys are allowed, because a file made for the whole of OpenClaw is
valid.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any, Final, Literal

from openclaw_gateway.config.leaves import BIND_NAMES, RANGES
from openclaw_gateway.config.settings import ALIASES, Setting, collections, settings

__all__ = ["DESCRIPTIONS", "json_schema"]

DESCRIPTIONS: Final[Mapping[str, str]] = {
    "gateway.bind": "Where to listen: loopback (this host only), lan (every interface), tailnet, auto, custom "
    "(customBindHost), or an IP address such as 0.0.0.0.",
    "gateway.customBindHost": "The address to listen on when bind is custom.",
    "gateway.port": "The one TCP port for WebSocket and HTTP; 0 takes any free one.",
    "gateway.publicUrl": "The address under which other devices reach this gateway; setup codes name it.",
    "gateway.mode": "local runs a gateway here; remote means the commands talk to gateway.remote.url.",
    "gateway.auth.type": "How clients prove who they are. OpenClaw's name for it is gateway.auth.mode.",
    "gateway.auth.token": "The shared token; without one a token is generated and kept in the state directory.",
    "gateway.auth.password": "The password in plain text; prefer passwordHash or a ${NAME} reference.",
    "gateway.auth.passwordHash": "The bcrypt hash of the password ($2a$, $2b$ or $2y$, cost 4 to 16).",
    "gateway.auth.passwordChangedAt": "When the password was set (date or Unix seconds); maxAge counts from here.",
    "gateway.auth.policy.minLength": "Least length of a plaintext password.",
    "gateway.auth.policy.requireUppercase": "The password needs a capital letter.",
    "gateway.auth.policy.requireLowercase": "The password needs a small letter.",
    "gateway.auth.policy.requireNumbers": "The password needs a digit.",
    "gateway.auth.policy.requireSymbols": "The password needs a character that is neither letter nor digit.",
    "gateway.auth.policy.maxAge": "How long a password is good, such as 90d; afterwards it is refused.",
    "gateway.auth.expiresIn": "Life of every token that the gateway issues, such as 24h; unset means no end.",
    "gateway.auth.refresh.enabled": "Whether issued tokens can be renewed.",
    "gateway.auth.refresh.maxUses": "How often one issued token can be renewed.",
    "gateway.auth.allowTailscale": "Whether an identity vouched for by Tailscale Serve counts as authentication.",
    "gateway.auth.allowQueryToken": "Whether ?token= in the address is accepted (direct loopback and TLS only).",
    "gateway.transports.websocket.enabled": "Whether WebSocket upgrades are served.",
    "gateway.transports.websocket.pingIntervalMs": "Milliseconds between pings; lower it on an unstable network.",
    "gateway.transports.websocket.pingTimeoutMs": "Milliseconds a peer has for its pong, from the flush of the ping.",
    "gateway.transports.websocket.maxMessageSize": "Bytes of the largest message taken; raise it for large files.",
    "gateway.transports.websocket.concurrentConnections": "Connections in all; one more is closed with 1013.",
    "gateway.transports.websocket.unauthenticatedPerAddress": "Unauthenticated connections one address may hold.",
    "gateway.transports.websocket.maxBufferedBytes": "Unsent bytes for a slow reader before it is closed with 1008.",
    "gateway.transports.websocket.handshakeTimeoutMs": "Milliseconds a client has to authenticate.",
    "gateway.transports.websocket.tickIntervalMs": "Milliseconds between tick events.",
    "gateway.transports.http.enabled": "Whether plain HTTP requests (webhooks, POST /rpc) are served.",
    "gateway.transports.http.port": "Must equal gateway.port or be absent: there is one port.",
    "gateway.transports.http.cors.enabled": "Whether HTTP answers carry CORS headers (never with credentials).",
    "gateway.transports.http.cors.origins": "Origins that CORS allows; * for all. WebSocket has its own rule.",
    "gateway.tailscale.mode": "Publish on the tailnet (serve) or the internet (funnel); needs a loopback bind.",
    "gateway.tailscale.resetOnExit": "true: the route dies with the gateway. false: it stays.",
    "gateway.controlUi.enabled": "Whether the dashboard is served.",
    "gateway.controlUi.allowedOrigins": "Browser origins, scheme://host[:port], that may open a WebSocket.",
    "gateway.trustedProxies": "Addresses or networks of reverse proxies whose forwarding headers are believed.",
    "gateway.pairing.autoApprove.loopback": "Pair devices on this host without asking. OpenClaw's name: "
    "gateway.nodes.pairing.autoApproveLocal.",
    "gateway.pairing.autoApprove.ownTailnet": "Pair devices from this host's own tailnet address without asking.",
    "gateway.pairing.autoApprove.lan": "Networks whose fresh, scopeless nodes are paired without asking. "
    "OpenClaw's name: gateway.nodes.pairing.autoApproveCidrs.",
    "gateway.pairing.autoApprove.sharedSecret": "baseline: a signed device with the secret pairs at read and write.",
    "gateway.pairing.requestTtlMs": "Milliseconds a pairing request stays open.",
    "gateway.pairing.setupCodeTtlMs": "Milliseconds a setup code can be used; ten minutes at most.",
    "gateway.pairing.senderCodeTtlMs": "Milliseconds a pairing code for a direct-message sender is good.",
    "gateway.nodes.invokeTimeoutMs": "Milliseconds a node has to answer an invoke.",
    "gateway.nodes.commands.allow": "Node commands that may be approved besides those of the platform, by exact name.",
    "gateway.nodes.commands.deny": "Node commands that are refused whatever else allows them, by exact name.",
    "gateway.remote.url": "The gateway that commands talk to in remote mode, such as wss://host:18789.",
    "gateway.remote.token": "The remote gateway's token; never used for this host's own gateway.",
    "gateway.remote.password": "The remote gateway's password; never used for this host's own gateway.",
    "gateway.remote.tlsFingerprint": "SHA-256 fingerprint of the remote gateway's key or certificate.",
    "channels.*.enabled": "Whether the channel runs.",
    "channels.*.dm.policy": "Who may write directly: open, pairing (a stranger asks for a code), allowlist, closed. "
    "OpenClaw's name: dmPolicy, with disabled for closed.",
    "channels.*.dm.allowFrom": "Stable ids of senders that are always let in. OpenClaw's name: allowFrom.",
    "discovery.mdns.mode": "What is said about the gateway on the LAN: off (nothing), minimal (nothing about the "
    "host), full (also its name, ssh port and the path of the command). Nothing is said while only this host can "
    "connect.",
    "discovery.wideArea.domain": "The DNS domain under which the gateway is found beyond its LAN, such as "
    "openclaw.internal: the gateway writes its zone file, the commands ask it.",
    "discovery.wideArea.zoneFile": "The zone file; default: dns/openclaw.internal.db in the state directory, named "
    "after the domain.",
    "logging.level": "The least severe lines that are logged.",
    "logging.maxBytes": "Bytes at which the log file is rotated. OpenClaw's name: maxFileBytes.",
    "logging.backups": "Rotated log files that are kept.",
    "logging.file": "The log file; default: logs/gateway.log in the state directory.",
    "logging.console": "Whether lines also go to the terminal.",
}

_DURATIONS: Final = frozenset({"gateway.auth.expiresIn", "gateway.auth.policy.maxAge"})


def json_schema() -> dict[str, Any]:
    """The schema as a JSON value."""
    root: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "openclaw.json",
        "type": "object",
        "properties": {},
        "additionalProperties": True,
    }
    for path, setting in settings().items():
        _place(root, path, _leaf(setting))
    for alias, target in ALIASES.items():
        note = {**_leaf(settings()[target]), "description": f"Another name of {target}.", "deprecated": True}
        _place(root, alias, note)
    return root


def _place(root: dict[str, Any], path: str, leaf: dict[str, Any]) -> None:
    node, at = root, ""
    *blocks, key = path.split(".")
    for block in blocks:
        empty: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}
        if block == "*":
            slot = "items" if collections()[at].kind == "list" else "additionalProperties"
            if slot == "items":
                node["type"] = "array"
                node.pop("properties", None)
                node.pop("additionalProperties", None)
            if not isinstance(node.get(slot), dict):
                node[slot] = empty
            node = node[slot]
        else:
            node = node["properties"].setdefault(block, empty)
        at = f"{at}.{block}" if at else block
    node["properties"].setdefault(key, leaf)
    if path in settings() and settings()[path].required:
        node.setdefault("required", []).append(key)


def _leaf(setting: Setting) -> dict[str, Any]:
    out: dict[str, Any] = {"description": DESCRIPTIONS[setting.path], **_type(setting)}
    if setting.default is not None:
        out["default"] = list(setting.default) if isinstance(setting.default, tuple) else setting.default
    if setting.secret:
        out["writeOnly"] = True
    return out


def _is_map(annotation: Any) -> bool:
    origin = typing.get_origin(annotation)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _type(setting: Setting) -> dict[str, Any]:
    if setting.path == "gateway.bind":
        return {"type": "string", "anyOf": [{"enum": list(BIND_NAMES)}, {"format": "ipv4"}, {"format": "ipv6"}]}
    if setting.path in _DURATIONS:
        return {"type": ["string", "number"], "examples": ["15m", "24h", "90d"]}
    if setting.path == "gateway.auth.passwordChangedAt":
        return {"type": ["string", "number"], "examples": ["2026-01-31"]}
    kinds = [kind for kind in (typing.get_args(setting.type) or (setting.type,)) if kind is not type(None)]
    if typing.get_origin(setting.type) is Literal:
        return {"type": "string", "enum": kinds}
    if typing.get_origin(setting.type) is tuple:
        return {"type": "array", "items": {"type": "string"}}
    if kinds == [bool]:
        return {"type": "boolean"}
    if kinds == [int]:
        low, high = RANGES.get(setting.path, (1, 2**53))
        return {"type": "integer", "minimum": low, "maximum": high}
    if kinds == [float]:
        return {"type": "number"}
    if _is_map(setting.type):
        return {"type": "object"}
    return {"type": "string"}
