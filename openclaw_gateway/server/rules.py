"""From configuration to the rules that admission, origins, HTTP and limits go by.

Pure translation, the one place that knows both sides: it decides nothing. Configuration was checked when it was loaded,
so an entry that does not parse here is our bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from openclaw_gateway.config.schema import GatewayConfig, ListenerConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.policy.addresses import NetworkSet, parse_networks
from openclaw_gateway.policy.admission import AdmissionRules, AutoApproveRules
from openclaw_gateway.policy.locality import PeerRules
from openclaw_gateway.policy.network import NetworkRules
from openclaw_gateway.policy.origin import OriginRules, normalise_origin
from openclaw_gateway.policy.tokenlife import LifeRules
from openclaw_gateway.policy.vouching import SECRET_HEADER, VouchRules
from openclaw_gateway.server.core import Limits
from openclaw_gateway.server.gatekeeper import GatekeeperRules
from openclaw_gateway.server.origins import HttpRules

__all__ = [
    "gatekeeper_rules",
    "heartbeat_seconds",
    "http_rules",
    "life_rules",
    "limits",
    "network_rules",
    "tailnet_identity",
    "vouch_rules",
]


def _networks(entries: tuple[str, ...]) -> NetworkSet:
    networks, _ = parse_networks(entries)
    return networks


def _origins(config: GatewayConfig, served: str | None) -> OriginRules:
    allowed = tuple(origin for text in config.control_ui.allowed_origins if (origin := normalise_origin(text)))
    # The name that tailscaled serves this gateway under has a certificate of its own: no DNS answer stands in for it.
    allowed += (served,) if served is not None else ()
    public = urlsplit(config.public_url).hostname if config.public_url is not None else None
    # The name under which a proxy publishes this gateway is its own; it does not say that a page there may come in.
    return OriginRules(allowed=allowed, known_hosts=frozenset({public.lower()} if public else ()))


def vouch_rules(config: GatewayConfig) -> VouchRules | None:
    """Who may name people, and what the named ones get; None where no header was configured."""
    proxy = config.auth.trusted_proxy
    if proxy.user_header is None:
        return None
    return VouchRules(
        user_header=proxy.user_header.encode(),
        required_headers=tuple(name.encode() for name in proxy.required_headers),
        allow_users=proxy.allow_users,
        allow_loopback=proxy.allow_loopback,
        secret=proxy.secret,
        identity_scopes=config.auth.identity_scopes,
    )


def gatekeeper_rules(
    config: GatewayConfig,
    auth: ResolvedAuth,
    *,
    own_tailnet: frozenset[str] = frozenset(),
    listeners: Mapping[str, ResolvedAuth] | None = None,
    served: str | None = None,
) -> GatekeeperRules:
    """``listeners``: what is asked for on the listeners that have an authentication of their own."""
    approve = config.pairing.auto_approve
    policy = config.auth.policy
    expires = None
    if policy is not None and policy.max_age is not None and config.auth.password_changed_at is not None:
        expires = config.auth.password_changed_at + policy.max_age
    return GatekeeperRules(
        admission=AdmissionRules(
            auth_type=auth.type,
            allow_query_token=config.auth.allow_query_token,
            auto_approve=AutoApproveRules(
                loopback=approve.loopback,
                own_tailnet=approve.own_tailnet,
                lan=_networks(approve.lan),
                shared_secret=approve.shared_secret,
            ),
            own_tailnet_addresses=own_tailnet,
            secure_channel=config.nodes.secure_channel,
        ),
        origins=_origins(config, served),
        peers=PeerRules(
            trusted_proxies=_networks(config.trusted_proxies),
            client_header=config.client_address_header,
            marks=_marks(config),
        ),
        vouch=vouch_rules(config),
        tailnet=tailnet_identity(config),
        identity_scopes=config.auth.identity_scopes,
        token=auth.token,
        password=auth.password,
        password_hash=auth.password_hash,
        password_expires_at=expires,
        life=life_rules(config),
        network=network_rules(config),
        networks={listener.name: network_rules(config, listener) for listener in config.listeners},
        listeners={
            name: gatekeeper_rules(config, own, own_tailnet=own_tailnet, served=served)
            for name, own in (listeners or {}).items()
        },
    )


def network_rules(config: GatewayConfig, listener: ListenerConfig | None = None) -> NetworkRules:
    """The address lists of a listener; None: of the main one, and of every listener that no configuration names."""
    network = config.network
    allow, deny = network.allow, network.deny
    if listener is None:
        return NetworkRules(allow=_networks(allow), deny=_networks(deny))
    # Both allow lists have to be passed; the gateway's own is asked where the listener has one too.
    within = _networks(allow) if allow and listener.allow else None
    return NetworkRules(
        allow=_networks(listener.allow or allow), deny=_networks((*deny, *listener.deny)), within=within
    )


def _marks(config: GatewayConfig) -> frozenset[bytes]:
    """Headers that only the proxy sends here: whoever sends one is not somebody who sits at this host (V36)."""
    header = config.auth.trusted_proxy.user_header
    return frozenset() if header is None else frozenset({header.encode(), SECRET_HEADER})


def life_rules(config: GatewayConfig) -> LifeRules:
    auth = config.auth
    return LifeRules(
        expires_in_ms=None if auth.expires_in is None else max(1, round(auth.expires_in * 1000)),
        refresh_enabled=auth.refresh.enabled,
        max_uses=auth.refresh.max_uses,
    )


def tailnet_identity(config: GatewayConfig) -> bool:
    """Whether whom tailscaled names needs no secret: with serve alone, and by default beside a token alone (C6)."""
    if config.tailscale.mode != "serve":
        return False
    allowed = config.auth.allow_tailscale
    return config.auth.type == "token" if allowed is None else allowed


def http_rules(config: GatewayConfig, *, served: str | None = None) -> HttpRules:
    http = config.transports.http
    origins = tuple(origin.lower() for origin in http.cors.origins) if http.cors.enabled else ()
    return HttpRules(enabled=http.enabled, cors_origins=origins, origins=_origins(config, served))


def limits(config: GatewayConfig) -> Limits:
    websocket = config.transports.websocket
    return Limits(
        max_payload=websocket.max_message_size,
        max_buffered_bytes=websocket.max_buffered_bytes,
        tick_interval_ms=websocket.tick_interval_ms,
        handshake_seconds=websocket.handshake_timeout_ms / 1000,
    )


def heartbeat_seconds(config: GatewayConfig) -> dict[str, float]:
    websocket = config.transports.websocket
    return {"interval": websocket.ping_interval_ms / 1000, "timeout": websocket.ping_timeout_ms / 1000}
