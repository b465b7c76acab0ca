"""What is told of the gateway as a whole, drawn from its parts when somebody asks.

Owns the answers that no single part could give: who this gateway is, who is connected, how it is announced, how it can
be reached from elsewhere. It must not know who asks, and changes nothing. Nothing secret is in any of them.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from openclaw_gateway._version import __version__
from openclaw_gateway.discovery.service import Facts
from openclaw_gateway.pairing.identity import load_gateway_identity
from openclaw_gateway.policy.setupurls import Reachability
from openclaw_gateway.protocol.keystatement import fingerprint
from openclaw_gateway.rpc import setup
from openclaw_gateway.server.addresses import in_container
from openclaw_gateway.server.listening import MAIN, Listening
from openclaw_gateway.server.ownaddresses import own_lan_addresses

if TYPE_CHECKING:
    from openclaw_gateway.app.parts import Parts

__all__ = ["channel_summary", "connections", "discovery_facts", "identity", "reach", "setup_situation"]


def identity(parts: Parts) -> dict[str, Any]:
    """What `gateway.identity.get` tells: who this gateway is, and the key that its secure channels prove."""
    wire: dict[str, Any] = dict(load_gateway_identity(parts.in_force.config.state_dir).to_wire())
    door = parts.core.secure
    if door is not None and door.offered:
        wire["keyStatement"] = door.statement.to_wire()
        wire["keyFingerprint"] = fingerprint(door.statement.raw_key)
    return wire


def connections(parts: Parts) -> dict[str, Any]:
    """How many are connected, by role, and how many may be."""
    registry = parts.core.registry
    roles = [session.role for session in registry]
    return {
        "total": len(roles),
        "operators": roles.count("operator"),
        "nodes": roles.count("node"),
        "unauthenticated": len(registry.strangers),
        "limit": registry.limit,
    }


def channel_summary(parts: Parts) -> list[str]:
    hub = parts.messaging.channels
    return [account.summary for account in hub.accounts] if hub is not None else []


def discovery_facts(parts: Parts) -> Facts:
    """What this gateway announces of itself."""
    config, tls_sha256 = parts.in_force.config, parts.configured.fingerprint
    capabilities = ["gateway"]
    if parts.rpc.get("agent.send") is not None:  # the echo at least; an embedding program may have taken it out
        capabilities.append("agent")
    if any(channel.enabled for channel in config.channels.values()):
        capabilities.append("channels")
    return Facts(
        mode=config.discovery.mdns.mode,
        listening=tuple(host for host, _ in _addresses(parts.listening)),
        port=parts.listening.port,
        version=__version__,
        auth=parts.in_force.auth.type,
        capabilities=tuple(capabilities),
        tls=tls_sha256 is not None,
        tls_sha256=tls_sha256,
        display_name=parts.news.host,
        tailnet_dns=parts.tailnet.dns_name,
        ssh_port=22,
        cli_path=shutil.which("openclaw") if config.discovery.mdns.mode == "full" else None,
    )


def reach(parts: Parts) -> Reachability:
    """What a way to this gateway can be made of."""
    config, tailnet = parts.in_force.config, parts.tailnet
    return Reachability(
        listening=tuple(_addresses(parts.listening)),
        lan=own_lan_addresses(),
        tailnet=next((found for found in sorted(tailnet.addresses) if ":" not in found), None),
        served_url=tailnet.origin,
        public_url=config.public_url,
        remote_url=config.remote.url,
        container=in_container(),
        tls=parts.configured.fingerprint is not None,
    )


def setup_situation(parts: Parts) -> setup.SetupSituation:
    """How a device that holds a setup code may reach this gateway."""
    in_force, config = parts.in_force, parts.in_force.config
    offered = config.nodes.secure_channel != "off"
    return setup.SetupSituation(
        reach=reach(parts),
        tls_fingerprint=parts.configured.fingerprint,
        ttl_ms=config.pairing.setup_code_ttl_ms,
        auth="password" if in_force.auth.type == "password" else "token",
        http=config.transports.http.enabled,
        gateway_id=load_gateway_identity(config.state_dir).device_id if offered else None,
    )


def _addresses(listening: Listening) -> list[tuple[str, int]]:
    main = listening.get(MAIN)
    return main.addresses if main is not None else []
