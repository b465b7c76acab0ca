"""What settings may stand together.

Owns every rule that looks at more than one setting: authentication and its secret, bind and exposure, the two ports,
the password policy. Must not read files; the environment is only asked whether it holds a secret.

Invariants: `apply_rules` is total; an unsafe combination is either closed (exposure off, an issue) or fatal, never
started as written. Nothing that is safe is refused.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from typing import Any, Final

import attrs

from openclaw_gateway.config.hookblocks import HooksConfig
from openclaw_gateway.config.issues import ConfigIssue
from openclaw_gateway.config.schema import AgentsConfig, GatewayConfig, ListenerConfig, PasswordPolicy, TunnelConfig
from openclaw_gateway.policy.addresses import parse_networks
from openclaw_gateway.policy.senders import read_allow_from

__all__ = [
    "FUNNEL_TOKEN_LENGTH",
    "PASSWORD_VARIABLE",
    "TOKEN_VARIABLE",
    "apply_rules",
    "is_loopback_bind",
    "password_faults",
]

TOKEN_VARIABLE: Final = "OPENCLAW_GATEWAY_TOKEN"  # noqa: S105 - the name of a variable
PASSWORD_VARIABLE: Final = "OPENCLAW_GATEWAY_PASSWORD"  # noqa: S105 - the name of a variable
FUNNEL_TOKEN_LENGTH: Final = 24
MAX_LISTENERS: Final = 8  # beside the main one and those that tunnels and Tailscale open
_WEAK_TOKEN: Final = 16
_NO_HOOKS: Final = HooksConfig()
_NO_AGENTS: Final = AgentsConfig()
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


def password_faults(password: str, policy: PasswordPolicy) -> tuple[str, ...]:
    """Which rules of the policy a plaintext password breaks, by the names they have in the file."""
    checks = (
        (len(password) >= policy.min_length, f"minLength ({policy.min_length})"),
        (not policy.require_uppercase or any(char.isupper() for char in password), "requireUppercase"),
        (not policy.require_lowercase or any(char.islower() for char in password), "requireLowercase"),
        (not policy.require_numbers or any(char.isdigit() for char in password), "requireNumbers"),
        (
            not policy.require_symbols or any(not char.isalnum() and not char.isspace() for char in password),
            "requireSymbols",
        ),
    )
    return tuple(name for held, name in checks if not held)


def apply_rules(
    config: GatewayConfig, issues: tuple[ConfigIssue, ...], *, env: Mapping[str, str], type_given: bool
) -> tuple[GatewayConfig, tuple[ConfigIssue, ...]]:
    """The configuration made safe, and all issues: those handed in (some made milder) and those found here.

    ``type_given``: whether gateway.auth.type was written or comes from the secrets that are there.
    """
    found: list[ConfigIssue] = []
    config = _bind(config, found)
    mild = [_milder(issue, config) for issue in issues]
    # A secret that could not be read has its own fatal issue already.
    unread = {issue.path for issue in mild if issue.severity == "fatal"}
    _auth(config, found, env, unread, type_given=type_given)
    _password(config, found, env)
    config = _ports(config, found)
    config = _exposure(config, found, env)
    config = _listeners(config, found)
    config = _tunnels(config, found)
    _tls(config, found)
    _surroundings(config, found)
    _senders(config, found)
    if config.hooks != _NO_HOOKS or config.auth.oidc.issuer is not None:
        from openclaw_gateway.config.hookrules import apply_hook_rules

        faulty = {issue.path for issue in mild if issue.severity != "warning"}
        config = apply_hook_rules(config, found, env, faulty=faulty)
    if config.agents != _NO_AGENTS or config.models.providers:
        from openclaw_gateway.config.modelrules import model_issues

        found += model_issues(config, env)
    return config, (*mild, *found)


def _milder(issue: ConfigIssue, config: GatewayConfig) -> ConfigIssue:
    """A secret that nobody will ask for is not worth refusing to start."""
    used = {
        "token": {"gateway.auth.token"},
        "password": {"gateway.auth.password", "gateway.auth.passwordHash"},
        "trusted-proxy": {"gateway.auth.token", "gateway.auth.password", "gateway.auth.trustedProxy.secret"},
        "none": set() if is_loopback_bind(config) else {"gateway.auth.token"},
    }[config.auth.type]
    if issue.severity == "fatal" and issue.path in {"hooks.token", "gateway.auth.oidc.clientSecret"}:
        told = "webhooks that need it" if issue.path == "hooks.token" else "this login"
        return attrs.evolve(issue, severity="fallback", message=f"{issue.message}; {told} stay off")
    if config.mode == "remote":
        used = used | {"gateway.remote.token", "gateway.remote.password"}
    secret = issue.path.startswith(
        ("gateway.auth.token", "gateway.auth.password", "gateway.auth.trustedProxy.secret", "gateway.remote.")
    )
    if issue.severity == "fatal" and secret and issue.path not in used:
        return attrs.evolve(issue, severity="warning", message=issue.message + "; the setting is not in use")
    return issue


def _bind(config: GatewayConfig, found: list[ConfigIssue]) -> GatewayConfig:
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


def _auth(
    config: GatewayConfig, found: list[ConfigIssue], env: Mapping[str, str], unread: set[str], *, type_given: bool
) -> None:
    auth = config.auth
    if auth.token is not None and (auth.password or auth.password_hash) and not type_given:
        found.append(
            ConfigIssue(
                path="gateway.auth.type",
                message="both a token and a password are set: say which one counts",
                severity="fatal",
                allowed=("token", "password"),
                fix="openclaw config set gateway.auth.type token",
            )
        )
    given = auth.password or auth.password_hash or env.get(PASSWORD_VARIABLE)
    if auth.type == "password" and not given and not unread & {"gateway.auth.password", "gateway.auth.passwordHash"}:
        found.append(
            ConfigIssue(
                path="gateway.auth.password",
                message=f"no passwordHash, no password and no {PASSWORD_VARIABLE}, but gateway.auth.type is password",
                severity="fatal",
                fix="openclaw config set gateway.auth.passwordHash '<bcrypt hash>'",
            )
        )
    if auth.type == "trusted-proxy" and not config.trusted_proxies:
        found.append(
            ConfigIssue(
                path="gateway.trustedProxies",
                message="gateway.auth.type is trusted-proxy, but no proxy is trusted: nobody comes in by name",
                severity="fatal" if auth.token is None and auth.password is None else "warning",
                fix="openclaw config set gateway.trustedProxies '[\"<address of the proxy>\"]'",
            )
        )
    _trusted_proxy(config, found, unread)
    if auth.type == "none" and not is_loopback_bind(config):
        found.append(
            ConfigIssue(
                path="gateway.auth.type",
                message=f"none is not possible with bind {config.bind}: a token is made, kept and asked for",
                severity="warning",
                fix="openclaw config set gateway.auth.type token",
            )
        )
    if auth.type in {"token", "trusted-proxy"} and auth.token is not None and len(auth.token) < _WEAK_TOKEN:
        where = "" if is_loopback_bind(config) else ", on a listener that others can reach"
        found.append(
            ConfigIssue(
                path="gateway.auth.token",
                message=f"shorter than {_WEAK_TOKEN} characters: it can be guessed{where}",
                severity="warning",
                fix="openclaw config unset gateway.auth.token",
            )
        )


def _trusted_proxy(config: GatewayConfig, found: list[ConfigIssue], unread: set[str]) -> None:
    auth, proxy = config.auth, config.auth.trusted_proxy
    if auth.type != "trusted-proxy":
        return
    if proxy.user_header is None:
        secret = auth.token is not None or auth.password is not None
        hopeless = not secret and not unread & {"gateway.auth.token", "gateway.auth.password"}
        found.append(
            ConfigIssue(
                path="gateway.auth.trustedProxy.userHeader",
                message="gateway.auth.type is trusted-proxy, and no header names the person: nobody comes in by name"
                + (", and there is no token either" if hopeless else ""),
                severity="fatal" if hopeless else "warning",
                fix="openclaw config set gateway.auth.trustedProxy.userHeader x-forwarded-user",
            )
        )
    elif not proxy.allow_users:
        found.append(
            ConfigIssue(
                path="gateway.auth.trustedProxy.allowUsers",
                message="is empty: everybody whom the proxy lets through is let in",
                severity="warning",
                fix="openclaw config set gateway.auth.trustedProxy.allowUsers '[\"<user>\"]'",
            )
        )
    if proxy.allow_loopback and proxy.secret is None and "gateway.auth.trustedProxy.secret" not in unread:
        found.append(
            ConfigIssue(
                path="gateway.auth.trustedProxy.allowLoopback",
                message="every program on this host could name a person: the proxy has to prove itself with a secret; "
                "until then nobody comes in by name from this host",
                severity="warning",
                fix="openclaw config set gateway.auth.trustedProxy.secret '${NAME_OF_A_VARIABLE}'",
            )
        )


def _password(config: GatewayConfig, found: list[ConfigIssue], env: Mapping[str, str]) -> None:
    auth = config.auth
    password = auth.password or env.get(PASSWORD_VARIABLE) or None
    if auth.type != "password":
        return
    if auth.password is not None and auth.password_hash is not None:
        found.append(
            ConfigIssue(
                path="gateway.auth.password",
                message="ignored: gateway.auth.passwordHash is set and counts",
                severity="warning",
                fix="openclaw config unset gateway.auth.password",
            )
        )
    elif auth.password_hash is None and password is not None and auth.policy is not None:
        broken = password_faults(password, auth.policy)
        if broken:
            found.append(
                ConfigIssue(
                    path="gateway.auth.password",
                    message="does not meet gateway.auth.policy: " + ", ".join(broken),
                    severity="fatal",
                    fix="openclaw config set gateway.auth.password '${NAME_OF_A_VARIABLE}'",
                )
            )
    if auth.policy is not None and auth.policy.max_age is not None and auth.password_changed_at is None:
        found.append(
            ConfigIssue(
                path="gateway.auth.passwordChangedAt",
                message="gateway.auth.policy.maxAge counts from this date, and it is not set",
                severity="warning",
                fix="openclaw config set gateway.auth.passwordChangedAt '\"<yyyy-mm-dd>\"'",
            )
        )


def _ports(config: GatewayConfig, found: list[ConfigIssue]) -> GatewayConfig:
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


def _listeners(config: GatewayConfig, found: list[ConfigIssue]) -> GatewayConfig:
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


def _tls(config: GatewayConfig, found: list[ConfigIssue]) -> None:
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


def _exposure(config: GatewayConfig, found: list[ConfigIssue], env: Mapping[str, str]) -> GatewayConfig:
    mode, auth = config.tailscale.mode, config.auth
    if mode == "off":
        return config
    fault: str | None = None
    fix = "openclaw config set gateway.tailscale.mode off"
    if not is_loopback_bind(config):
        fault, fix = "needs gateway.bind loopback", "openclaw config set gateway.bind loopback"
    elif auth.type == "none":
        fault, fix = "needs authentication", "openclaw config set gateway.auth.type token"
    elif mode == "funnel" and auth.type != "password":
        token = auth.token if auth.token is not None else env.get(TOKEN_VARIABLE) or None
        if auth.type != "token" or auth.allow_tailscale is not False:
            fault = "needs gateway.auth.type password, or a token with gateway.auth.allowTailscale false"
            fix = "openclaw config set gateway.auth.type password"
        elif token is not None and len(token) < FUNNEL_TOKEN_LENGTH:
            fault = f"needs a token of at least {FUNNEL_TOKEN_LENGTH} characters"
            fix = "openclaw config unset gateway.auth.token"
    if fault is None:
        return config
    found.append(ConfigIssue(path="gateway.tailscale.mode", message=f"{mode} {fault}; in use: off", fix=fix))
    return attrs.evolve(config, tailscale=attrs.evolve(config.tailscale, mode="off"))


def _tunnels(config: GatewayConfig, found: list[ConfigIssue]) -> GatewayConfig:
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


def _surroundings(config: GatewayConfig, found: list[ConfigIssue]) -> None:
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


def _senders(config: GatewayConfig, found: list[ConfigIssue]) -> None:
    for name, channel in config.channels.items():
        ids, faults = read_allow_from(name, channel.dm.allow_from, policy=channel.dm.policy)
        listed = json.dumps(sorted(ids))
        found += [
            ConfigIssue(
                path=f"channels.{name}.dm.allowFrom",
                message=fault,
                severity="warning",
                fix=f"openclaw config set channels.{name}.dm.allowFrom '{listed}'",
            )
            for fault in faults
        ]


def _is_wide(entry: str) -> bool:
    found: Any = ipaddress.ip_network(entry)
    return bool(found.prefixlen <= _WIDE_NETWORK[found.version]) and not found.is_loopback
