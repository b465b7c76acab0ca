"""The parts that a gateway loads when its configuration first asks for them.

Owns their existence: the dashboard, the page where a node is approved, the routes that speak OpenAI's API, inbound
webhooks, the login at an OpenID provider, ssh tunnels, and the side of the channels that `health` and HTTP show. It
must not know how any of them works, nor what else changes with a configuration (`reloading`).

Invariants: what no configuration asked for is not imported, so that a start pays nothing for it; what was loaded once
stays and is configured anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from openclaw_gateway._version import __version__
from openclaw_gateway.app.inforce import InForce
from openclaw_gateway.app.news import News
from openclaw_gateway.approvals.door import ApprovalDoor
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.messaging import Messaging
from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.pairing.apikeys import ApiKeys
from openclaw_gateway.pairing.devices import DeviceBook
from openclaw_gateway.server.gatekeeper import Gatekeeper
from openclaw_gateway.server.http import HttpApp
from openclaw_gateway.server.listening import ListenerPlan, Listening

if TYPE_CHECKING:
    from openclaw_gateway.channels.accounts import Account
    from openclaw_gateway.completions.routes import Completions
    from openclaw_gateway.hooks.inbound import InboundHooks
    from openclaw_gateway.hooks.login import OidcLogin
    from openclaw_gateway.server.controlui import ControlUi
    from openclaw_gateway.tunnels.service import TunnelService

__all__ = ["OnDemand"]


class OnDemand:
    """Each of its parts is None until it was asked for."""

    def __init__(
        self,
        http: HttpApp,
        listening: Listening,
        gatekeeper: Gatekeeper,
        messaging: Messaging,
        news: News,
        *,
        in_force: InForce,
        keys: ApiKeys,
        book: DeviceBook,
        audit: AuditTrail,
    ) -> None:
        self._http = http
        self._listening = listening
        self._gatekeeper = gatekeeper
        self._messaging = messaging
        self._news = news
        self._in_force = in_force
        self._keys = keys
        self._audit = audit
        self._tunnels: TunnelService | None = None
        self._tunnels_wanted = trio.Event()
        self._completions: Completions | None = None
        self._dashboard: ControlUi | None = None
        self.approvals = ApprovalDoor(http, gatekeeper, resolution=book.resolution)
        self.hooks: InboundHooks | None = None
        self.login: OidcLogin | None = None
        self._login_changed = trio.Event()

    def configure(self, config: GatewayConfig, auth: ResolvedAuth) -> None:
        """Load what ``config`` asks for, and let what is loaded go by it. Synchronous; `configure_login` is apart
        because it has to know the port."""
        self._serve_completions(config)
        self._configure_tunnels(config)
        self._configure_dashboard(config)
        self.approvals.configure(enabled=config.control_ui.enabled)
        self._configure_hooks(config, auth)
        self._watch_channels()

    def _serve_completions(self, config: GatewayConfig) -> None:
        """The routes for programs that speak OpenAI's API: there while the configuration asks for them."""
        if config.http.endpoints.chat_completions.enabled:
            from openclaw_gateway.completions.routes import Completions, add_completions

            if self._completions is None:
                runs, router = self._messaging.runs, self._messaging.router
                self._completions = Completions(runs, router, clock=now_ms, lapsed=self._gatekeeper.lapsed)
            add_completions(self._http, self._completions)
        elif self._completions is not None:
            from openclaw_gateway.completions.routes import remove_completions

            remove_completions(self._http)

    def _configure_dashboard(self, config: GatewayConfig) -> None:
        root = config.control_ui.root if config.control_ui.enabled else None
        if self._dashboard is None and root is not None:
            from openclaw_gateway.server.controlui import ControlUi

            self._dashboard = ControlUi(self._http, version=__version__)
        if self._dashboard is not None:
            self._dashboard.configure(root)

    def _configure_hooks(self, config: GatewayConfig, auth: ResolvedAuth) -> None:
        if self.hooks is None and config.hooks.enabled:
            from openclaw_gateway.hooks.inbound import InboundHooks

            runs, router = self._messaging.runs, self._messaging.router
            self.hooks = InboundHooks(self._http, runs, router, audit=self._audit, clock=now_ms)
        if self.hooks is not None:
            self.hooks.configure(config.hooks, auth)

    # --- channels

    def _watch_channels(self) -> None:
        """The hub's side in `health` and on the HTTP port, from when the first channel is configured."""
        hub = self._messaging.channels
        if hub is None or hub.on_change == self._channel_changed:
            return
        from openclaw_gateway.server.channelhooks import add_channel_webhooks

        hub.on_change = self._channel_changed
        self._news.health.channels = lambda: _channel_health(hub.status())
        add_channel_webhooks(self._http, hub)

    def _channel_changed(self, account: Account | None) -> None:
        self._news.health.version += 1
        self._news.health_changed()

    # --- logins

    def configure_login(self, config: GatewayConfig) -> None:
        """The login at an OpenID provider; loaded where it is configured, or was until now."""
        if self.login is None and config.auth.oidc.issuer is None and not self._keys.names("login-"):
            return
        from openclaw_gateway.hooks.login import OidcLogin, login_rules

        if self.login is None:
            self.login = OidcLogin(self._http, self._keys, audit=self._audit, clock=now_ms)
        rules, before = login_rules(config, self._listening.port or config.port), self.login.rules
        if rules != before:
            self.login.configure(rules)
            self._login_changed.set()

    async def end_stale_logins(self) -> None:
        """Whoever logged in under other rules than today's is logged out (V16)."""
        while True:
            self._login_changed = trio.Event()
            self.configure_login(self._in_force.config)
            if self.login is not None:
                await self.login.end_stale()
            await self._login_changed.wait()

    # --- tunnels

    def _configure_tunnels(self, config: GatewayConfig) -> None:
        if config.tunnels:
            self._tunnels_wanted.set()
        if self._tunnels is not None:
            self._tunnels.configure(config.tunnels)

    async def serve_tunnels(self) -> None:
        """The ssh tunnels of the configuration; nothing is loaded before there is one."""
        await self._tunnels_wanted.wait()
        config = self._in_force.config
        if self._tunnels is None:
            from openclaw_gateway.tunnels.service import TunnelService

            self._tunnels = TunnelService(state=config.state_dir, entrance=self._tunnel_entrance)
        self._tunnels.configure(config.tunnels)
        await self._tunnels.serve()

    def tunnels_troubled(self, trouble: str | None) -> None:
        if self._tunnels is not None:
            self._news.health.set("tunnels", trouble)

    def tunnels_view(self) -> list[dict[str, Any]]:
        return self._tunnels.view() if self._tunnels is not None else []

    def _tunnel_entrance(self) -> int:
        """The port where published tunnels end. Whoever comes through it is not of this host (V13)."""
        listener = self._listening.get("tunnel")
        if listener is None:
            plan = ListenerPlan(name="tunnel", hosts=("127.0.0.1",), port=0, provenance="tunnel")
            listener = self._listening.open(plan)
        return listener.port


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
