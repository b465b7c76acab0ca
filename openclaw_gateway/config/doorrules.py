"""Which settings of addresses may stand together: bind, ports, listeners, tunnels, TLS, networks, proxies.

Owns what may be opened where, and what a listener or a tunnel that others can reach must ask for. It must not know how
somebody proves who he is (`config.authrules`) nor look at this host's addresses (`server.plans` does).

Invariants: a listener or a tunnel that cannot be opened safely as written is left out, with its issue; no two listeners
have one name or one port.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import attrs

from openclaw_gateway.config.issues import ConfigIssue
from openclaw_gateway.config.schema import GatewayConfig, ListenerConfig, TunnelConfig
from openclaw_gateway.policy.addresses import parse_networks

__all__ = [
    "MAX_LISTENERS",
    "is_loopback_bind",
    "judge_surroundings",
    "judge_tls",
    "settle_bind",
    "settle_listeners",
    "settle_ports",
    "settle_tunnels",
]

MAX_LISTENERS: Final = 8  # beside the main one and those that tunnels and Tailscale open
_WIDE_NETWORK: Final = {4: 8, 6: 16}  # prefixes up to these cover far more than a proxy


def is_loopback_bind(config: GatewayConfig) -> bool:
    """Whether nothing outside this host can reach the listener, whatever ``bind`` turns into at run time."""
    host = config.custom_bind_host if config.bind == "custom" else config.bind
    if host in {None, "loopback"}:
        return True
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False


def settle_bind(config: GatewayConfig, found: list[ConfigIssue]) -> GatewayConfig:
    if config.bind == "custom" and config.custom_bind_host is None:
        found.append(
            ConfigIssue(
                path="gateway.customBindHost",
                message="gateway.bind is custom, but no address is given; in use: loopback",
                fix="openclaw config set gateway.customBindHost <address>",
            )
        )
        return attrs.evolve(config, bind="loopback")
    return config


def settle_ports(config: GatewayConfig, found: list[ConfigIssue]) -> GatewayConfig:
    http = config.transports.http
    if http.port is None or http.port == config.port or config.port == 0:
        return config
    found.append(
        ConfigIssue(
            path="gateway.transports.http.port",
            message=f"HTTP and WebSocket share one port; in use: gateway.port ({config.port})",
            fix="openclaw config unset gateway.transports.http.port",
        )
    )
    return attrs.evolve(config, transports=attrs.evolve(config.transports, http=attrs.evolve(http, port=None)))


def settle_listeners(config: GatewayConfig, found: list[ConfigIssue]) -> GatewayConfig:
    """Further listeners: each has its own name and place, and none that others can reach is open."""
    kept: list[ListenerConfig] = []
    names: set[str] = set()
    for index, listener in enumerate(config.listeners):
        path = f"gateway.listeners.{index}"
        fault, fix = _listener_fault(config, listener, names, kept)
        if fault is not None:
            found.append(ConfigIssue(path=path, message=f"{fault}; this listener is not opened", fix=fix))
            continue
        names.add(listener.name)
        kept.append(listener)
    return config if len(kept) == len(config.listeners) else attrs.evolve(config, listeners=tuple(kept))


def _listener_fault(
    config: GatewayConfig, listener: ListenerConfig, names: set[str], others: list[ListenerConfig]
) -> tuple[str | None, str | None]:
    if listener.name in names:
        return f"there is a listener named {listener.name} already", "openclaw config get gateway.listeners"
    if len(others) >= MAX_LISTENERS:
        return f"more than {MAX_LISTENERS} listeners", "openclaw config get gateway.listeners"
    taken = [other.name for other in others if other.port == listener.port and listener.port]
    if listener.port and (listener.port == config.port or taken):
        whose = taken[0] if taken else "the main listener"
        return f"port {listener.port} is that of {whose}", "give it a port of its own"
    if listener.auth == "none" and not is_loopback_bind(attrs.evolve(config, bind=listener.bind)):
        return f"auth none is not possible with bind {listener.bind}", "openclaw config unset gateway.listeners"
    if listener.auth == "password" and not (config.auth.password or config.auth.password_hash):
        fix = "openclaw config set gateway.auth.passwordHash '<bcrypt hash>'"
        return "auth password, but no password is set in the configuration", fix
    if (listener.auth == "trusted-proxy" or listener.proxy_protocol) and not config.trusted_proxies:
        what = "proxyProtocol" if listener.proxy_protocol else "auth trusted-proxy"
        return f"{what}, but no proxy is trusted", "openclaw config set gateway.trustedProxies '[\"<address>\"]'"
    return None, None


def judge_tls(config: GatewayConfig, found: list[ConfigIssue]) -> None:
    tls = config.tls
    encrypted = tls.enabled or any(listener.tls for listener in config.listeners)
    if tls.key_path is not None and tls.cert_path is None:
        found.append(
            ConfigIssue(
                path="gateway.tls.certPath",
                message="gateway.tls.keyPath is set, but no certificate: the key is not used",
                fix="openclaw config set gateway.tls.certPath <file>",
            )
        )
    if encrypted and tls.cert_path is None and not tls.auto_generate:
        found.append(
            ConfigIssue(
                path="gateway.tls.certPath",
                message="no certificate is configured, and none may be generated; in use: a generated one",
                fix="openclaw config set gateway.tls.certPath <file>",
            )
        )
    if tls.client_auth != "off" and not encrypted:
        found.append(
            ConfigIssue(
                path="gateway.tls.clientAuth",
                message=f"{tls.client_auth}, but nothing is encrypted: client certificates are not asked for",
                severity="warning",
                fix="openclaw config set gateway.tls.enabled true",
            )
        )
    network = config.network
    loopback = ipaddress.ip_address("127.0.0.1")
    kept_out = _holds(network.deny, loopback) or bool(network.allow and not _holds(network.allow, loopback))
    if kept_out:
        found.append(
            ConfigIssue(
                path="gateway.network",
                message="127.0.0.1 may not connect: the commands of this host reach the gateway only as its owner",
                severity="warning",
                fix="add 127.0.0.1 to gateway.network.allow, and take it out of gateway.network.deny",
            )
        )
    if network.allow and config.trusted_proxies and _only_proxies(network.allow, config.trusted_proxies):
        found.append(
            ConfigIssue(
                path="gateway.network.allow",
                message="it names nobody but trusted proxies: whoever they speak for is refused",
                severity="warning",
                fix="add the addresses of the clients behind the proxy to gateway.network.allow",
            )
        )


def _only_proxies(allow: tuple[str, ...], proxies: tuple[str, ...]) -> bool:
    """Whether every address that may connect is this host or a trusted proxy."""
    relaying = parse_networks((*proxies, "localhost"))[0].networks
    return all(
        any(network.version == other.version and network.subnet_of(other) for other in relaying)  # type: ignore[arg-type]  # of one version
        for network in parse_networks(allow)[0].networks
    )


def _holds(entries: tuple[str, ...], address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(address in ipaddress.ip_network(entry, strict=False) for entry in entries)


def settle_tunnels(config: GatewayConfig, found: list[ConfigIssue]) -> GatewayConfig:
    """What a published tunnel carries comes from another host: it needs authentication. Names tell tunnels apart."""
    kept: dict[str, TunnelConfig] = {}
    for number, tunnel in enumerate(config.tunnels):
        path = f"gateway.tunnels.{number}"
        publishes = tunnel.direction == "remote" and tunnel.target_port in {None, config.port}
        if tunnel.name in kept:
            message = f"another tunnel is called {tunnel.name}; this one is not in use"
            found.append(
                ConfigIssue(path=f"{path}.name", message=message, fix=f"openclaw config set {path}.name <another>")
            )
        elif publishes and config.auth.type == "none":
            message = "publishes the gateway on another host, but gateway.auth.type is none; not in use"
            fix = "openclaw config set gateway.auth.type token"
            found.append(ConfigIssue(path=f"{path}.direction", message=message, fix=fix))
        else:
            # The gateway's own port would make everybody who comes through look local; the entrance does not (V13).
            kept[tunnel.name] = attrs.evolve(tunnel, target_port=None) if publishes else tunnel
    return attrs.evolve(config, tunnels=tuple(kept.values())) if config.tunnels else config


def judge_surroundings(config: GatewayConfig, found: list[ConfigIssue]) -> None:
    if not config.transports.websocket.enabled and not config.transports.http.enabled:
        found.append(
            ConfigIssue(
                path="gateway.transports",
                message="websocket and http are both off: nothing will be served",
                severity="warning",
                fix="openclaw config set gateway.transports.websocket.enabled true",
            )
        )
    wide = [entry for entry in config.trusted_proxies if _is_wide(entry)]
    if wide:
        found.append(
            ConfigIssue(
                path="gateway.trustedProxies",
                message=f"{', '.join(wide)} covers more than a proxy: clients inside it could forge their address",
                severity="warning",
            )
        )


def _is_wide(entry: str) -> bool:
    found: Any = ipaddress.ip_network(entry)
    return bool(found.prefixlen <= _WIDE_NETWORK[found.version]) and not found.is_loopback
