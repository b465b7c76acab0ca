"""A gateway, put together: every part with what it needs of the others.

Owns the parts that live as long as the gateway and the wires between them: who is called when a device is cut, a key
revoked, an address gained. It must not know how any part works, when any of them runs (`life`, `watchers`), or what a
change of the configuration means (`reloading`).

Invariant: everything here is made synchronously, before the first byte is read; nothing runs yet.
"""

from __future__ import annotations

import uuid

from openclaw_gateway._version import __version__
from openclaw_gateway.agents.overview import health_members
from openclaw_gateway.app import views
from openclaw_gateway.app.inforce import InForce
from openclaw_gateway.app.news import EVENTS, News, may_learn_of
from openclaw_gateway.app.ondemand import OnDemand
from openclaw_gateway.app.services import Services
from openclaw_gateway.discovery.service import DiscoveryService
from openclaw_gateway.discovery.widearea import WideAreaService
from openclaw_gateway.events.bus import EventBus
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.loop import LoopMonitor
from openclaw_gateway.ops.stability import StabilityLog
from openclaw_gateway.pairing.senders import SenderGate
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.rpc.table import MethodTable
from openclaw_gateway.server import rules
from openclaw_gateway.server.configured import ConfiguredListeners
from openclaw_gateway.server.connection import ConnectionServer
from openclaw_gateway.server.core import ServerCore
from openclaw_gateway.server.gatekeeper import Gatekeeper, GatekeeperRules
from openclaw_gateway.server.heartbeat import Heartbeat
from openclaw_gateway.server.http import HttpApp
from openclaw_gateway.server.listening import Listening
from openclaw_gateway.server.registry import SessionRegistry, Strangers
from openclaw_gateway.server.revocation import Revocation
from openclaw_gateway.server.secure import SecureDoor
from openclaw_gateway.server.tailnet import Tailnet
from openclaw_gateway.server.upgrade import HttpServer

__all__ = ["Parts"]


class Parts:
    def __init__(self, services: Services, in_force: InForce) -> None:
        config, audit = in_force.config, services.audit
        self.services = services
        self.in_force = in_force
        self.messaging = services.messaging
        self.rpc = MethodTable()
        self.events = EventBus()
        self.events.declare(EVENTS)
        self.nodes = services.hub
        self.nodes.attach(self.events, may_learn_of)
        self.nodes.configure(config.nodes)
        self.loop = LoopMonitor()
        self.stability = StabilityLog()
        self.news = News(self.events, self.loop, in_force=in_force, audit=audit)
        websocket = config.transports.websocket
        self.tailnet = Tailnet(lambda: self.listening, self._tailnet_changed)
        self.gatekeeper = Gatekeeper(
            self.gatekeeper_rules(),
            book=services.book,
            tokens=services.book.tokens,
            issued=services.issued,
            keys=services.keys,
            publish=self.news.book_event,
            setup_codes=services.setup_codes,
            audit=audit,
            now_ms=now_ms,
        )
        self.gatekeeper.peers.tailnet = self.tailnet.vouch
        self.dispatcher = Dispatcher(self.rpc)
        self.core = ServerCore(
            limits=rules.limits(config),
            table=self.rpc,
            dispatcher=self.dispatcher,
            registry=SessionRegistry(
                limit=websocket.concurrent_connections, strangers=Strangers(websocket.unauthenticated_per_address)
            ),
            gatekeeper=self.gatekeeper,
            bus=self.events,
            presence=self.news.presence,
            stability=self.stability,
            snapshot=self.news.snapshot,
            nodes=self.nodes,
            secure=SecureDoor(config.state_dir, offered=config.nodes.secure_channel != "off"),
            server_version=__version__,
            boot_id=str(uuid.uuid4()),
            audit=audit,
        )
        self.http = HttpApp(self.gatekeeper, self.dispatcher, rules.http_rules(config))
        self.server = ConnectionServer(self.core, HttpServer(self.http), websocket=websocket.enabled)
        self.heartbeat = Heartbeat(self.core.registry, **rules.heartbeat_seconds(config))
        services.people.publish = self.news.book_event
        self.senders = SenderGate(services.people, config.channels, clock=now_ms)
        self.messaging.attach(config, self.events, self.senders, in_force.env)
        self.news.health.watches_config = in_force.loaded is not None
        self.news.health.conversations = lambda: health_members(
            self.messaging.router, self.messaging.sessions, now_ms()
        )
        self.discovery = DiscoveryService(lambda: views.discovery_facts(self), config.state_dir)
        self.wide_area = WideAreaService(
            lambda: self.in_force.config.discovery.wide_area,
            lambda: views.discovery_facts(self),
            self.discovery.announcement,
            config.state_dir,
        )
        self.revocation = Revocation(
            self.core.registry,
            self.server,
            self.gatekeeper,
            nodes=self.nodes,
            certificates=services.certificates,
            audit=audit,
        )
        services.book.on_cut = self.revocation.device_cut
        services.certificates.on_cut = self.revocation.certificates_ended
        services.issued.on_reuse = self.revocation.refresh_token_reused
        services.keys.on_revoked = self.revocation.api_key_revoked
        self.listening = Listening(self.server.serve, audit=audit, end=self.revocation.end_connections)
        self.configured = ConfiguredListeners(
            self.listening,
            self.news.health,
            clients=services.certificates,
            tailnet=lambda: self.tailnet.addresses,
        )
        self.configured.on_certificate = self.announce_anew
        self.on_demand = OnDemand(
            self.http,
            self.listening,
            self.gatekeeper,
            self.messaging,
            self.news,
            in_force=in_force,
            keys=services.keys,
            book=services.book,
            audit=audit,
        )

    def gatekeeper_rules(self) -> GatekeeperRules:
        """What admission goes by, of the configuration in force and of this host's place in its tailnet."""
        tailnet, in_force = self.tailnet, self.in_force
        return rules.gatekeeper_rules(
            in_force.config,
            in_force.auth,
            own_tailnet=tailnet.addresses,
            listeners=in_force.listener_auth,
            served=tailnet.origin,
        )

    def announce_anew(self) -> None:
        """What others are told of this gateway may have changed: address, name, certificate."""
        self.discovery.nudge()
        self.wide_area.nudge()

    def _tailnet_changed(self) -> None:
        """This host's tailnet addresses, or what is served there, are others now (S099)."""
        before, now = self.gatekeeper.rules, self.gatekeeper_rules()
        if (before.admission, before.origins) != (now.admission, now.origins):
            self.gatekeeper.configure(now)
            self.http.rules = rules.http_rules(self.in_force.config, served=self.tailnet.origin)
        self.announce_anew()
        self.news.health_changed()
