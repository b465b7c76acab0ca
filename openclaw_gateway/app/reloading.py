"""Reloading: another configuration is carried to every part of a running gateway.

Owns what follows from a change and in which order, who is told that something is not used as written (CFG-1), and the
watch over the file (CFG-3). It must not know how a file is read or checked (`config`), nor what a part does with its
settings.

Invariants: a configuration that cannot be used changes nothing and says why; listeners come first, because they alone
can refuse; connections stay, except those whose way in the new configuration closes (V16, S096).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import trio

from openclaw_gateway.config.issues import ConfigError, ConfigIssue
from openclaw_gateway.config.lastgood import remember_good
from openclaw_gateway.config.load import LoadedConfig
from openclaw_gateway.config.paths import pending_path
from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth, resolve_auth
from openclaw_gateway.config.watch import ConfigChange, overridden_edits, watch_config
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.server import rules
from openclaw_gateway.server.addresses import BindFailed
from openclaw_gateway.server.recording import record_configuration

if TYPE_CHECKING:
    from openclaw_gateway.app.parts import Parts
    from openclaw_gateway.server.probation import Probation

__all__ = ["Reloading"]

log = get_logger("gateway")


class Reloading:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._in_force = parts.in_force
        self._health = parts.news.health
        self.on_listening: Callable[[], None] = lambda: None  # called after a reload moved the listeners
        self._probation: Probation | None = None
        self._probation_wanted = trio.Event()

    def apply(self, config: GatewayConfig, auth: ResolvedAuth, loaded: LoadedConfig | None = None) -> None:
        """Use another configuration from now on (CFG-3). Listeners are re-opened only when port or bind changed.

        Connections stay, except those that came in with a shared secret that is no longer the secret (V16), and nodes
        in the clear where that is no longer allowed (S096). Raises `BindFailed` before anything changed where the new
        address cannot be listened on.
        """
        parts, in_force = self._parts, self._in_force
        auths = in_force.auth_of_listeners(config, auth, loaded)
        urls = parts.configured.urls
        if in_force.listen:
            parts.configured.apply(config, auths)
        moved = urls != parts.configured.urls
        before, auths_before = in_force.auth, in_force.listener_auth
        in_force.replace(config, auth, loaded, auths)
        self._apply_admission(config)
        if in_force.listen:
            parts.tailnet.configure(config, parts.listening.port)
        parts.senders.configure(config.channels)
        parts.senders.book.code_ttl_ms = config.pairing.sender_code_ttl_ms
        self._apply_limits(config)
        parts.nodes.configure(config.nodes)
        parts.messaging.configure(config)
        parts.on_demand.configure(config, auth)
        parts.on_demand.configure_login(config)
        if _secrets(before) != _secrets(auth) or auths_before != auths:
            parts.revocation.close_shared_secret_sessions()
            parts.services.setup_codes.revoke_shared_nowait()
        if config.nodes.secure_channel == "required":
            parts.revocation.close_clear_nodes()
        if auth.forced and not before.forced:
            _tell_forced(config, auth)
        if moved:
            self.on_listening()
        parts.announce_anew()

    def _apply_admission(self, config: GatewayConfig) -> None:
        """Whoever comes in from now on, and who of those that are here may stay on another's word."""
        parts = self._parts
        rules_before = parts.gatekeeper.rules
        parts.gatekeeper.configure(parts.gatekeeper_rules())
        rules_now = parts.gatekeeper.rules
        others = (rules_before.vouch, rules_before.peers) != (rules_now.vouch, rules_now.peers)
        parts.revocation.close_vouched_sessions("trusted-proxy", everybody=others)
        parts.revocation.close_kept_out()
        left_out = rules_before.tailnet and not rules_now.tailnet
        if left_out or rules_before.identity_scopes != rules_now.identity_scopes:
            parts.revocation.close_vouched_sessions("tailscale", everybody=True)
        parts.http.rules = rules.http_rules(config, served=parts.tailnet.origin)

    def _apply_limits(self, config: GatewayConfig) -> None:
        parts, websocket = self._parts, config.transports.websocket
        parts.core.limits = rules.limits(config)
        if parts.core.secure is not None:
            parts.core.secure.offered = config.nodes.secure_channel != "off"
        parts.core.registry.limit = websocket.concurrent_connections
        parts.core.registry.strangers.per_address = websocket.unauthenticated_per_address
        parts.server.websocket = websocket.enabled
        parts.heartbeat.configure(**rules.heartbeat_seconds(config))

    def note_start(self) -> None:
        """Tell what of the configuration that the gateway starts with is not in use as written."""
        config, auth, loaded = self._in_force.config, self._in_force.auth, self._in_force.loaded
        if loaded is not None:
            self.note_issues(loaded.issues, loaded.warnings)
        if auth.forced:
            _tell_forced(config, auth)

    def note_issues(self, issues: Iterable[ConfigIssue], warnings: Iterable[str]) -> None:
        """Tell what of the configuration is not in use as written, at the start as after a reload (CFG-1): the paths in
        `health` and ``/health``, everything in the log.
        """
        issues = tuple(issues)
        self._health.note_config(issue.path for issue in issues if issue.severity != "warning")
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
        for path in overridden_edits(change.old, change.new, self._in_force.overrides or {}):
            fix = "openclaw gateway stop, then start it without that flag"
            log.warning("changed in the file, but a flag of the command line overrides it", key=path, fix=fix)
        config = change.new.config
        try:
            auth = resolve_auth(config, config.state_dir, self._in_force.env, overridden=change.new.overridden)
            before = self._in_force.auth
            self.apply(config, auth, change.new)
        except (ConfigError, BindFailed) as exc:
            moved = _moved(self._in_force.config, config)
            self._health.note_config(moved if isinstance(exc, BindFailed) else [issue.path for issue in exc.issues])
            log.error("configuration cannot be applied; the running one stays", error=str(exc))
            return
        remember_good(change.new)
        record_configuration(self._parts.services.audit, change, before, auth)
        log.info("configuration applied", keys=change.changed, hash=change.new.hash[:12])

    async def serve_watch(self) -> None:
        """Take over what changes in openclaw.json; a file that cannot be used changes nothing and says why (CFG-1,
        CFG-3).
        """
        held = self._in_force
        assert held.loaded is not None
        async for change in watch_config(held.loaded, env=held.env, overrides=held.overrides):
            self.take_over(change)

    # --- a change that waits for its confirmation

    def on_probation(self) -> Probation | None:
        """Who minds a change that waits for its confirmation; None where no file is read. Loaded when first asked."""
        state = self._in_force.config.state_dir
        if self._probation is None and self._in_force.loaded is not None and state is not None:
            from openclaw_gateway.server.probation import Probation

            self._probation = Probation(
                state,
                env=self._in_force.env,
                audit=self._parts.services.audit,
                applied_hash=self._in_force.applied_hash,
                opened_at=self._opened_at,
                now_ms=now_ms,
            )
        return self._probation

    def _opened_at(self, conn_id: str) -> float | None:
        return next((session.opened_at for session in self._parts.core.registry if session.conn_id == conn_id), None)

    def _look_for_probation(self) -> None:
        state = self._in_force.config.state_dir
        if self._probation is None and (state is None or not pending_path(state).exists()):
            return
        found = self.on_probation()
        if found is not None:
            found.look()
            self._probation_wanted.set()

    async def serve_probation(self) -> None:
        self._look_for_probation()
        await self._probation_wanted.wait()
        found = self.on_probation()
        assert found is not None
        await found.serve()


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


def _secrets(auth: ResolvedAuth) -> tuple[str | None, ...]:
    return (auth.type, auth.token, auth.password, auth.password_hash)
