"""Ending the connections of whoever lost what let him in.

Owns which connections end for which loss: a device or role taken away, an API key or certificate revoked, a spent
refresh token that came back, a credential that lapsed, a secret or rule replaced, a listener moved. It must not know
how a loss is decided, nor how a connection ends (`server.session`).

Invariants: authority that was taken back is cut at once, pending answers included (AUTH-5); a change of configuration
closes politely, with a code that says whether to come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from openclaw_gateway.nodes.hub import NodeHub
from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.clientcerts import IssuedCertificates
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.server.connection import ConnectionServer
from openclaw_gateway.server.gatekeeper import Gatekeeper
from openclaw_gateway.server.registry import SessionRegistry
from openclaw_gateway.server.wire import Wire

__all__ = ["Revocation"]

LAPSE_SECONDS: Final = 0.5
_SHARED: Final = frozenset({"token", "password", "none"})  # ways in that a new shared secret closes

log = get_logger("gateway")


class Revocation:
    def __init__(
        self,
        registry: SessionRegistry,
        server: ConnectionServer,
        gatekeeper: Gatekeeper,
        *,
        nodes: NodeHub,
        certificates: IssuedCertificates,
        audit: AuditTrail,
    ) -> None:
        self._registry = registry
        self._server = server
        self._gatekeeper = gatekeeper
        self._nodes = nodes
        self._certificates = certificates
        self._audit = audit

    # --- authority was taken back

    def device_cut(self, device_id: str, role: str | None, spare: str | None) -> None:
        """A device lost a role, or (None) all of them and its place here."""
        self._registry.cut_device(device_id, role, spare)
        if role is None:
            self._nodes.forget(device_id)
            self._certificates.forget(device_id, spare)
        elif not self._certificates.counts(device_id):
            self.certificates_ended(device_id, "device revoked", spare)

    def api_key_revoked(self, key_id: str) -> None:
        for session in self._registry:
            if session.grant is not None and session.grant.api_key_id == key_id:
                session.cut(CloseCode.DEVICE_REMOVED, "api key revoked or expired")

    def refresh_token_reused(self, device_id: str, role: str) -> None:
        log.warning("auth: a spent refresh token came back; its family is revoked", device_id=device_id, role=role)
        self._audit.note(
            Action.TOKEN_REVOKED, actor="gateway", device=device_id, role=role, reason="a spent refresh token came back"
        )
        for session in self._registry.of_device(device_id, role):
            session.cut(CloseCode.DEVICE_REMOVED, "refresh token reused")

    def certificates_ended(self, device_id: str, reason: str, spare: str | None = None) -> None:
        """Whoever opened TLS with a certificate of that device is cut, whatever it authenticated with inside.
        ``spare``: the id of the connection that asked for it, which ends behind its answer.
        """
        for session in self._registry.live:
            if session.peer.arrival.certificate == device_id and session.conn_id != spare:
                session.cut(CloseCode.DEVICE_REMOVED, reason)
        self._server.abort_http(lambda wire: wire.arrival.certificate == device_id)

    async def end_lapsed_sessions(self) -> None:
        """Nobody stays longer than the credential lives that he came in with (S147). Never returns."""
        while True:
            await trio.sleep(LAPSE_SECONDS)
            for session in self._registry:
                reason = self._gatekeeper.lapsed(session.grant) if session.grant is not None else None
                if reason is not None:
                    session.cut(CloseCode.DEVICE_REMOVED, reason)

    # --- other rules hold

    def close_shared_secret_sessions(self) -> None:
        for session in self._registry:
            if session.grant is not None and session.grant.method in _SHARED:
                session.scope.close(CloseCode.POLICY, "gateway credentials changed")

    def close_vouched_sessions(self, method: str, *, everybody: bool) -> None:
        """Whoever is here on a proxy's or the tailnet's word comes in again under the rules that hold now: everybody,
        or those on whose listener that word counts no more.
        """
        for session in self._registry:
            if session.grant is not None and session.grant.method == method:
                asked = self._gatekeeper.rules.on(session.peer.arrival).admission.auth_type
                if everybody or asked != method:
                    session.scope.close(CloseCode.SERVICE_RESTART, "identity rules changed")

    def close_kept_out(self) -> None:
        """Whoever came in through a trusted proxy and is kept out by the address lists of now goes, as a socket's peer
        does (`Listening`).
        """
        for session in self._registry.live:
            if self._gatekeeper.outside(session.peer):
                session.scope.close(CloseCode.SERVICE_RESTART, "refused by network policy")

    def close_clear_nodes(self) -> None:
        """Nodes that came in without an end-to-end channel, which is required now (S096)."""
        for session in self._registry:
            if session.role == "node" and not session.secure:
                session.scope.close(CloseCode.POLICY, "secure channel required")

    def end_connections(self, ends: Callable[[Wire], bool], reason: str) -> None:
        """Those whose listener was closed or moved."""
        for session in self._registry.live:
            if ends(session.wire):
                session.scope.close(CloseCode.SERVICE_RESTART, reason)
        self._server.abort_http(ends)
