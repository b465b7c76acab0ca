"""The face of a running gateway: what `open_gateway` yields to an embedding program, the command line and tests.

Owns what of a gateway is public, and nothing else: every name here is a part's. It must not know how the parts are
wired (`parts`) or in which order they live (`opening`).
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from openclaw_gateway._version import __version__
from openclaw_gateway.app import views
from openclaw_gateway.app.inforce import InForce
from openclaw_gateway.app.life import Life
from openclaw_gateway.app.methods import add_routes, register_methods
from openclaw_gateway.app.parts import Parts
from openclaw_gateway.app.reloading import Reloading
from openclaw_gateway.app.services import Services
from openclaw_gateway.app.watchers import serve_door, serve_watchers
from openclaw_gateway.config.load import LoadedConfig
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.config.watch import ConfigChange
from openclaw_gateway.policy.setupurls import shown_urls
from openclaw_gateway.server.wire import StreamWire

__all__ = ["Gateway"]


class Gateway:
    """A running gateway: what `open_gateway` yields. Belongs to the Trio run that opened it."""

    def __init__(self, services: Services, in_force: InForce) -> None:
        parts = Parts(services, in_force)
        self._parts = parts
        self._in_force = in_force
        self._life = Life(parts)
        self._reloading = Reloading(parts)
        self._core, self._server, self._http = parts.core, parts.server, parts.http
        self._book = services.book
        self.version = __version__
        self.host = parts.news.host
        self.rpc = parts.rpc
        self.events = parts.events
        self.health = parts.news.health
        self.presence = parts.news.presence
        self.stability = parts.stability
        self.loop = parts.loop
        self.audit = services.audit
        self.gatekeeper = parts.gatekeeper
        self.nodes = parts.nodes
        self.messaging = parts.messaging
        self.agents = parts.messaging.agents
        self.senders = parts.senders
        self.listening = parts.listening
        self.configured = parts.configured
        self.tailnet = parts.tailnet
        self.discovery = parts.discovery
        self.wide_area = parts.wide_area
        self.pairing_overview = register_methods(parts, self._reloading)
        add_routes(parts, self._life)
        parts.on_demand.configure(self.config, self.auth)  # the dashboard covers the page that `add_routes` made
        self._reloading.note_start()

    @property
    def config(self) -> GatewayConfig:
        """The configuration in force."""
        return self._in_force.config

    @property
    def auth(self) -> ResolvedAuth:
        """How clients authenticate, with the secrets: do not print it."""
        return self._in_force.auth

    @property
    def loaded(self) -> LoadedConfig | None:
        """The file that the configuration in force came from; None where a program gave it."""
        return self._in_force.loaded

    @property
    def port(self) -> int:
        """The TCP port of the main listener; 0 where nothing is listened on."""
        return self.listening.port

    @property
    def urls(self) -> list[str]:
        """``ws://`` or ``wss://`` addresses of the main listener."""
        return self.configured.urls

    @property
    def shown_urls(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Addresses for a person: those that work at this host, and those that work from elsewhere."""
        return shown_urls(views.reach(self._parts))

    @property
    def tls_fingerprint(self) -> str | None:
        """Hex SHA-256 of the certificate that the main listener shows; None without TLS."""
        return self.configured.fingerprint

    @property
    def token(self) -> str | None:
        """The shared token that clients present; None with other kinds of authentication. A secret: do not print it."""
        return self.auth.token

    async def serve_stream(self, stream: trio.abc.Stream, *, peer: tuple[str, int] = ("unknown", 0)) -> None:
        """Serve one connection over any stream (in-memory, a tunnel's end) until it ends. ``peer`` is where it comes
        from.

        Cancelling ends the connection, with a Close frame where it is a WebSocket. The stream is closed on return.
        """
        try:
            await self._server.serve(StreamWire(stream, peer))
        finally:
            await trio.aclose_forcefully(stream)

    # --- another configuration

    @property
    def on_listening(self) -> Callable[[], None]:
        """Called after a reload moved the listeners."""
        return self._reloading.on_listening

    @on_listening.setter
    def on_listening(self, call: Callable[[], None]) -> None:
        self._reloading.on_listening = call

    def apply(self, config: GatewayConfig, auth: ResolvedAuth, loaded: LoadedConfig | None = None) -> None:
        """Use another configuration from now on (CFG-3). Listeners are re-opened only when port or bind changed.

        Connections stay, except those that came in with a shared secret that is no longer the secret (V16), and nodes
        in the clear where that is no longer allowed (S096). Raises `BindFailed` before anything changed where the new
        address cannot be listened on.
        """
        self._reloading.apply(config, auth, loaded)

    def take_over(self, change: ConfigChange) -> None:
        """Use ``change`` where it can be used; say what is not used as written, and why (CFG-1, CFG-3)."""
        self._reloading.take_over(change)

    # --- the end

    @property
    def stop_reason(self) -> str:
        return self._life.stop_reason

    @property
    def drained(self) -> trio.Event:
        """Set when no connection is left after a stop was asked for."""
        return self._life.drained

    def request_stop(self, reason: str = "gateway stopping") -> None:
        """Ask for the end; whoever waits in `wait_stopped` goes on. Synchronous and harmless when repeated."""
        self._life.request_stop(reason)

    async def wait_stopped(self) -> None:
        """Wait until somebody asked for the end."""
        await self._life.wait_stopped()

    async def serve(self, *, task_status: trio.TaskStatus[Gateway] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; for `opening` alone. ``started`` with this gateway once every address accepts. Raises
        `BindFailed`, and `AcceptStalled` after the connections have drained.
        """
        async with trio.open_nursery() as services:
            await services.start(self._life.serve_until_drained)
            await services.start(serve_door, self._parts)
            services.start_soon(serve_watchers, self._parts, self._life, self._reloading)
            task_status.started(self)
