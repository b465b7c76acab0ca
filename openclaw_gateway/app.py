"""The composition root: the only module that knows all the others.

Owns the order in which parts open and close, and the two tiers of life (design rule 2): services (store, device book,
watchers) live in a shielded scope and outlive connections on every path; connections end by being asked, then by a
deadline (rule 3). It must not know how any part works.

Invariants: listening on entry, drained on exit, the whole stop within `STOP_SECONDS` (LIFE-4); TCP is not accepted
before an upgrade could be answered (LIVE-4); every shield has a deadline (rule 4); a lone real error leaves
`open_gateway` as itself.
"""

from __future__ import annotations

import os
import platform
import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from openclaw_gateway._version import __version__
from openclaw_gateway.config.issues import ConfigError, ConfigIssue
from openclaw_gateway.config.lastgood import remember_good
from openclaw_gateway.config.load import LoadedConfig
from openclaw_gateway.config.paths import pending_path
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth, resolve_auth
from openclaw_gateway.config.watch import ConfigChange, overridden_edits, watch_config
from openclaw_gateway.discovery.service import DiscoveryService, Facts
from openclaw_gateway.discovery.widearea import WideAreaService
from openclaw_gateway.errors import flat_errors
from openclaw_gateway.events.bus import EventBus, Listener
from openclaw_gateway.events.presence import Presence
from openclaw_gateway.messaging import Messaging, open_messaging
from openclaw_gateway.nodes.hub import NodeHub, open_node_hub
from openclaw_gateway.nodes.listing import node_source
from openclaw_gateway.nodes.records import EVENTS as NODE_EVENTS
from openclaw_gateway.ops.audit import Action, AuditTrail, open_audit
from openclaw_gateway.ops.health import Health, now_ms
from openclaw_gateway.ops.log import get_logger, log_path
from openclaw_gateway.ops.loop import LoopMonitor
from openclaw_gateway.ops.stability import StabilityLog
from openclaw_gateway.ops.supervision import supervise
from openclaw_gateway.pairing.apikeys import ApiKeys, open_api_keys
from openclaw_gateway.pairing.clientcerts import IssuedCertificates, open_issued_certificates
from openclaw_gateway.pairing.devices import DeviceBook, open_device_book
from openclaw_gateway.pairing.identity import load_gateway_identity
from openclaw_gateway.pairing.issued import IssuedTokens, open_issued_tokens
from openclaw_gateway.pairing.records import BookEvent
from openclaw_gateway.pairing.senders import SenderBook, SenderGate, load_sender_codes, open_sender_book
from openclaw_gateway.pairing.setupcodes import SetupCodes, open_setup_codes
from openclaw_gateway.pairing.tokens import load_device_tokens
from openclaw_gateway.policy.setupurls import Reachability
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.hello import HelloSnapshot
from openclaw_gateway.protocol.keystatement import fingerprint
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
from openclaw_gateway.rpc.dispatch import Dispatcher
from openclaw_gateway.rpc.table import MethodTable
from openclaw_gateway.server import rules
from openclaw_gateway.server.addresses import BindFailed, in_container
from openclaw_gateway.server.configured import ConfiguredListeners
from openclaw_gateway.server.connection import ConnectionServer
from openclaw_gateway.server.core import ServerCore
from openclaw_gateway.server.gatekeeper import Gatekeeper, GatekeeperRules
from openclaw_gateway.server.heartbeat import Heartbeat
from openclaw_gateway.server.http import HttpApp
from openclaw_gateway.server.joins import add_joins
from openclaw_gateway.server.listener import Probed, watch_accepts
from openclaw_gateway.server.listening import MAIN, ListenerPlan, Listening
from openclaw_gateway.server.ownaddresses import own_lan_addresses
from openclaw_gateway.server.ownerdoor import serve_owner_door
from openclaw_gateway.server.plans import listener_auth
from openclaw_gateway.server.probes import add_probes
from openclaw_gateway.server.recording import record_configuration, record_expired, record_start
from openclaw_gateway.server.refresh import add_refresh
from openclaw_gateway.server.registry import SessionRegistry, Strangers
from openclaw_gateway.server.secure import SecureDoor
from openclaw_gateway.server.session import Session
from openclaw_gateway.server.tailnet import Tailnet
from openclaw_gateway.server.upgrade import HttpServer
from openclaw_gateway.server.wire import StreamWire, Wire
from openclaw_gateway.store import open_store

if TYPE_CHECKING:
    from openclaw_gateway.channels.accounts import Account
    from openclaw_gateway.completions.routes import Completions
    from openclaw_gateway.hooks.inbound import InboundHooks
    from openclaw_gateway.hooks.login import OidcLogin
    from openclaw_gateway.server.controlui import ControlUi
    from openclaw_gateway.server.probation import Probation
    from openclaw_gateway.tunnels.service import TunnelService

__all__ = ["Gateway", "open_gateway", "serve_gateway"]

STOP_SECONDS: Final = 4.5
DRAIN_SECONDS: Final = 3.0
HEALTH_EVENT_SECONDS: Final = 60.0
LAPSE_SECONDS: Final = 0.5
_SHARED: Final = frozenset({"token", "password", "none"})  # ways in that a new shared secret closes
EVENTS: Final = (
    "connect.challenge",
    "presence",
    "tick",
    "health",
    "shutdown",
    "device.pair.requested",
    "device.pair.resolved",
    *NODE_EVENTS,
    "device.pair.changed",
    "device.pair.setup.completed",
    *senders.EVENTS,
)

log = get_logger("gateway")


class Gateway:
    """A running gateway: what `open_gateway` yields. Belongs to the Trio run that opened it."""

    def __init__(
        self,
        config: GatewayConfig,
        auth: ResolvedAuth,
        book: DeviceBook,
        hub: NodeHub,
        people: SenderBook,
        *,
        audit: AuditTrail,
        issued: IssuedTokens,
        keys: ApiKeys,
        loaded: LoadedConfig | None,
        env: Mapping[str, str],
        overrides: Mapping[str, Any] | None,
        listen: bool,
        setup_codes: SetupCodes,
        certificates: IssuedCertificates,
        messaging: Messaging,
    ) -> None:
        self.config = config
        self.messaging = messaging
        self.audit = audit
        self._listen = listen
        self._env = env
        self._overrides = overrides
        self.auth = auth
        self.loaded = loaded
        self.version = __version__
        self.rpc = MethodTable()
        self.events = EventBus()
        self.events.declare(EVENTS)
        self.nodes = hub
        hub.attach(self.events, _may_learn_of)
        hub.configure(config.nodes)
        self.loop = LoopMonitor()
        self._tunnels: TunnelService | None = None
        self._tunnels_wanted = trio.Event()
        if config.tunnels:
            self._tunnels_wanted.set()
        self.health = Health(self.loop, __version__, on_change=self._health_changed)
        self.stability = StabilityLog()
        self.host = platform.node() or "localhost"
        self.presence = Presence(
            system.host_facts(__version__, self.host), now_ms=now_ms, on_change=self._presence_changed
        )
        websocket = config.transports.websocket
        self.tailnet = Tailnet(lambda: self.listening, self._tailnet_changed)
        self._listener_auth = self._auth_of_listeners(config, auth, loaded)
        self.gatekeeper = Gatekeeper(
            self._gatekeeper_rules(),
            book=book,
            tokens=book.tokens,
            issued=issued,
            keys=keys,
            publish=self._book_event,
            setup_codes=setup_codes,
            audit=audit,
            now_ms=now_ms,
        )
        dispatcher = Dispatcher(self.rpc)
        self._core = ServerCore(
            limits=rules.limits(config),
            table=self.rpc,
            dispatcher=dispatcher,
            registry=SessionRegistry(
                limit=websocket.concurrent_connections, strangers=Strangers(websocket.unauthenticated_per_address)
            ),
            gatekeeper=self.gatekeeper,
            bus=self.events,
            presence=self.presence,
            stability=self.stability,
            snapshot=self._snapshot,
            nodes=hub,
            secure=SecureDoor(config.state_dir, offered=config.nodes.secure_channel != "off"),
            server_version=__version__,
            boot_id=str(uuid.uuid4()),
            audit=audit,
        )
        self._http = HttpApp(self.gatekeeper, dispatcher, rules.http_rules(config))
        self._server = ConnectionServer(self._core, HttpServer(self._http), websocket=websocket.enabled)
        self._heartbeat = Heartbeat(self._core.registry, **_heartbeat_seconds(config))
        self._book = book
        self._setup_codes = setup_codes
        people.publish = self._book_event
        self.senders = SenderGate(people, config.channels, clock=now_ms)
        messaging.attach(config, self.events, self.senders, env)
        self.agents = messaging.agents
        self._dispatcher = dispatcher
        self.discovery = DiscoveryService(self._discovery_facts, config.state_dir)
        self.wide_area = WideAreaService(
            lambda: self.config.discovery.wide_area,
            self._discovery_facts,
            self.discovery.announcement,
            config.state_dir,
        )
        book.on_cut = self._cut
        self._issued, self._keys = issued, keys
        self._certificates = certificates
        certificates.on_cut = self._certificates_ended
        issued.on_reuse = self._refresh_token_reused
        keys.on_revoked = self._api_key_revoked
        self.listening = Listening(self._server.serve, audit=audit, end=self._end_connections)
        self.configured = ConfiguredListeners(
            self.listening, self.health, clients=certificates, tailnet=lambda: self.tailnet.addresses
        )
        self.configured.on_certificate = self._announce_anew
        self.on_listening: Callable[[], None] = lambda: None  # called after a reload moved the listeners
        self._connections: trio.Nursery | None = None
        self._probation: Probation | None = None
        self._probation_wanted = trio.Event()
        self._stop = trio.Event()
        self.drained = trio.Event()
        self.stop_reason = "gateway stopping"
        self._register_methods()
        self._completions: Completions | None = None
        self._serve_completions(config)
        add_joins(self._http, setup_codes)
        add_refresh(self._http, self.gatekeeper)
        self.gatekeeper.tailnet = self.tailnet.vouch
        add_probes(
            self._http,
            self.health,
            started=lambda: self._connections is not None,
            draining=self._stop.is_set,
            tailscale=lambda: self.tailnet.state,
        )
        self._dashboard: ControlUi | None = None
        self._configure_dashboard(config)
        self._hooks: InboundHooks | None = None
        self._configure_hooks(config, auth)
        self._login: OidcLogin | None = None
        self._login_changed = trio.Event()
        self._watch_channels()
        if loaded is not None:
            self.note_issues(loaded.issues, loaded.warnings)
        if auth.forced:
            _tell_forced(config, auth)

    # --- what an embedding program uses

    @property
    def port(self) -> int:
        """The TCP port of the main listener; 0 where nothing is listened on."""
        main = self.listening.get(MAIN)
        return main.port if main is not None else 0

    @property
    def urls(self) -> list[str]:
        """``ws://`` or ``wss://`` addresses of the main listener."""
        return self.configured.urls

    @property
    def tls_fingerprint(self) -> str | None:
        """Hex SHA-256 of the certificate that the main listener shows; None without TLS."""
        return self.configured.fingerprint

    @property
    def token(self) -> str | None:
        """The shared token that clients present; None with other kinds of authentication. A secret: do not print it."""
        return self.auth.token

    def request_stop(self, reason: str = "gateway stopping") -> None:
        """Ask for the end; whoever waits in `wait_stopped` goes on. Synchronous and harmless when repeated."""
        if not self._stop.is_set():
            self.stop_reason = reason
            self._stop.set()

    async def wait_stopped(self) -> None:
        """Wait until somebody asked for the end."""
        await self._stop.wait()

    async def serve_stream(self, stream: trio.abc.Stream, *, peer: tuple[str, int] = ("unknown", 0)) -> None:
        """Serve one connection over any stream (in-memory, a tunnel's end) until it ends. ``peer`` is where it comes
        from.

        Cancelling ends the connection, with a Close frame where it is a WebSocket. The stream is closed on return.
        """
        try:
            await self._server.serve(StreamWire(stream, peer))
        finally:
            await trio.aclose_forcefully(stream)

    def apply(self, config: GatewayConfig, auth: ResolvedAuth, loaded: LoadedConfig | None = None) -> None:
        """Use another configuration from now on (CFG-3). Listeners are re-opened only when port or bind changed.

        Connections stay, except those that came in with a shared secret that is no longer the secret (V16), and nodes
        in the clear where that is no longer allowed (S096). Raises `BindFailed` before anything changed where the new
        address cannot be listened on.
        """
        auths = self._auth_of_listeners(config, auth, loaded)
        urls = self.urls
        if self._listen:
            self.configured.apply(config, auths)
        moved = urls != self.urls
        before, self.config, self.auth, self.loaded = self.auth, config, auth, loaded
        auths_before, self._listener_auth = self._listener_auth, auths
        rules_before = self.gatekeeper.rules
        self.gatekeeper.configure(self._gatekeeper_rules())
        rules_now = self.gatekeeper.rules
        others = (rules_before.vouch, rules_before.peers) != (rules_now.vouch, rules_now.peers)
        self._close_vouched_sessions("trusted-proxy", everybody=others)
        left_out = rules_before.tailnet and not rules_now.tailnet
        if left_out or rules_before.identity_scopes != rules_now.identity_scopes:
            self._close_vouched_sessions("tailscale", everybody=True)
        self._http.rules = rules.http_rules(config, served=self.tailnet.origin)
        if self._listen:
            self.tailnet.configure(config, self.port)
        self._serve_completions(config)
        self.senders.configure(config.channels)
        if config.tunnels:
            self._tunnels_wanted.set()
        if self._tunnels is not None:
            self._tunnels.configure(config.tunnels)
        self.senders.book.code_ttl_ms = config.pairing.sender_code_ttl_ms
        websocket = config.transports.websocket
        self._core.limits = rules.limits(config)
        if self._core.secure is not None:
            self._core.secure.offered = config.nodes.secure_channel != "off"
        self._core.registry.limit = websocket.concurrent_connections
        self._core.registry.strangers.per_address = websocket.unauthenticated_per_address
        self.nodes.configure(config.nodes)
        self.messaging.configure(config)
        self._configure_dashboard(config)
        self._configure_hooks(config, auth)
        self._configure_login(config)
        self._watch_channels()
        self._server.websocket = websocket.enabled
        self._heartbeat.configure(**_heartbeat_seconds(config))
        if _secrets(before) != _secrets(auth) or auths_before != auths:
            self._close_shared_secret_sessions()
            self._setup_codes.revoke_shared_nowait()
        if config.nodes.secure_channel == "required":
            self._close_clear_nodes()
        if auth.forced and not before.forced:
            _tell_forced(config, auth)
        if moved:
            self.on_listening()
        self._announce_anew()

    def _gatekeeper_rules(self) -> GatekeeperRules:
        tailnet = self.tailnet
        return rules.gatekeeper_rules(
            self.config,
            self.auth,
            own_tailnet=tailnet.addresses,
            listeners=self._listener_auth,
            served=tailnet.origin,
        )

    def _announce_anew(self) -> None:
        """What others are told of this gateway may have changed: address, name, certificate."""
        self.discovery.nudge()
        self.wide_area.nudge()

    def _tailnet_changed(self) -> None:
        """This host's tailnet addresses, or what is served there, are others now (S099)."""
        before, now = self.gatekeeper.rules, self._gatekeeper_rules()
        if (before.admission, before.origins) != (now.admission, now.origins):
            self.gatekeeper.configure(now)
            self._http.rules = rules.http_rules(self.config, served=self.tailnet.origin)
        self._announce_anew()
        self._health_changed()

    def _configure_dashboard(self, config: GatewayConfig) -> None:
        root = config.control_ui.root if config.control_ui.enabled else None
        if self._dashboard is None and root is not None:
            from openclaw_gateway.server.controlui import ControlUi

            self._dashboard = ControlUi(self._http, version=__version__)
        if self._dashboard is not None:
            self._dashboard.configure(root)

    def _watch_channels(self) -> None:
        """The hub's side in `health` and on the HTTP port, from when the first channel is configured."""
        hub = self.messaging.channels
        if hub is None or hub.on_change == self._channel_changed:
            return
        from openclaw_gateway.server.channelhooks import add_channel_webhooks

        hub.on_change = self._channel_changed
        self.health.channels = lambda: _channel_health(hub.status())
        add_channel_webhooks(self._http, hub)

    def _channel_changed(self, account: Account | None) -> None:
        self.health.version += 1
        self._health_changed()

    def _channel_summary(self) -> list[str]:
        hub = self.messaging.channels
        return [account.summary for account in hub.accounts] if hub is not None else []

    def _configure_hooks(self, config: GatewayConfig, auth: ResolvedAuth) -> None:
        if self._hooks is None and config.hooks.enabled:
            from openclaw_gateway.hooks.inbound import InboundHooks

            runs, router = self.messaging.runs, self.messaging.router
            self._hooks = InboundHooks(self._http, runs, router, audit=self.audit, clock=now_ms)
        if self._hooks is not None:
            self._hooks.configure(config.hooks, auth)

    def _configure_login(self, config: GatewayConfig) -> None:
        """The login at an OpenID provider; loaded where it is configured, or was until now."""
        if self._login is None and config.auth.oidc.issuer is None and not self._keys.names("login-"):
            return
        from openclaw_gateway.hooks.login import OidcLogin, login_rules

        if self._login is None:
            self._login = OidcLogin(self._http, self._keys, audit=self.audit, clock=now_ms)
        rules, before = login_rules(config, self.port or config.port), self._login.rules
        if rules != before:
            self._login.configure(rules)
            self._login_changed.set()

    async def _end_stale_logins(self) -> None:
        """Whoever logged in under other rules than today's is logged out (V16)."""
        while True:
            self._login_changed = trio.Event()
            self._configure_login(self.config)
            if self._login is not None:
                await self._login.end_stale()
            await self._login_changed.wait()

    # --- moments

    def _presence_changed(self, entries: list[dict[str, Any]]) -> None:
        versions = {"presence": self.presence.version, "health": self.health.version}
        self.events.publish_nowait("presence", {"presence": entries}, droppable=True, state_version=versions)

    def _health_changed(self) -> None:
        self.presence.tell()  # first: its version goes out with this event
        versions = {"presence": self.presence.version, "health": self.health.version}
        self.events.publish_nowait("health", self.health.view(), droppable=True, state_version=versions)

    def _book_event(self, event: BookEvent) -> None:
        hears = _may_learn_of(event.payload.get("deviceId"))
        self.events.publish_nowait(event.name, event.payload, scope="operator.pairing", hears=hears)

    def _snapshot(self) -> HelloSnapshot:
        loaded = self.loaded
        return HelloSnapshot(
            presence=self.presence.encoded(),
            health=self.health.view(),
            presence_version=self.presence.version,
            health_version=self.health.version,
            uptime_ms=self.health.uptime_ms,
            config_path=str(loaded.path) if loaded is not None else None,
            state_dir=str(self.config.state_dir) if self.config.state_dir is not None else None,
            auth_mode=self.auth.type,
            applied_config_hash=self._applied_hash(),
        )

    def _applied_hash(self) -> str | None:
        return self.loaded.hash if self.loaded is not None else None

    def _identity(self) -> dict[str, Any]:
        """What `gateway.identity.get` tells: who this gateway is, and the key that its secure channels prove."""
        wire: dict[str, Any] = dict(load_gateway_identity(self.config.state_dir).to_wire())
        door = self._core.secure
        if door is not None and door.offered:
            wire["keyStatement"] = door.statement.to_wire()
            wire["keyFingerprint"] = fingerprint(door.statement.raw_key)
        return wire

    def _counts(self) -> dict[str, Any]:
        registry = self._core.registry
        roles = [session.role for session in registry]
        return {
            "total": len(roles),
            "operators": roles.count("operator"),
            "nodes": roles.count("node"),
            "unauthenticated": len(registry.strangers),
            "limit": registry.limit,
        }

    def _register_methods(self) -> None:
        config = self.config
        system.register(
            self.rpc,
            health=self.health,
            presence=self.presence,
            stability=self.stability,
            connections=self._counts,
            applied_hash=self._applied_hash,
            identity=self._identity,
            listeners=self.listening.view,
            tls=self.configured.tls_view,
            tailscale=self.tailnet.view,
            tunnels=lambda: self._tunnels.view() if self._tunnels is not None else [],
            on_health=self._health_changed,
            discovery=lambda: {**self.discovery.view(), "wideArea": self.wide_area.view()},
            channel_summary=self._channel_summary,
        )
        logs.register(self.rpc, path=log_path(config.logging, config.state_dir))
        nodes.register(self.rpc, self.nodes, audit=self.audit)
        nodeside.register(self.rpc, self.nodes)
        pairing.register(
            self.rpc,
            book=self._book,
            registry=self._core.registry,
            publish=self._book_event,
            audit=self.audit,
        )
        self.pairing_overview = senders.register(
            self.rpc, gate=self.senders, devices=self._book, clock=now_ms, audit=self.audit
        )
        self.pairing_overview.add(node_source(self.nodes))
        configuration.register(
            self.rpc,
            current=lambda: self.loaded,
            env=self._env,
            overrides=self._overrides,
            audit=self.audit,
            probation=self._on_probation,
        )
        activity.register(self.rpc, audit=self.audit)
        explain.register(self.rpc, gatekeeper=self.gatekeeper, book=self._book)
        setup.register(self.rpc, codes=self._setup_codes, situation=self._setup_situation, audit=self.audit)
        certificate_methods.register(
            self.rpc,
            self._certificates,
            fingerprint=lambda: self.tls_fingerprint,
            client_auth=lambda: self.config.tls.client_auth,
            audit=self.audit,
        )
        token_methods.register(self.rpc, issued=self._issued, keys=self._keys, audit=self.audit)
        self.messaging.register(self.rpc, audit=self.audit)
        channels.register(self.rpc, hub=lambda: self.messaging.channels, event_loop=self.loop.view, audit=self.audit)
        dashboard.register(self.rpc)

    def _discovery_facts(self) -> Facts:
        config, tls_sha256 = self.config, self.tls_fingerprint
        main = self.listening.get(MAIN)
        addresses = main.addresses if main is not None else []
        capabilities = ["gateway"]
        agent = self.rpc.get("agent.send")
        if agent is not None and not agent.placeholder:
            capabilities.append("agent")
        if any(channel.enabled for channel in config.channels.values()):
            capabilities.append("channels")
        return Facts(
            mode=config.discovery.mdns.mode,
            listening=tuple(host for host, _ in addresses),
            port=self.port,
            version=__version__,
            auth=self.auth.type,
            capabilities=tuple(capabilities),
            tls=tls_sha256 is not None,
            tls_sha256=tls_sha256,
            display_name=self.host,
            tailnet_dns=self.tailnet.dns_name,
            ssh_port=22,
            cli_path=shutil.which("openclaw") if config.discovery.mdns.mode == "full" else None,
        )

    def _serve_completions(self, config: GatewayConfig) -> None:
        """The routes for programs that speak OpenAI's API: there while the configuration asks for them."""
        if config.http.endpoints.chat_completions.enabled:
            from openclaw_gateway.completions.routes import Completions, add_completions

            if self._completions is None:
                runs, router = self.messaging.runs, self.messaging.router
                self._completions = Completions(runs, router, clock=now_ms, lapsed=self.gatekeeper.lapsed)
            add_completions(self._http, self._completions)
        elif self._completions is not None:
            from openclaw_gateway.completions.routes import remove_completions

            remove_completions(self._http)

    def _setup_situation(self) -> setup.SetupSituation:
        main = self.listening.get(MAIN)
        addresses = main.addresses if main is not None else []
        config = self.config
        offered = config.nodes.secure_channel != "off"
        return setup.SetupSituation(
            reach=Reachability(
                listening=tuple(addresses),
                lan=own_lan_addresses(),
                tailnet=next((found for found in sorted(self.tailnet.addresses) if ":" not in found), None),
                served_url=self.tailnet.origin,
                public_url=config.public_url,
                remote_url=config.remote.url,
                container=in_container(),
                tls=self.tls_fingerprint is not None,
            ),
            tls_fingerprint=self.tls_fingerprint,
            ttl_ms=config.pairing.setup_code_ttl_ms,
            auth="password" if self.auth.type == "password" else "token",
            http=config.transports.http.enabled,
            gateway_id=load_gateway_identity(config.state_dir).device_id if offered else None,
        )

    def _cut(self, device_id: str, role: str | None, spare: str | None) -> None:
        """A device lost a role, or (None) all of them and its place here."""
        self._core.registry.cut_device(device_id, role, spare)
        if role is None:
            self.nodes.forget(device_id)
            self._certificates.forget(device_id, spare)
        elif not self._certificates.counts(device_id):
            self._certificates_ended(device_id, "device revoked", spare)

    def _api_key_revoked(self, key_id: str) -> None:
        for session in self._core.registry:
            if session.grant is not None and session.grant.api_key_id == key_id:
                session.cut(CloseCode.DEVICE_REMOVED, "api key revoked or expired")

    def _refresh_token_reused(self, device_id: str, role: str) -> None:
        log.warning("auth: a spent refresh token came back; its family is revoked", device_id=device_id, role=role)
        self.audit.note(
            Action.TOKEN_REVOKED, actor="gateway", device=device_id, role=role, reason="a spent refresh token came back"
        )
        for session in self._core.registry.of_device(device_id, role):
            session.cut(CloseCode.DEVICE_REMOVED, "refresh token reused")

    async def _end_lapsed_sessions(self) -> None:
        """Nobody stays longer than the credential lives that he came in with (S147)."""
        while True:
            await trio.sleep(LAPSE_SECONDS)
            for session in self._core.registry:
                reason = self.gatekeeper.lapsed(session.grant) if session.grant is not None else None
                if reason is not None:
                    session.cut(CloseCode.DEVICE_REMOVED, reason)

    def _close_shared_secret_sessions(self) -> None:
        for session in self._core.registry:
            if session.grant is not None and session.grant.method in _SHARED:
                session.scope.close(CloseCode.POLICY, "gateway credentials changed")

    def _close_vouched_sessions(self, method: str, *, everybody: bool) -> None:
        """Whoever is here on a proxy's or the tailnet's word comes in again under the rules that hold now: everybody,
        or those on whose listener that word counts no more.
        """
        for session in self._core.registry:
            if session.grant is not None and session.grant.method == method:
                asked = self.gatekeeper.rules.on(session.peer.arrival).admission.auth_type
                if everybody or asked != method:
                    session.scope.close(CloseCode.SERVICE_RESTART, "identity rules changed")

    def _close_clear_nodes(self) -> None:
        for session in self._core.registry:
            if session.role == "node" and not session.secure:
                session.scope.close(CloseCode.POLICY, "secure channel required")

    # --- listening

    def _auth_of_listeners(
        self, config: GatewayConfig, auth: ResolvedAuth, loaded: LoadedConfig | None
    ) -> dict[str, ResolvedAuth]:
        overridden = loaded.overridden if loaded is not None else ()
        return listener_auth(config, auth, config.state_dir, self._env, overridden=overridden)

    def _certificates_ended(self, device_id: str, reason: str, spare: str | None = None) -> None:
        """Whoever opened TLS with a certificate of that device is cut, whatever it authenticated with inside.
        ``spare``: the id of the connection that asked for it, which ends behind its answer.
        """
        for session in self._core.registry.live:
            if session.peer.arrival.certificate == device_id and session.conn_id != spare:
                session.cut(CloseCode.DEVICE_REMOVED, reason)
        self._server.abort_http(lambda wire: wire.arrival.certificate == device_id)

    def _end_connections(self, ends: Callable[[Wire], bool], reason: str) -> None:
        for session in self._core.registry.live:
            if ends(session.wire):
                session.scope.close(CloseCode.SERVICE_RESTART, reason)
        self._server.abort_http(ends)

    async def serve_until_drained(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until a stop was asked for and is done; ``started`` once every address accepts. Raises
        `BindFailed`.
        """
        try:
            async with trio.open_nursery() as connections:
                self._connections = connections
                self.listening.attach(connections)
                if self._listen:
                    self.configured.apply(self.config, self._listener_auth)
                    self.tailnet.configure(self.config, self.port)
                record_start(self.audit, self.config, self.auth, port=self.port, version=__version__)
                task_status.started()
                await self._stop.wait()
                await self._drain(connections)
        finally:
            self.listening.close_all()
            self.listening.attach(None)
            self.configured.close()
            self.drained.set()

    async def _drain(self, connections: trio.Nursery) -> None:
        """Stop accepting, tell everybody, close everybody; what is left after `DRAIN_SECONDS` is dropped (design rule
        3).
        """
        registry = self._core.registry
        self.audit.note(Action.GATEWAY_STOPPED, actor="gateway", reason=self.stop_reason, pid=os.getpid())
        log.info("stopping", reason=self.stop_reason, clients=len(registry))
        self._server.draining = self._http.draining = True
        self.tailnet.stop()
        self.listening.close_all()
        self.listening.attach(None)
        self.events.publish_nowait("shutdown", {"reason": self.stop_reason}, scope=None)
        registry.close_all(CloseCode.SERVICE_RESTART, "service restart")
        await self._server.http.stop_idle()
        with trio.move_on_after(DRAIN_SECONDS):
            await self._server.wait_empty()
        self._server.abort_all()
        connections.cancel_scope.cancel()

    async def serve_owner_door(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Let the owner of the state directory decide who is paired (PAIR-2); ``started`` once the door is open."""
        if self.config.state_dir is None:
            task_status.started()
            return
        await serve_owner_door(self.config.state_dir, self._dispatcher, task_status=task_status)

    async def serve_services(self) -> None:
        """The watchers: heartbeat, tick, health event, upkeep, self-probe. Never returns; raises only
        `AcceptStalled`, and that after the connections have drained.
        """
        trio.lowlevel.add_instrument(self.loop)
        try:
            async with trio.open_nursery() as nursery:
                tasks: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
                    ("heartbeat", self._heartbeat.serve),
                    ("loop", self.loop.serve),
                    ("tick", self._tick),
                    ("audit", self.audit.serve_flush),
                    ("health", self._health_events),
                    ("presence", self.presence.serve),
                    ("nodes", self.nodes.serve),
                    ("pairing", partial(self._book.supervise_upkeep, self._publish_all)),
                    ("lapses", self._end_lapsed_sessions),
                    ("certificates", self.configured.serve),
                    ("tailnet", self.tailnet.follow),
                    ("api-keys", self._keys.supervise_upkeep),
                    ("tokens", self._issued.supervise_upkeep),
                    ("logins", self._end_stale_logins),
                    ("senders", self.senders.book.supervise_upkeep),
                    ("wide-area", self.wide_area.serve),
                    *self.messaging.tasks(),
                )
                for name, task in tasks:
                    nursery.start_soon(supervise, name, task, partial(self.health.set, name))
                nursery.start_soon(
                    supervise, "discovery", partial(self.discovery.serve, self.wait_stopped), self.discovery.tell
                )
                nursery.start_soon(supervise, "tunnels", self._serve_tunnels, self._tunnels_troubled)
                nursery.start_soon(supervise, "tailscale", self.tailnet.serve, self.tailnet.trouble)
                nursery.start_soon(watch_accepts, self._probe_address)
                if self.loaded is not None:
                    nursery.start_soon(supervise, "config", self._watch_config, partial(self.health.set, "config"))
                    tell = partial(self.health.set, "probation")
                    nursery.start_soon(supervise, "probation", self._serve_probation, tell)
        except Exception:
            self.request_stop("gateway failed")
            with trio.move_on_after(STOP_SECONDS):
                await self.drained.wait()
            raise
        finally:
            trio.lowlevel.remove_instrument(self.loop)

    def _publish_all(self, events: tuple[BookEvent, ...]) -> None:
        record_expired(self.audit, events)
        for event in events:
            self._book_event(event)

    async def _serve_tunnels(self) -> None:
        """The ssh tunnels of the configuration; nothing is loaded before there is one."""
        await self._tunnels_wanted.wait()
        if self._tunnels is None:
            from openclaw_gateway.tunnels.service import TunnelService

            self._tunnels = TunnelService(state=self.config.state_dir, entrance=self._tunnel_entrance)
        self._tunnels.configure(self.config.tunnels)
        await self._tunnels.serve()

    def _tunnels_troubled(self, trouble: str | None) -> None:
        if self._tunnels is not None:
            self.health.set("tunnels", trouble)

    def _tunnel_entrance(self) -> int:
        """The port where published tunnels end. Whoever comes through it is not of this host (V13)."""
        listener = self.listening.get("tunnel")
        if listener is None:
            plan = ListenerPlan(name="tunnel", hosts=("127.0.0.1",), port=0, provenance="tunnel")
            listener = self.listening.open(plan)
        return listener.port

    async def _watch_config(self) -> None:
        """Take over what changes in openclaw.json; a file that cannot be used changes nothing and says why (CFG-1,
        CFG-3).
        """
        assert self.loaded is not None
        async for change in watch_config(self.loaded, env=self._env, overrides=self._overrides):
            self.take_over(change)

    def _on_probation(self) -> Probation | None:
        """Who minds a change that waits for its confirmation; None where no file is read. Loaded when first asked."""
        state = self.config.state_dir
        if self._probation is None and self.loaded is not None and state is not None:
            from openclaw_gateway.server.probation import Probation

            self._probation = Probation(
                state,
                env=self._env,
                audit=self.audit,
                applied_hash=self._applied_hash,
                opened_at=self._opened_at,
                now_ms=now_ms,
            )
        return self._probation

    def _opened_at(self, conn_id: str) -> float | None:
        return next((session.opened_at for session in self._core.registry if session.conn_id == conn_id), None)

    def _look_for_probation(self) -> None:
        state = self.config.state_dir
        if self._probation is None and (state is None or not pending_path(state).exists()):
            return
        found = self._on_probation()
        if found is not None:
            found.look()
            self._probation_wanted.set()

    async def _serve_probation(self) -> None:
        self._look_for_probation()
        await self._probation_wanted.wait()
        found = self._on_probation()
        assert found is not None
        await found.serve()

    def note_issues(self, issues: Iterable[ConfigIssue], warnings: Iterable[str]) -> None:
        """Tell what of the configuration is not in use as written, at the start as after a reload (CFG-1): the paths in
        `health` and ``/health``, everything in the log.
        """
        issues = tuple(issues)
        self.health.note_config(issue.path for issue in issues if issue.severity != "warning")
        for issue in issues:
            if issue.path == "gateway.auth.type" and issue.severity == "warning":
                continue  # a forced token: `_tell_forced` says so, once and with its place
            log.warning("configuration fault", key=issue.path, issue=issue.message, fix=issue.fix)
        told = {str(issue) for issue in issues}
        for line in warnings:
            if line not in told:
                log.warning("configuration warning", issue=line)

    def take_over(self, change: ConfigChange) -> None:
        """Use ``change`` where it can be used; say what is not used as written, and why (CFG-1, CFG-3)."""
        try:
            self._take_over(change)
        finally:
            self._look_for_probation()

    def _take_over(self, change: ConfigChange) -> None:
        self.note_issues(change.issues, change.new.warnings if change.applied else ())
        if not change.applied:
            return
        for path in overridden_edits(change.old, change.new, self._overrides or {}):
            fix = "openclaw gateway stop, then start it without that flag"
            log.warning("changed in the file, but a flag of the command line overrides it", key=path, fix=fix)
        config = change.new.config
        try:
            auth = resolve_auth(config, config.state_dir, self._env, overridden=change.new.overridden)
            before = self.auth
            self.apply(config, auth, change.new)
        except (ConfigError, BindFailed) as exc:
            moved = _moved(self.config, config)
            self.health.note_config(moved if isinstance(exc, BindFailed) else [issue.path for issue in exc.issues])
            log.error("configuration cannot be applied; the running one stays", error=str(exc))
            return
        remember_good(change.new)
        record_configuration(self.audit, change, before, auth)
        log.info("configuration applied", keys=change.changed, hash=change.new.hash[:12])

    async def _tick(self) -> None:
        while True:
            await trio.sleep(self._core.limits.tick_interval_ms / 1000)
            self.events.publish_nowait("tick", {"ts": now_ms()}, scope=None, droppable=True)

    async def _health_events(self) -> None:
        while True:
            await trio.sleep(HEALTH_EVENT_SECONDS)
            self._health_changed()

    def _probe_address(self) -> Probed | None:
        main = self.listening.get(MAIN)
        if main is None:
            return None
        host, port = main.addresses[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        if main.plan.network.refusal(host) is not None or main.plan.preface is not None:
            return None  # whoever may not connect cannot look
        return Probed(host, port, tls=main.plan.tls is not None)


def _tell_forced(config: GatewayConfig, auth: ResolvedAuth) -> None:
    """Whoever configured no authentication has to learn where the token is that is asked for all the same (NET-5)."""
    log.warning(
        "auth: none is not possible on a listener that others can reach; a token is asked for",
        bind=config.bind,
        source=auth.source,
        fingerprint=auth.fingerprint,
    )


def _moved(old: GatewayConfig, new: GatewayConfig) -> list[str]:
    """The settings of the listening address that differ, by path."""
    address = (
        ("gateway.port", old.port, new.port),
        ("gateway.bind", old.bind, new.bind),
        ("gateway.customBindHost", old.custom_bind_host, new.custom_bind_host),
    )
    return [path for path, before, now in address if before != now]


def _heartbeat_seconds(config: GatewayConfig) -> dict[str, float]:
    websocket = config.transports.websocket
    return {"interval": websocket.ping_interval_ms / 1000, "timeout": websocket.ping_timeout_ms / 1000}


def _channel_health(status: dict[str, Any]) -> dict[str, Any]:
    """The members of `health` about channels: each with the rows of its accounts."""
    rows = status["channelAccounts"]
    return {
        "channels": {
            name: {**summary, "accounts": {row["accountId"]: row for row in rows[name]}}
            for name, summary in status["channels"].items()
        },
        "channelOrder": status["channelOrder"],
        "channelLabels": status["channelLabels"],
    }


def _secrets(auth: ResolvedAuth) -> tuple[str | None, ...]:
    return (auth.type, auth.token, auth.password, auth.password_hash)


@asynccontextmanager
async def open_gateway(
    config: GatewayConfig | None = None,
    *,
    auth: ResolvedAuth | None = None,
    loaded: LoadedConfig | None = None,
    overrides: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
    listen: bool = True,
) -> AsyncIterator[Gateway]:
    """Open a gateway: listening on entry, drained on exit.

    ``config`` defaults to a private gateway on the standard port that keeps nothing on disk. A caller that loaded
    openclaw.json itself (the command line does) passes ``loaded``, and the ``overrides`` it was loaded with: then the
    file is watched and changes are taken over. With ``listen=False`` no port is opened: connections come only through
    `Gateway.serve_stream`.

    Raises `ConfigError` (no usable secret), `BindFailed`, `StoreError`, `StateDirUnsafe`. A cancellation from outside
    still drains, within `STOP_SECONDS`. Tasks of the caller may use the gateway from anywhere in the same Trio run
    while the block lasts.
    """
    env = os.environ if env is None else env
    if config is None:
        config = loaded.config if loaded is not None else GatewayConfig()
    if auth is None:
        overridden = loaded.overridden if loaded is not None else ()
        auth = resolve_auth(config, config.state_dir, env, overridden=overridden)
    if loaded is not None and not loaded.degraded:
        remember_good(loaded)
    with flat_errors():
        async with trio.open_nursery() as tiers:
            alive = trio.CancelScope(shield=True)
            try:
                gateway = await tiers.start(
                    _serve_tiers,
                    alive,
                    partial(Gateway, config, auth, loaded=loaded, env=env, overrides=overrides, listen=listen),
                )
                try:
                    yield gateway
                finally:
                    gateway.request_stop()
                    with trio.move_on_after(STOP_SECONDS, shield=True):
                        await gateway.drained.wait()
            finally:
                alive.cancel()


def _may_learn_of(device_id: str | None) -> Callable[[Listener], bool]:
    """Whether a listener may learn of that device: who holds only its own device's token of no other (V21)."""

    def hears(listener: Listener) -> bool:
        own = pairing.own_device_of(listener) if isinstance(listener, Session) else None
        return device_id is None or own is None or own == device_id

    return hears


async def _serve_tiers(
    alive: trio.CancelScope,
    make: partial[Gateway],
    *,
    task_status: trio.TaskStatus[Gateway] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Both tiers, inside the shielded scope: services outside, connections inside."""
    config: GatewayConfig = make.args[0]
    with alive:
        tokens = load_device_tokens(config.state_dir)
        codes = load_sender_codes(config.state_dir)
        async with (
            open_store(config.state_dir) as store,
            open_audit(store) as audit_trail,
            open_device_book(store, clock=now_ms, tokens=tokens, request_ttl_ms=config.pairing.request_ttl_ms) as book,
            open_issued_tokens(store, book, rules.life_rules(config)) as issued,
            open_api_keys(store, rules.life_rules(config)) as keys,
            open_sender_book(store, clock=now_ms, codes=codes, code_ttl_ms=config.pairing.sender_code_ttl_ms) as people,
            open_setup_codes(store, book, clock=now_ms) as setup_codes,
            open_node_hub(store, book, clock=now_ms) as hub,
            open_issued_certificates(store, book, config.state_dir) as certificates,
            open_messaging(store) as messaging,
        ):
            if store.recovery is not None:
                log.error(
                    "the database was damaged; a backup was put back",
                    reason=store.recovery.reason,
                    backup=str(store.recovery.restored_from),
                )
            gateway = make(
                book,
                hub,
                people,
                audit=audit_trail,
                issued=issued,
                keys=keys,
                setup_codes=setup_codes,
                certificates=certificates,
                messaging=messaging,
            )
            async with trio.open_nursery() as services:
                await services.start(gateway.serve_until_drained)
                await services.start(gateway.serve_owner_door)
                services.start_soon(gateway.serve_services)
                task_status.started(gateway)


async def serve_gateway(
    config: GatewayConfig | None = None, *, task_status: trio.TaskStatus[Gateway] = trio.TASK_STATUS_IGNORED
) -> None:
    """`open_gateway` as a task: ``gateway = await nursery.start(serve_gateway, config)``. Returns when the gateway is
    asked to stop.
    """
    async with open_gateway(config) as gateway:
        task_status.started(gateway)
        await gateway.wait_stopped()
