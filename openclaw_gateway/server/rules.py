"""From configuration to the rules that admission, origins, HTTP and limits go by.

Pure translation, the one place that knows both sides: it decides nothing. Configuration was checked when it was loaded,
so an entry that does not parse here is our bug.
"""

from __future__ import annotations

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.policy.addresses import NetworkSet, parse_networks
from openclaw_gateway.policy.admission import AdmissionRules, AutoApproveRules
from openclaw_gateway.policy.locality import PeerRules
from openclaw_gateway.policy.origin import OriginRules, normalise_origin
from openclaw_gateway.policy.tokenlife import LifeRules
from openclaw_gateway.server.core import Limits
from openclaw_gateway.server.gatekeeper import GatekeeperRules
from openclaw_gateway.server.http import HttpRules

__all__ = ["gatekeeper_rules", "http_rules", "life_rules", "limits"]


def _networks(entries: tuple[str, ...]) -> NetworkSet:
    networks, _ = parse_networks(entries)
    return networks


def _origins(config: GatewayConfig) -> OriginRules:
    allowed = tuple(origin for text in config.control_ui.allowed_origins if (origin := normalise_origin(text)))
    return OriginRules(allowed=allowed)


def gatekeeper_rules(
    config: GatewayConfig, auth: ResolvedAuth, *, own_tailnet: frozenset[str] = frozenset()
) -> GatekeeperRules:
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
        origins=_origins(config),
        peers=PeerRules(trusted_proxies=_networks(config.trusted_proxies)),
        token=auth.token,
        password=auth.password,
        password_hash=auth.password_hash,
        password_expires_at=expires,
        life=life_rules(config),
    )


def life_rules(config: GatewayConfig) -> LifeRules:
    auth = config.auth
    return LifeRules(
        expires_in_ms=None if auth.expires_in is None else max(1, round(auth.expires_in * 1000)),
        refresh_enabled=auth.refresh.enabled,
        max_uses=auth.refresh.max_uses,
    )


def http_rules(config: GatewayConfig) -> HttpRules:
    http = config.transports.http
    origins = tuple(origin.lower() for origin in http.cors.origins) if http.cors.enabled else ()
    return HttpRules(enabled=http.enabled, cors_origins=origins, origins=_origins(config))


def limits(config: GatewayConfig) -> Limits:
    websocket = config.transports.websocket
    return Limits(
        max_payload=websocket.max_message_size,
        max_buffered_bytes=websocket.max_buffered_bytes,
        tick_interval_ms=websocket.tick_interval_ms,
        handshake_seconds=websocket.handshake_timeout_ms / 1000,
    )
