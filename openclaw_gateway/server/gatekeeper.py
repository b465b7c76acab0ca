"""Admission, carried out: measure, ask `policy.admission.admit`, do what the verdict says.

Owns the order of the three, and what follows from a refusal (counted failure and its delay). It must not decide: every
"may this peer in?" is the pure function's, and WebSocket and ``POST /rpc`` both come through here, so neither has
weaker checks (V41). Who a peer is (`peers`), what it presents (`credentials`, `measuring`) and what letting it in
leaves behind (`enrolment`) have modules of their own.

Invariants: a locked key is never compared; a pending request is durable before the refusal that names it is sent
(PAIR-1); trouble with the store refuses with a retryable error and admits nobody (V60); a grant by rules that were
replaced meanwhile opens nothing (V16); no credential is logged, kept or returned.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import monotonic

import msgspec

from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.apikeys import ApiKeys
from openclaw_gateway.pairing.devices import ApprovalRefused, DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.issued import Handout, IssuedTokens, RefreshRefused
from openclaw_gateway.pairing.records import BookEvent
from openclaw_gateway.pairing.setupcodes import SetupCodes, SetupCodeSpent
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.policy.admission import (
    AdmissionQuestion,
    PairingNeeded,
    Refused,
    admit,
    admit_http,
)
from openclaw_gateway.policy.explain import RecentVerdicts, Remembered
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.policy.lockout import CredentialClass, FailureKey, FailureLedger, failure_key
from openclaw_gateway.policy.network import DIRECT, Arrival
from openclaw_gateway.policy.secrets import SecretOutcome
from openclaw_gateway.policy.verdicts import setup_code_refusal
from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.protocol.connect import (
    ConnectParams,
    bearer_params,
)
from openclaw_gateway.protocol.device import Challenge
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.keystatement import KeyStatement
from openclaw_gateway.server.asking import (
    is_proven,
    principal_of,
    read_params,
    refresh_refusal,
)
from openclaw_gateway.server.credentials import Credentials
from openclaw_gateway.server.enrolment import Enrolment
from openclaw_gateway.server.grants import (
    GatekeeperRules,
    Grant,
    IssuedToken,
    Rejection,
    TransportCredential,
)
from openclaw_gateway.server.measuring import Measuring
from openclaw_gateway.server.ownaddresses import own_lan_addresses
from openclaw_gateway.server.peers import Peers
from openclaw_gateway.server.recording import (
    record_http,
    record_kept_out,
    record_refreshed,
    record_refusal,
    record_turned_away,
)
from openclaw_gateway.store import StoreError

__all__ = [
    "Gatekeeper",
    "GatekeeperRules",
    "Grant",
    "IssuedToken",
    "Rejection",
    "TransportCredential",
    "refresh_refusal",
]

log = get_logger("auth")


class Gatekeeper:
    def __init__(
        self,
        rules: GatekeeperRules,
        *,
        book: DeviceBook,
        tokens: DeviceTokens,
        issued: IssuedTokens,
        keys: ApiKeys,
        publish: Callable[[BookEvent], None],
        ledger: FailureLedger | None = None,
        setup_codes: SetupCodes | None = None,
        audit: AuditTrail | None = None,
        own_addresses: Callable[[], Collection[str]] = own_lan_addresses,
        now_ms: Callable[[], int],
    ) -> None:
        audit = audit if audit is not None else AuditTrail()
        ledger = ledger if ledger is not None else FailureLedger()
        self.rules = rules
        self.verdicts = RecentVerdicts()  # for `gateway.explain`
        self.peers = Peers(rules, own_addresses)
        self.credentials = Credentials(
            rules, tokens=tokens, issued=issued, keys=keys, ledger=ledger, say_once=self.peers.say_once, now_ms=now_ms
        )
        self._measuring = Measuring(self.peers, self.credentials, book=book, setup_codes=setup_codes, now_ms=now_ms)
        self._enrolment = Enrolment(
            book=book,
            issued=issued,
            keys=keys,
            setup_codes=setup_codes,
            publish=publish,
            audit=audit,
            verdicts=self.verdicts,
            now_ms=now_ms,
        )
        self._book = book
        self._issued = issued
        self._keys = keys
        self._audit = audit
        self._now_ms = now_ms

    def configure(self, rules: GatekeeperRules) -> None:
        """Use other rules from now on (V16)."""
        self.credentials.configure(rules)
        self.peers.configure(rules)
        self.rules = rules
        self._issued.rules = self._keys.rules = rules.life

    @property
    def ledger(self) -> FailureLedger:
        """Who failed, and for how long it is locked out."""
        return self.credentials.ledger

    @ledger.setter
    def ledger(self, ledger: FailureLedger) -> None:
        self.credentials.ledger = ledger

    def keeps_out(self, address: str, headers: tuple[tuple[bytes, bytes], ...], arrival: Arrival = DIRECT) -> bool:
        """Whether the address lists keep out whom a trusted proxy speaks for in this request, recorded.

        The socket's own address was asked about when it was accepted.
        """
        refused = self.peers.kept_out(address, headers, arrival)
        if refused is None:
            return False
        record_kept_out(self._audit, *refused)
        return True

    def outside(self, peer: Peer) -> bool:
        """Whether somebody who came in through trusted proxies would be kept out by the address lists of now."""
        return self.peers.outside(peer) is not None

    def describe(self, address: str, headers: tuple[tuple[bytes, bytes], ...], arrival: Arrival = DIRECT) -> Peer:
        """Where a request comes from: see `Peers.describe`."""
        return self.peers.describe(address, headers, arrival)

    # --- WebSocket

    async def connect(
        self,
        raw: msgspec.Raw | ConnectParams,
        *,
        peer: Peer,
        credential: TransportCredential,
        challenge: Challenge,
        challenge_age: float,
        transport: str,
        conn_id: str = "",
        opened_by: KeyStatement | None = None,
    ) -> Grant | Rejection:
        """Decide on one ``connect``. Durable effects are done when this returns; cancelling before that admits
        nobody. ``opened_by``: who opened the secure channel that it came through.
        """
        params = read_params(raw, transport)
        if isinstance(params, str):
            error = wire_error("invalid-connect-params", fault=params)
            record_turned_away(self._audit, error, peer, conn_id)
            return Rejection(error=error, close=Close(CloseCode.POLICY, error.message), http_status=400)
        while True:
            rules, peer = self.rules, self.peers.as_now(peer)
            verdict = await self._decide(params, peer, credential, challenge, challenge_age, conn_id, opened_by)
            # A grant by rules that were replaced while it was being decided opens nothing (V16).
            if isinstance(verdict, Rejection) or self.rules is rules:
                return verdict

    async def _decide(
        self,
        params: ConnectParams,
        peer: Peer,
        credential: TransportCredential,
        challenge: Challenge,
        challenge_age: float,
        conn_id: str,
        opened_by: KeyStatement | None,
    ) -> Grant | Rejection:
        listener = self.rules.on(peer.arrival)
        question, key, api_key = await self._measuring.connect(
            listener, params, peer, credential, challenge, challenge_age, opened_by
        )
        verdict = admit(question)
        if conn_id:
            self.verdicts.put(conn_id, Remembered(verdict=verdict, peer=peer, client=params.client.id))
        if isinstance(verdict, Refused):
            return self._refuse(verdict, peer, question, conn_id)
        self._succeeded(key, question)
        try:
            if isinstance(verdict, PairingNeeded):
                return await self._enrolment.ask_for_pairing(verdict, question, conn_id)
            return await self._enrolment.let_in(verdict, question, api_key)
        except SetupCodeSpent:
            return self._refuse(setup_code_refusal(verdict.trail), peer, question)
        except ApprovalRefused as exc:
            # Something was decided about this device meanwhile; the next try meets the new facts.
            log.info("pairing changed while a device connected", reason=exc.reason, device_id=exc.device_id)
            error = wire_error("pairing-changed")
            return Rejection(error=error, close=Close(CloseCode.TRY_AGAIN_LATER, error.message), http_status=503)
        except (StoreError, DeviceBookUnreadable) as exc:
            log.error("auth: pairing state cannot be written", error=str(exc), peer=peer.client_address)
            error = wire_error("store-unavailable")
            return Rejection(error=error, close=Close(CloseCode.TRY_AGAIN_LATER, error.message), http_status=503)

    # --- consequences

    def _refuse(self, verdict: Refused, peer: Peer, question: AdmissionQuestion, conn_id: str = "") -> Rejection:
        delay = 0.0
        if verdict.counts is not None:
            proven = question.device.device_id if is_proven(question) and question.device is not None else None
            key = failure_key(
                peer,
                question.params.role,
                verdict.counts,
                browser=question.origin.browser,
                proven_device=proven,
            )
            delay = self.ledger.failed(key, now=monotonic()).delay
        details = verdict.error.details or {}
        log.warning(
            "auth refused",
            peer=peer.client_address,
            role=question.params.role,
            client=question.params.client.id,
            detail=details.get("code"),
            reason=verdict.trail[-1] if verdict.trail else None,
            trail=verdict.trail,
            delay_ms=round(delay * 1000) or None,
            origin=peer.origin,
        )
        record_refusal(self._audit, verdict, question, conn_id)
        return Rejection(error=verdict.error, close=verdict.close, http_status=verdict.http_status, delay=delay)

    def _succeeded(self, key: FailureKey, question: AdmissionQuestion) -> None:
        if question.secret is SecretOutcome.MATCH:
            self.ledger.succeeded(key)

    # --- HTTP

    async def http(self, *, peer: Peer, bearer: str | None) -> Grant | Rejection:
        """Decide on one HTTP request by its headers alone; its body has not been read yet (V47)."""
        while True:
            rules, peer = self.rules, self.peers.as_now(peer)
            verdict = await self._decide_http(rules, peer, bearer)
            if isinstance(verdict, Rejection) or self.rules is rules:
                return verdict

    async def _decide_http(self, rules: GatekeeperRules, peer: Peer, bearer: str | None) -> Grant | Rejection:
        measured, key, found = await self._measuring.http(rules.on(peer.arrival), peer, bearer)
        peer = measured["peer"]  # with whom the tailnet vouched for
        verdict = admit_http(**measured)
        params = bearer_params(protocol=4, scopes=())
        if isinstance(verdict, Refused):
            return self._refuse(verdict, peer, AdmissionQuestion(params=params, **measured))
        if found.secret is SecretOutcome.MATCH:
            self.ledger.succeeded(key)
        if found.key is not None:
            self._keys.touch(found.key.key_id, peer.client_address, self._now_ms())
        grant = Grant(
            role=verdict.role,
            scopes=verdict.scopes,
            method=verdict.method,
            protocol=verdict.protocol,
            params=params,
            device_id=None,
            principal=principal_of(verdict, found.key),
            api_key_id=found.key.key_id if found.key is not None else None,
            user=verdict.user,
        )
        record_http(self._audit, grant, peer)
        return grant

    # --- what was issued

    def lapsed(self, grant: Grant) -> str | None:
        """Why whoever holds ``grant`` may stay no longer: the API key or device token it came in with has ended. None
        while all is well, and where nothing can be known."""
        if grant.api_key_id is not None:
            return None if self._keys.live(grant.api_key_id, self._now_ms()) else "api key revoked or expired"
        if grant.method != "device-token" or grant.device_id is None:
            return None
        try:
            record = self._book.lookup(grant.device_id, grant.role)
        except DeviceBookUnreadable:
            return None
        if record is None:
            return "device removed"
        return "device token expired" if self._issued.expired(record, self._now_ms()) else None

    async def refresh(self, presented: str, *, peer: Peer) -> Handout | Rejection:
        """``POST /auth/refresh``: the refresh token is the credential, and it is counted like one."""
        try:
            handout = await self._issued.refresh(presented, self._now_ms())
        except RefreshRefused as refused:
            delay = 0.0
            if refused.guess:
                key = failure_key(peer, "operator", CredentialClass.DEVICE_TOKEN, browser=peer.origin is not None)
                delay = self.ledger.failed(key, now=monotonic()).delay
            error = refresh_refusal(refused)
            details = error.details or {}
            log.warning("auth refresh refused", peer=peer.client_address, reason=refused.reason, detail=details["code"])
            status = 403 if refused.reason == "disabled" else 401
            return Rejection(error=error, close=Close(CloseCode.POLICY), http_status=status, delay=delay)
        except (StoreError, DeviceBookUnreadable) as exc:
            log.error("auth: a token cannot be refreshed", error=str(exc), peer=peer.client_address)
            close = Close(CloseCode.TRY_AGAIN_LATER)
            return Rejection(error=wire_error("store-unavailable"), close=close, http_status=503)
        record_refreshed(self._audit, handout, peer.client_address)
        return handout
