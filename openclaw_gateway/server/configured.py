"""The listeners that the configuration asks for, and the certificate they show.

Owns the way from a configuration to open listeners: plans (`server.plans`), TLS (`server.tls`, loaded when a listener
first wants it), and what of it cannot be had. It must not know what is served. Invariants: nothing changes where the
main listener cannot be opened as asked; a further listener that cannot is shut, which is trouble of its own; while no
certificate can be used, a listener that needs one stays shut and is opened when there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.ops.health import Health
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.policy.addresses import parse_networks
from openclaw_gateway.server.addresses import BindFailed
from openclaw_gateway.server.listener import Probed
from openclaw_gateway.server.listening import MAIN, Listener, ListenerPlan, Listening, Preface, TlsLayer
from openclaw_gateway.server.ownaddresses import own_lan_addresses
from openclaw_gateway.server.plans import client_auth_kinds, listener_plans, named_hosts

if TYPE_CHECKING:
    from openclaw_gateway.server.tls import ClientCertificates, TlsKeeper

__all__ = ["ConfiguredListeners"]

LOOK_SECONDS: Final = 1.0

log = get_logger("gateway")


class ConfiguredListeners:
    """``tailnet`` tells this host's own addresses there; ``clients`` is asked about client certificates."""

    def __init__(
        self,
        listening: Listening,
        health: Health,
        *,
        clients: ClientCertificates,
        tailnet: Callable[[], Iterable[str]],
    ) -> None:
        self.on_certificate: Callable[[], None] = lambda: None  # another certificate is shown from now on
        self._listening = listening
        self._health = health
        self._clients = clients
        self._tailnet = tailnet
        self._names: frozenset[str] = frozenset()
        self._asked: tuple[GatewayConfig, Mapping[str, ResolvedAuth]] | None = None
        self.tls: TlsKeeper | None = None

    @property
    def main(self) -> Listener | None:
        return self._listening.get(MAIN)

    @property
    def urls(self) -> list[str]:
        """``ws://`` or ``wss://`` addresses of the main listener."""
        return self.main.urls if self.main is not None else []

    @property
    def fingerprint(self) -> str | None:
        """Hex SHA-256 of the certificate that the main listener shows; None without TLS."""
        tls = self.main.plan.tls if self.main is not None else None
        return tls.fingerprint if tls is not None else None

    def probe_address(self) -> Probed | None:
        """Where the gateway looks whether it can be reached; None where it could not connect to itself."""
        main = self.main
        if main is None:
            return None
        host, port = main.addresses[0]
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        if main.plan.network.refusal(host) is not None or main.plan.preface is not None:
            return None  # whoever may not connect cannot look
        return Probed(host, port, tls=main.plan.tls is not None)

    def tls_view(self) -> dict[str, Any] | None:
        """How the certificate is doing, for ``status``; None: nothing is encrypted."""
        return self.tls.view() if self.tls is not None else None

    def apply(self, config: GatewayConfig, auths: Mapping[str, ResolvedAuth]) -> None:
        """Open, move and close listeners as ``config`` says; ``auths``: those that have an authentication of their own.

        Raises `BindFailed` where the main one cannot be opened; the listeners are then as before.
        """
        before = self.urls
        plans = listener_plans(config, auths=auths, tls=self._layers(config), preface=_proxy_preface)
        for plan in plans:
            if plan.name == MAIN:
                self._listening.replace(plan)
            else:
                self._open_further(plan)
        names = frozenset(plan.name for plan in plans)
        for gone in self._names - names:
            self._listening.cut(gone, "listener closed")
            self._health.parts.pop(f"listener:{gone}", None)
        self._names, self._asked = names, (config, auths)
        if before != self.urls:
            for address in self.main.shown if self.main is not None else ():
                log.info("listening", address=address, certificate=self.fingerprint)

    async def serve(self) -> None:
        """Take over renewed certificates, and say what becomes of the one in use as time goes by. Never returns."""
        while True:
            await trio.sleep(LOOK_SECONDS)
            if self.tls is None or not self.tls.look():
                continue
            if self._asked is not None and self._listening.serving:
                self.apply(*self._asked)  # where no certificate was usable, listeners waited for one
            self.on_certificate()

    def close(self) -> None:
        """Let go of the certificate; a generated one that nothing keeps is gone with it. Harmless when repeated."""
        if self.tls is not None:
            self.tls.close()
            self.tls = None

    def _open_further(self, plan: ListenerPlan) -> None:
        part = f"listener:{plan.name}"
        try:
            listener = self._listening.replace(plan)
        except BindFailed as exc:
            # As it was, it is not wanted any more: what was open to more people than now must not stay open.
            self._listening.cut(plan.name, "listener closed")
            self._health.set(part, f"{exc}; fix: openclaw config get gateway.listeners")
            log.error("listener cannot be opened", listener=plan.name, error=str(exc))
            return
        if self._health.parts.get(part, "") is not None:
            self._health.set(part, None)
            for address in listener.shown:
                log.info("listening", listener=plan.name, address=address)

    def _layers(self, config: GatewayConfig) -> Callable[[str], TlsLayer] | None:
        """TLS for each kind of client authentication; None: no listener wants it, or no certificate can be used."""
        kinds = client_auth_kinds(config)
        if not kinds:
            self.close()
            self._health.parts.pop("tls", None)
            return None
        from openclaw_gateway.server.certificates import server_names
        from openclaw_gateway.server.tls import TlsKeeper

        if self.tls is None:
            self.tls = TlsKeeper(tell=partial(self._health.set, "tls"), clients=self._clients)
        fixed = named_hosts(config)
        self.tls.configure(config, kinds, server_names((*fixed, *own_lan_addresses(), *self._tailnet())), fixed)
        return self.tls.layer if self.tls.ready else None


def _proxy_preface(config: GatewayConfig) -> Preface:
    from openclaw_gateway.server.proxyprotocol import proxy_preface

    networks, _ = parse_networks(config.trusted_proxies)
    return proxy_preface(networks)
