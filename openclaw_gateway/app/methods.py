"""What can be asked of a gateway: its methods, and the HTTP routes that are always there.

Owns which family of methods is registered with which parts. It must not know what a method does, nor who may call it
(`rpc.table`).
"""

from __future__ import annotations

from functools import partial

from openclaw_gateway.agents.overview import status_sessions
from openclaw_gateway.app import views
from openclaw_gateway.app.life import Life
from openclaw_gateway.app.parts import Parts
from openclaw_gateway.app.reloading import Reloading
from openclaw_gateway.nodes.listing import node_source
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.log import log_path
from openclaw_gateway.pairing.overview import Overview
from openclaw_gateway.rpc import audit as activity
from openclaw_gateway.rpc import certificates as certificate_methods
from openclaw_gateway.rpc import (
    channels,
    configuration,
    dashboard,
    explain,
    logs,
    nodes,
    nodeside,
    pairing,
    senders,
    setup,
    system,
)
from openclaw_gateway.rpc import tokens as token_methods
from openclaw_gateway.server.joins import add_joins
from openclaw_gateway.server.probes import add_probes
from openclaw_gateway.server.refresh import add_refresh

__all__ = ["add_routes", "register_methods"]


def register_methods(parts: Parts, reloading: Reloading) -> Overview:
    """Put the methods of all parts into the table. Returns what `pairing.list` shows, which takes more sources."""
    table, services, in_force = parts.rpc, parts.services, parts.in_force
    config, audit = in_force.config, services.audit
    system.register(
        table,
        health=parts.news.health,
        presence=parts.news.presence,
        stability=parts.stability,
        connections=partial(views.connections, parts),
        applied_hash=in_force.applied_hash,
        identity=partial(views.identity, parts),
        listeners=parts.listening.view,
        tls=parts.configured.tls_view,
        tailscale=parts.tailnet.view,
        tunnels=parts.on_demand.tunnels_view,
        on_health=parts.news.health_changed,
        discovery=lambda: {**parts.discovery.view(), "wideArea": parts.wide_area.view()},
        channel_summary=partial(views.channel_summary, parts),
        sessions=lambda: status_sessions(parts.messaging.router, parts.messaging.sessions, now_ms()),
    )
    logs.register(table, path=log_path(config.logging, config.state_dir))
    nodes.register(table, parts.nodes, audit=audit)
    nodeside.register(table, parts.nodes)
    pairing.register(
        table,
        book=services.book,
        registry=parts.core.registry,
        publish=parts.news.book_event,
        audit=audit,
    )
    overview = senders.register(table, gate=parts.senders, devices=services.book, clock=now_ms, audit=audit)
    overview.add(node_source(parts.nodes))
    configuration.register(
        table,
        current=lambda: in_force.loaded,
        env=in_force.env,
        overrides=in_force.overrides,
        audit=audit,
        probation=reloading.on_probation,
    )
    activity.register(table, audit=audit)
    explain.register(table, gatekeeper=parts.gatekeeper, book=services.book)
    setup.register(table, codes=services.setup_codes, situation=partial(views.setup_situation, parts), audit=audit)
    certificate_methods.register(
        table,
        services.certificates,
        fingerprint=lambda: parts.configured.fingerprint,
        client_auth=lambda: in_force.config.tls.client_auth,
        audit=audit,
    )
    token_methods.register(table, issued=services.issued, keys=services.keys, audit=audit)
    parts.messaging.register(table, audit=audit)
    channels.register(table, hub=lambda: parts.messaging.channels, event_loop=parts.loop.view, audit=audit)
    dashboard.register(table)
    return overview


def add_routes(parts: Parts, life: Life) -> None:
    """The HTTP routes that no configuration takes away: joining, refreshing a token, the probes."""
    add_joins(parts.http, parts.services.setup_codes)
    add_refresh(parts.http, parts.gatekeeper)
    add_probes(
        parts.http,
        parts.news.health,
        started=lambda: life.started,
        draining=lambda: life.stopping,
        tailscale=lambda: parts.tailnet.state,
    )
