"""Which setting takes which value: one row for each that is more than its type.

Owns the ranges of numbers, the table of readers (`config.values` has them, by kind of value) and `read_leaf`, which
reads one written value as its setting wants it. Must not know other settings (`config.rules` does), files, or what
takes the place of a bad value.

Invariants: `read_leaf` returns a value of the setting's type or raises `BadValueError`; a `BadValueError` never
repeats a secret; every secret of `settings.SECRETS` has a reader that keeps it so.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any, Final

from openclaw_gateway.config.interpolate import Unresolved
from openclaw_gateway.config.settings import SECRETS, VALUE_ALIASES, Setting, pattern
from openclaw_gateway.config.values import addresses, hooks, names, plain, secrets, ssh, times, urls
from openclaw_gateway.config.values.addresses import BIND_NAMES, RESERVED_LISTENERS, network
from openclaw_gateway.config.values.plain import BadValueError, unresolved
from openclaw_gateway.config.values.times import duration, duration_text
from openclaw_gateway.config.values.urls import origin

__all__ = [
    "BIND_NAMES",
    "DURATIONS",
    "RANGES",
    "RESERVED_LISTENERS",
    "BadValueError",
    "duration",
    "duration_text",
    "network",
    "origin",
    "read_leaf",
    "unresolved",
]

# Inclusive. What is not listed must be at least 1.
RANGES: Final[Mapping[str, tuple[int, int]]] = {
    "gateway.port": (0, 65535),
    "gateway.tailscale.port": (1, 65535),
    "gateway.listeners.*.port": (0, 65535),
    "gateway.transports.http.port": (1, 65535),
    "gateway.auth.refresh.maxUses": (1, 1_000_000_000),
    "gateway.auth.policy.minLength": (1, 1024),
    "gateway.transports.websocket.pingIntervalMs": (1_000, 3_600_000),
    "gateway.transports.websocket.pingTimeoutMs": (1_000, 3_600_000),
    "gateway.transports.websocket.maxMessageSize": (1_024, 2 * 1024**3 - 1),
    "gateway.transports.websocket.concurrentConnections": (1, 1_000_000),
    "gateway.transports.websocket.unauthenticatedPerAddress": (1, 100_000),
    "gateway.transports.websocket.maxBufferedBytes": (65_536, 2 * 1024**3 - 1),
    "gateway.transports.websocket.handshakeTimeoutMs": (1_000, 600_000),
    "gateway.transports.websocket.tickIntervalMs": (1_000, 3_600_000),
    "gateway.pairing.requestTtlMs": (10_000, 30 * 86_400_000),
    "gateway.pairing.setupCodeTtlMs": (30_000, 600_000),
    "gateway.pairing.senderCodeTtlMs": (60_000, 7 * 86_400_000),
    "gateway.nodes.invokeTimeoutMs": (100, 86_400_000),
    "gateway.remote.remotePort": (1, 65535),
    "gateway.remote.routes.*.remotePort": (1, 65535),
    "gateway.tunnels.*.port": (1, 65535),
    "gateway.tunnels.*.bindPort": (1, 65535),
    "gateway.tunnels.*.targetPort": (1, 65535),
    "gateway.tunnels.*.aliveInterval": (1, 3_600),
    "logging.maxBytes": (65_536, 10 * 1024**3),
    "logging.backups": (0, 1_000),
    "agents.defaults.timeoutSeconds": (1, 86_400),
    "agents.defaults.contextTokens": (1_000, 10_000_000),
    "models.providers.*.timeoutSeconds": (1, 3_600),
    "models.providers.*.maxTokens": (1, 10_000_000),
    "models.providers.*.models.*.contextWindow": (1_000, 100_000_000),
    "models.providers.*.models.*.contextTokens": (1_000, 100_000_000),
    "models.providers.*.models.*.maxTokens": (1, 10_000_000),
    "hooks.mappings.*.signature.toleranceSeconds": (1, 3_600),
    "hooks.mappings.*.timeoutSeconds": (1, 86_400),
    "session.reset.atHour": (0, 23),
    "session.reset.idleMinutes": (1, 525_600),
    "session.transcript.maxBytes": (16 * 1024**2, 16 * 1024**3),
    "session.transcript.maxTotalBytes": (64 * 1024**2, 1024**4),
}
DURATIONS: Final = ("gateway.auth.policy.maxAge", "gateway.auth.expiresIn")
_OWN_READERS: Final = frozenset({"gateway.auth.passwordHash", "gateway.auth.trustedProxy.secret"})


def read_leaf(setting: Setting, path: str, value: Any) -> Any:
    """``value`` as ``setting`` wants it. ``path`` is the path in the file (a channel's name in place of ``*``)."""
    if isinstance(value, Unresolved):
        raise plain.unset(value)
    words = VALUE_ALIASES.get(setting.path)
    if words is not None and isinstance(value, str):
        value = words.get(value.lower(), value)
    special = _SPECIAL.get(setting.path)
    if special is not None:
        return special(value, path)
    if isinstance(typing.get_origin(setting.type), type) and issubclass(typing.get_origin(setting.type), Mapping):
        return plain.named(value, typing.get_args(setting.type)[1])
    try:
        typed = plain.converter().structure(value, setting.type)
    except BadValueError:
        raise
    except Exception as error:
        raise BadValueError("not a valid value") from error
    if type(typed) is int:
        low, high = RANGES.get(setting.path, (1, 2**53))
        if not low <= typed <= high:
            raise BadValueError(f"must be from {low} to {high}")
    return typed


_SPECIAL: Final[Mapping[str, Callable[[Any, str], Any]]] = {
    "gateway.bind": addresses.bind,
    "gateway.customBindHost": addresses.address,
    "gateway.auth.passwordHash": secrets.bcrypt,
    "gateway.auth.passwordChangedAt": times.instant,
    **dict.fromkeys(DURATIONS, duration),
    "gateway.trustedProxies": addresses.networks,
    "gateway.auth.trustedProxy.userHeader": lambda value, path: names.header(value)[0],
    "gateway.auth.trustedProxy.requiredHeaders": plain.all_or_nothing(names.headers),
    "gateway.auth.trustedProxy.allowUsers": plain.all_or_nothing(names.users),
    "gateway.auth.identityScopes": plain.all_or_nothing(names.identity_scopes),
    "gateway.network.allow": addresses.peers,
    "gateway.network.deny": addresses.peers,
    "gateway.listeners.*.name": addresses.listener_name,
    "gateway.listeners.*.bind": addresses.listener_bind,
    "gateway.listeners.*.allow": addresses.peers,
    "gateway.listeners.*.deny": addresses.peers,
    "gateway.listeners.*.methods": names.ceiling,
    "gateway.listeners.*.scopes": names.scopes,
    "gateway.pairing.autoApprove.lan": addresses.networks,
    "gateway.nodes.commands.allow": names.commands,
    "gateway.nodes.commands.deny": names.commands,
    "gateway.controlUi.allowedOrigins": urls.origins,
    "gateway.transports.http.cors.origins": urls.cors_origins,
    "gateway.publicUrl": urls.url,
    "gateway.remote.url": urls.url,
    "gateway.remote.tlsFingerprint": addresses.fingerprint,
    "discovery.wideArea.domain": addresses.zone,
    "gateway.remote.sshTarget": ssh.target,
    "gateway.remote.sshIdentity": ssh.key_file,
    "gateway.remote.sshKnownHosts": ssh.key_file,
    "gateway.remote.routes.*.sshKnownHosts": ssh.key_file,
    "gateway.remote.routes.*.url": urls.url,
    "gateway.remote.routes.*.tlsFingerprint": addresses.fingerprint,
    "gateway.remote.routes.*.sshTarget": ssh.target,
    "gateway.remote.routes.*.sshIdentity": ssh.key_file,
    "gateway.tunnels.*.name": ssh.tunnel_name,
    "gateway.tunnels.*.host": ssh.host,
    "gateway.tunnels.*.user": ssh.user,
    "gateway.tunnels.*.identity": ssh.key_file,
    "gateway.tunnels.*.knownHosts": ssh.key_file,
    "channels.*.dm.allowFrom": names.senders,
    "agents.list.*.id": names.agent_id,
    "agents.list.*.command": plain.argv,
    **{path: secrets.secret for path in SECRETS if path not in _OWN_READERS},
    "gateway.auth.trustedProxy.secret": secrets.proxy_secret,
    "agents.list.*.env": secrets.variables,
    "models.providers.*.headers": secrets.header_lines,
    "models.providers.*.baseUrl": urls.service_url,
    "gateway.auth.oidc.issuer": urls.issuer,
    "gateway.auth.oidc.redirectUri": urls.issuer,
    "gateway.auth.oidc.scopes": names.login_scopes,
    "hooks.path": hooks.base_path,
    "hooks.mappings.*.match.path": hooks.name,
    "hooks.mappings.*.messageTemplate": hooks.template,
    "hooks.mappings.*.textTemplate": hooks.template,
    "hooks.mappings.*.agentId": names.agent_id,
    **{f"hooks.mappings.*.signature.{name}": hooks.header_name for name in ("header", "timestampHeader", "idHeader")},
    "hooks.outbound.*.name": names.agent_id,
    "hooks.outbound.*.url": hooks.target_url,
    "hooks.outbound.*.events": hooks.event_names,
}

assert all(pattern(path) == path for path in _SPECIAL)
