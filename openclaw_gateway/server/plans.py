"""From configuration to the plans of the listeners, and to what is asked on those that have their own authentication.

Pure translation, but for looking up this host's addresses. It decides nothing that `config.rules` should: what is not
safe together was taken out there. Invariants: the network rules of the gateway hold on every listener, a listener's own
only narrow them; a listener that others can reach is never open, whatever the main one is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from openclaw_gateway.config.schema import GatewayConfig, ListenerConfig
from openclaw_gateway.config.secrets import ResolvedAuth, resolve_auth
from openclaw_gateway.policy.addresses import canonical_ip
from openclaw_gateway.policy.network import Ceiling
from openclaw_gateway.server.addresses import bind_addresses
from openclaw_gateway.server.listening import MAIN, ListenerPlan, Preface, TlsLayer
from openclaw_gateway.server.rules import network_rules

__all__ = ["ClientAuth", "as_main", "client_auth_kinds", "listener_auth", "listener_plans", "named_hosts"]

_EVERY = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound

ClientAuth = str  # off, optional, required
TlsLayers = Callable[[ClientAuth], TlsLayer]
Prefaces = Callable[[GatewayConfig], Preface]


def as_main(config: GatewayConfig, listener: ListenerConfig) -> GatewayConfig:
    """The configuration as if this listener were the main one: what its bind means, and what it must ask for."""
    auth = attrs.evolve(config.auth, type=listener.auth or config.auth.type)
    return attrs.evolve(config, bind=listener.bind, custom_bind_host=None, port=listener.port, auth=auth)


def listener_auth(
    config: GatewayConfig,
    auth: ResolvedAuth,
    state_dir: Path | None,
    env: Mapping[str, str],
    *,
    overridden: Collection[str] = (),
) -> dict[str, ResolvedAuth]:
    """What is asked for on the listeners that differ from the main one, by name. Raises `ConfigError`."""
    found: dict[str, ResolvedAuth] = {}
    for listener in config.listeners:
        own = as_main(config, listener)
        if own.auth.type == config.auth.type and auth.type not in {"none"} and not auth.forced:
            continue
        resolved = resolve_auth(own, state_dir, env, overridden=overridden)
        if resolved.type == "token" and auth.token is not None:
            resolved = attrs.evolve(auth, type="token")  # one token, also where it lives as long as the process
        if resolved != auth:
            found[listener.name] = resolved
    return found


def client_auth_kinds(config: GatewayConfig) -> frozenset[str]:
    """The kinds of client authentication that encrypted listeners ask for; empty where nothing is encrypted."""
    kinds = {config.tls.client_auth} if config.tls.enabled else set()
    for listener in config.listeners:
        if config.tls.enabled if listener.tls is None else listener.tls:
            kinds.add(listener.client_auth or config.tls.client_auth)
    return frozenset(kinds)


def named_hosts(config: GatewayConfig) -> tuple[str, ...]:
    """The addresses and names that the configuration itself writes down: a certificate has to name them."""
    written = [config.custom_bind_host if config.bind == "custom" else config.bind]
    written += [listener.bind for listener in config.listeners]
    hosts = [text for text in written if text is not None and canonical_ip(text) is not None]
    public = urlsplit(config.public_url).hostname if config.public_url is not None else None
    return tuple(dict.fromkeys(host for host in (*hosts, public) if host and host not in _EVERY))


def listener_plans(
    config: GatewayConfig,
    *,
    auths: Mapping[str, ResolvedAuth],
    tls: TlsLayers | None,
    preface: Prefaces,
) -> list[ListenerPlan]:
    """The main listener first. ``tls`` gives the layer for one kind of client authentication; None: there is no
    certificate, and a listener that needs one is left out. Raises `BindFailed` where a bind means no address here.
    """
    plans: list[ListenerPlan] = []
    if tls is not None or not config.tls.enabled:
        plans.append(
            ListenerPlan(
                name=MAIN,
                hosts=tuple(bind_addresses(config)),
                port=config.port,
                network=network_rules(config),
                tls=tls(config.tls.client_auth) if tls is not None and config.tls.enabled else None,
                preface=preface(config) if config.proxy_protocol else None,
            )
        )
    for listener in config.listeners:
        encrypted = config.tls.enabled if listener.tls is None else listener.tls
        if encrypted and tls is None:
            continue
        asked = auths.get(listener.name)
        plans.append(
            ListenerPlan(
                name=listener.name,
                hosts=tuple(bind_addresses(as_main(config, listener))),
                port=listener.port,
                network=network_rules(config, listener),
                ceiling=Ceiling(
                    methods=listener.methods, scopes=None if listener.scopes is None else frozenset(listener.scopes)
                ),
                auth=asked.type if asked is not None else None,
                tls=tls(listener.client_auth or config.tls.client_auth) if tls is not None and encrypted else None,
                preface=preface(config) if listener.proxy_protocol else None,
            )
        )
    return plans
