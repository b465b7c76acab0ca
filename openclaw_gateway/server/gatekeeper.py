"""Admission, carried out: measure, ask `policy.admission.admit`, do what the verdict says.

Owns the order of measuring (clock, signature, look-ups, secret comparison, failure ledger) and the consequences of a
verdict (durable pending request, silent pairing, counted failure and its delay). It must not decide: every "may this
peer in?" is the pure function's, and WebSocket and ``POST /rpc`` both come through here, so neither has weaker checks
(V41).

Invariants: a locked key is never compared; a pending request is durable before the refusal that names it is sent
(PAIR-1); trouble with the store refuses with a retryable error and admits nobody (V60); no credential is logged, kept
or returned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.devices import ApprovalRefused, DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.records import Ask, BookEvent, PairedDevice
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.policy.admission import (
    UNREADABLE,
    AdmissionQuestion,
    AdmissionRules,
    Admitted,
    DeviceTokenOutcome,
    PairingNeeded,
    Refused,
    admit,
    admit_http,
    device_token_candidates,
    pairing_refusal,
    presented_secret,
)
from openclaw_gateway.policy.locality import Peer, PeerRules, describe_peer, trusted_proxies_hint
from openclaw_gateway.policy.lockout import CredentialClass, FailureKey, FailureLedger, failure_key
from openclaw_gateway.policy.origin import OriginRules, OriginVerdict, check_origin
from openclaw_gateway.policy.secrets import SecretOutcome, check_secret, unmatched_outcome
from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.protocol.connect import (
    CONTROL_UI_ID,
    ConnectAuth,
    ConnectParams,
    bearer_params,
    decode_connect,
)
from openclaw_gateway.protocol.device import Challenge, DeviceVerdict, verify_device
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.server.passwords import PasswordChecker, TooManyChecks
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["Gatekeeper", "GatekeeperRules", "Grant", "IssuedToken", "Rejection", "TransportCredential"]

_HINTED_PEERS: Final = 256
_BUSY_SECONDS: Final = 1.0  # what a client waits that came while too many passwords were being checked

log = get_logger("auth")


@attrs.frozen(eq=False, repr=False)
class TransportCredential(Value):
    """A credential that came with the HTTP request: ``?token=`` (C11) or ``Authorization: Bearer``."""

    query_token: str | None = attrs.field(default=None, repr=False)
    bearer: str | None = attrs.field(default=None, repr=False)


@attrs.frozen(eq=False, repr=False)
class IssuedToken(Value):
    token: str = attrs.field(repr=False)
    issued_at_ms: int


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Grant(Value):
    """An admitted peer. ``principal`` names whoever authenticated; it is never a secret."""

    role: str
    scopes: tuple[str, ...]
    method: str
    protocol: int
    params: ConnectParams
    device_id: str | None
    principal: str
    device_token: IssuedToken | None = None


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Rejection(Value):
    """A refused peer. ``delay`` (seconds) is waited before the answer goes out."""

    error: WireError
    close: Close
    http_status: int = 401
    delay: float = 0.0


@attrs.frozen(kw_only=True, eq=False, repr=False)
class GatekeeperRules(Value):
    """Everything about admission that configuration decides; replaced as a whole on reload."""

    admission: AdmissionRules
    origins: OriginRules
    peers: PeerRules
    token: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    password_hash: str | None = attrs.field(default=None, repr=False)
    password_expires_at: float | None = None  # Unix seconds


class Gatekeeper:
    def __init__(
        self,
        rules: GatekeeperRules,
        *,
        book: DeviceBook,
        tokens: DeviceTokens,
        publish: Callable[[BookEvent], None],
        ledger: FailureLedger | None = None,
        now_ms: Callable[[], int],
    ) -> None:
        self.rules = rules
        self._book = book
        self._tokens = tokens
        self._publish = publish
        self.ledger = ledger if ledger is not None else FailureLedger()
        self._now_ms = now_ms
        self._passwords = _checker(rules)
        self._said: dict[tuple[str, str], None] = {}

    def configure(self, rules: GatekeeperRules) -> None:
        """Use other rules from now on; what a hash matched before is forgotten when the hash changes (V16)."""
        if rules.password_hash != self.rules.password_hash:
            self._passwords = _checker(rules)
        self.rules = rules

    def describe(self, address: str, headers: tuple[tuple[bytes, bytes], ...], *, tls: bool) -> Peer:
        """Where a request comes from. Says once per peer how to trust it as a proxy, where that would help
        (PROXY-1).
        """
        peer = describe_peer(address, headers, self.rules.peers, tls=tls)
        if peer.proxied_untrusted:
            hint = trusted_proxies_hint(peer, self.rules.peers)
            if hint is not None:
                self._say_once(peer, "proxied by an address that is not trusted", fix=hint)
        return peer

    def _say_once(self, peer: Peer, reason: str, *, fix: str | None = None) -> None:
        """One warning per peer and reason; the memory of what was said is bounded."""
        key = (peer.limiter_key, reason)
        if key in self._said:
            return
        if len(self._said) >= _HINTED_PEERS:
            del self._said[next(iter(self._said))]
        self._said[key] = None
        log.warning("auth", peer=peer.address, reason=reason, fix=fix)

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
    ) -> Grant | Rejection:
        """Decide on one ``connect``. Durable effects are done when this returns; cancelling before that admits
        nobody.
        """
        params = _read_params(raw, transport)
        if isinstance(params, str):
            error = wire_error("invalid-connect-params", fault=params)
            return Rejection(error=error, close=Close(CloseCode.POLICY, error.message), http_status=400)
        while True:
            rules = self.rules
            verdict = await self._decide(params, peer, credential, challenge, challenge_age)
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
    ) -> Grant | Rejection:
        question, key = await self._measure(params, peer, credential, challenge, challenge_age)
        verdict = admit(question)
        if isinstance(verdict, Refused):
            return self._refuse(verdict, peer, question)
        self._succeeded(key, question)
        try:
            if isinstance(verdict, PairingNeeded):
                return await self._ask_for_pairing(verdict, question)
            return await self._let_in(verdict, question)
        except (StoreError, DeviceBookUnreadable, ApprovalRefused) as exc:
            # ApprovalRefused: something was decided about this device meanwhile; the next try meets the new facts.
            log.error("auth: pairing state cannot be written", error=str(exc), peer=peer.client_address)
            error = wire_error("store-unavailable")
            return Rejection(error=error, close=Close(CloseCode.TRY_AGAIN_LATER, error.message), http_status=503)

    async def _measure(
        self,
        params: ConnectParams,
        peer: Peer,
        credential: TransportCredential,
        challenge: Challenge,
        challenge_age: float,
    ) -> tuple[AdmissionQuestion, FailureKey]:
        rules = self.rules
        origin = check_origin(peer, rules.origins, client_is_ui=params.client.id == CONTROL_UI_ID)
        device: DeviceVerdict | None = None
        if params.device is not None and origin.ok:
            device = verify_device(params.device, params, challenge, now_ms=self._now_ms(), challenge_age=challenge_age)
        pairing: Any = None
        approved_roles: tuple[str, ...] = ()
        revoked = False
        token_outcome = DeviceTokenOutcome.NONE
        if device is not None and device.ok and device.device_id is not None:
            try:
                records = {record.role: record for record in self._book.records_of(device.device_id)}
            except DeviceBookUnreadable:
                pairing = UNREADABLE
            else:
                record = records.get(params.role)
                approved_roles = tuple(role for role, known in records.items() if known.live)
                pairing = record if record is not None and record.live else None
                revoked = record is not None and not record.live
                token_outcome = self._device_token(params.auth, record)
        proven = device.device_id if device is not None and device.ok and isinstance(pairing, PairedDevice) else None
        key = failure_key(
            peer, params.role, CredentialClass.SHARED_SECRET, browser=origin.browser, proven_device=proven
        )
        if token_outcome is DeviceTokenOutcome.MATCH:
            # The device token decides; comparing it with the shared secret would cost a bcrypt check per reconnect.
            secret, via, locked = SecretOutcome.MISSING, None, 0.0
        else:
            secret, via, locked = await self._secret(params.auth, peer, credential, key, origin)
        question = AdmissionQuestion(
            params=params,
            peer=peer,
            rules=rules.admission,
            origin=origin,
            secret=secret,
            secret_via=via,
            locked_for=locked,
            device=device,
            device_token=token_outcome,
            pairing=pairing,
            approved_roles=approved_roles,
            revoked=revoked,
        )
        return question, key

    def _device_token(self, auth: ConnectAuth, record: PairedDevice | None) -> DeviceTokenOutcome:
        candidates = device_token_candidates(auth)
        if not candidates:
            return DeviceTokenOutcome.NONE
        if record is None:
            return DeviceTokenOutcome.MISMATCH
        if not record.live:
            return DeviceTokenOutcome.REVOKED
        if any(self._tokens.verify(record, candidate) for candidate in candidates):
            return DeviceTokenOutcome.MATCH
        return DeviceTokenOutcome.MISMATCH

    async def _secret(
        self,
        auth: ConnectAuth,
        peer: Peer,
        credential: TransportCredential,
        key: FailureKey,
        origin: OriginVerdict,
    ) -> tuple[SecretOutcome, Any, float]:
        rules = self.rules
        if not origin.ok or rules.admission.auth_type == "none":
            return SecretOutcome.MISSING, None, 0.0  # a foreign page's credentials are not even looked at (V1)
        presented = presented_secret(auth, rules.admission, peer, query_token=credential.query_token)
        value, via = presented.value, presented.via
        if via == "query" or presented.note is not None:
            self._say_once(peer, presented.note or "the token came in the URL; it may end up in the logs of proxies")
        if value is None and credential.bearer is not None:
            value, via = credential.bearer, "bearer"
        if value is None:
            return SecretOutcome.MISSING, None, 0.0
        locked = self.ledger.locked_for(key, now=monotonic())
        if locked > 0:
            return SecretOutcome.LOCKED, via, locked
        outcome = await self._compare(value)
        return outcome, via, _BUSY_SECONDS if outcome is SecretOutcome.LOCKED else 0.0

    async def _compare(self, value: str) -> SecretOutcome:
        rules = self.rules
        if rules.admission.auth_type != "password":
            return check_secret(value, rules.token)
        if self._passwords is not None:
            try:
                right = await self._passwords.matches(value)
            except TooManyChecks:
                return SecretOutcome.LOCKED
            outcome = SecretOutcome.MATCH if right else unmatched_outcome(value)
        else:
            outcome = check_secret(value, rules.password)
        expires = rules.password_expires_at
        if outcome is SecretOutcome.MATCH and expires is not None and time.time() >= expires:
            return SecretOutcome.EXPIRED
        return outcome

    # --- consequences

    def _refuse(self, verdict: Refused, peer: Peer, question: AdmissionQuestion) -> Rejection:
        delay = 0.0
        if verdict.counts is not None:
            proven = question.device.device_id if _is_proven(question) and question.device is not None else None
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
        return Rejection(error=verdict.error, close=verdict.close, http_status=verdict.http_status, delay=delay)

    def _succeeded(self, key: FailureKey, question: AdmissionQuestion) -> None:
        if question.secret is SecretOutcome.MATCH:
            self.ledger.succeeded(key)

    async def _ask_for_pairing(self, needed: PairingNeeded, question: AdmissionQuestion) -> Rejection:
        outcome = await self._book.request_pairing(_ask(question, needed.scopes), self._now_ms())
        for event in outcome.events:
            self._publish(event)
        log.info(
            "pairing required",
            request_id=outcome.request.request_id,
            device_id=needed.device_id,
            role=needed.role,
            scopes=needed.scopes,
            peer=question.peer.client_address,
            reason=needed.reason,
        )
        refusal = pairing_refusal(needed, outcome.request.request_id)
        return Rejection(error=refusal.error, close=refusal.close, http_status=refusal.http_status)

    async def _let_in(self, verdict: Admitted, question: AdmissionQuestion) -> Grant:
        params, now = question.params, self._now_ms()
        record: PairedDevice | None = question.pairing if isinstance(question.pairing, PairedDevice) else None
        if verdict.pair_silently:
            approved = await self._book.approve_silently(_ask(question, verdict.scopes), "local", now)
            record = approved.device
            for event in approved.events:
                self._publish(event)
            log.info(
                "pairing approved silently",
                device_id=record.device_id,
                role=record.role,
                scopes=verdict.scopes,
                peer=question.peer.client_address,
            )
        elif verdict.upgrade_scopes:
            wanted = (*verdict.scopes, *verdict.upgrade_scopes)
            outcome = await self._book.request_pairing(_ask(question, wanted), now)
            for event in outcome.events:
                self._publish(event)
        token = None
        if record is not None:
            self._book.touch(record.device_id, record.role, question.peer.client_address, now)
            issued = self._tokens.issue(record)
            if issued is not None:
                token = IssuedToken(issued, record.token_issued_at_ms)
        return Grant(
            role=verdict.role,
            scopes=verdict.scopes,
            method=verdict.method,
            protocol=verdict.protocol,
            params=params,
            device_id=verdict.device_id,
            principal=_principal(verdict),
            device_token=token,
        )

    # --- HTTP

    async def http(self, *, peer: Peer, bearer: str | None) -> Grant | Rejection:
        """Decide on one HTTP request by its headers alone; its body has not been read yet (V47)."""
        while True:
            rules = self.rules
            verdict = await self._decide_http(rules, peer, bearer)
            if isinstance(verdict, Rejection) or self.rules is rules:
                return verdict

    async def _decide_http(self, rules: GatekeeperRules, peer: Peer, bearer: str | None) -> Grant | Rejection:
        origin = OriginVerdict(ok=True, reason="checked by the HTTP rule", browser=peer.origin is not None)
        key = failure_key(peer, "operator", CredentialClass.SHARED_SECRET, browser=origin.browser)
        credential = TransportCredential(bearer=bearer)
        secret, _, locked = await self._secret(ConnectAuth(), peer, credential, key, origin)
        verdict = admit_http(peer=peer, rules=rules.admission, origin=origin, secret=secret, locked_for=locked)
        params = bearer_params(protocol=4, scopes=())
        if isinstance(verdict, Refused):
            question = AdmissionQuestion(
                params=params, peer=peer, rules=rules.admission, origin=origin, secret=secret, locked_for=locked
            )
            return self._refuse(verdict, peer, question)
        if secret is SecretOutcome.MATCH:
            self.ledger.succeeded(key)
        return Grant(
            role=verdict.role,
            scopes=verdict.scopes,
            method=verdict.method,
            protocol=verdict.protocol,
            params=params,
            device_id=None,
            principal=_principal(verdict),
        )


def _checker(rules: GatekeeperRules) -> PasswordChecker | None:
    return PasswordChecker(rules.password_hash) if rules.password_hash is not None else None


def _is_proven(question: AdmissionQuestion) -> bool:
    return question.device is not None and question.device.ok and isinstance(question.pairing, PairedDevice)


def _principal(verdict: Admitted) -> str:
    if verdict.device_id is not None:
        return f"device:{verdict.device_id}:{verdict.role}"
    return f"{verdict.method}:{verdict.role}"


def _ask(question: AdmissionQuestion, scopes: tuple[str, ...]) -> Ask:
    params, device = question.params, question.device
    assert device is not None
    assert device.device_id is not None
    assert device.public_key is not None
    client = params.client
    return Ask(
        device_id=device.device_id,
        public_key=device.public_key,
        role=params.role,
        scopes=scopes,
        client_id=client.id,
        client_mode=client.mode,
        display_name=client.display_name,
        platform=client.platform,
        device_family=client.device_family or "",
        version=client.version,
        source_ip=question.peer.client_address,
        caps=params.caps,
        commands=params.commands,
    )


class _ShortConnect(msgspec.Struct, forbid_unknown_fields=True):
    """JSON-RPC's own short form of ``connect``: a credential and the scopes asked for."""

    token: str | None = None
    password: str | None = None
    scopes: list[str] | None = None


def _read_params(raw: msgspec.Raw | ConnectParams, transport: str) -> ConnectParams | str:
    if isinstance(raw, ConnectParams):
        return raw
    if transport == "jsonrpc":
        try:
            short = msgspec.json.decode(raw or b"{}", type=_ShortConnect)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return decode_connect(raw)
        scopes = tuple((short.scopes or ["operator.read", "operator.write"])[:64])
        auth = ConnectAuth(token=short.token, password=short.password)
        return attrs.evolve(bearer_params(protocol=4, scopes=scopes), auth=auth)
    return decode_connect(raw)
