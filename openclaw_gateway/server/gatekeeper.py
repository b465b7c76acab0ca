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
from collections.abc import Awaitable, Callable, Collection, Mapping
from time import monotonic
from typing import Any, Final

import attrs
import msgspec

from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.apikeys import PREFIX as KEY_PREFIX
from openclaw_gateway.pairing.apikeys import ApiKey, ApiKeys
from openclaw_gateway.pairing.devices import ApprovalRefused, DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.issued import Handout, IssuedTokens, RefreshRefused
from openclaw_gateway.pairing.records import BookEvent, PairedDevice
from openclaw_gateway.pairing.setupcodes import SetupCodes, SetupCodeSpent
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.policy.addresses import is_loopback
from openclaw_gateway.policy.admission import (
    UNREADABLE,
    AdmissionQuestion,
    Admitted,
    ApiKeyOutcome,
    DeviceTokenOutcome,
    PairingNeeded,
    Refused,
    admit,
    admit_http,
    device_token_candidates,
    pairing_refusal,
    presented_secret,
)
from openclaw_gateway.policy.explain import RecentVerdicts, Remembered
from openclaw_gateway.policy.locality import Peer, describe_peer, is_trusted_proxy, trusted_proxies_hint
from openclaw_gateway.policy.lockout import CredentialClass, FailureKey, FailureLedger, failure_key
from openclaw_gateway.policy.network import DIRECT, Arrival
from openclaw_gateway.policy.origin import OriginVerdict, check_origin
from openclaw_gateway.policy.secrets import SecretOutcome, check_secret, unmatched_outcome
from openclaw_gateway.policy.setup import SetupStanding
from openclaw_gateway.policy.tailnet import TailnetClaim, read_claim, refused_claim
from openclaw_gateway.policy.verdicts import SetupRedemption, setup_code_refusal
from openclaw_gateway.policy.vouching import Vouched, Voucher, judge_vouching
from openclaw_gateway.protocol.close import Close, CloseCode
from openclaw_gateway.protocol.connect import (
    CONTROL_UI_ID,
    ConnectAuth,
    ConnectParams,
    bearer_params,
)
from openclaw_gateway.protocol.device import Challenge, DeviceVerdict, verify_device
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.hello import DeviceTokenGrant, HandedToken
from openclaw_gateway.protocol.keystatement import KeyStatement
from openclaw_gateway.protocol.scopes import satisfies
from openclaw_gateway.server.asking import (
    ask_of,
    is_proven,
    issued_token,
    principal_of,
    read_params,
    refresh_refusal,
    statement_text,
)
from openclaw_gateway.server.grants import (
    GatekeeperRules,
    Grant,
    IssuedToken,
    Presented,
    Rejection,
    TransportCredential,
)
from openclaw_gateway.server.ownaddresses import own_lan_addresses
from openclaw_gateway.server.passwords import PasswordChecker, TooManyChecks
from openclaw_gateway.server.recording import (
    record_http,
    record_kept_out,
    record_key,
    record_paired_silently,
    record_redeemed,
    record_refreshed,
    record_refusal,
    record_request,
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

_HINTED_PEERS: Final = 256
_BUSY_SECONDS: Final = 1.0  # what a client waits that came while too many passwords were being checked

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
        self.rules = rules
        self._book = book
        self._tokens = tokens
        self._issued = issued
        self._keys = keys
        self._setup_codes = setup_codes
        self._publish = publish
        self.ledger = ledger if ledger is not None else FailureLedger()
        self._now_ms = now_ms
        self._own_addresses = own_addresses
        self._epoch = 0
        self.tailnet: Callable[[TailnetClaim, Mapping[str, tuple[str, ...]]], Awaitable[Vouched]] = _nobody
        self._audit = audit if audit is not None else AuditTrail()
        self.verdicts = RecentVerdicts()  # for `gateway.explain`
        self._passwords = _checkers(rules, {})
        self._said: dict[tuple[str, str], None] = {}

    def configure(self, rules: GatekeeperRules) -> None:
        """Use other rules from now on; what a hash matched before is forgotten when the hash changes (V16)."""
        self._passwords = _checkers(rules, self._passwords)
        self.rules = rules
        self._epoch += 1
        self._issued.rules = self._keys.rules = rules.life

    def describe(
        self, address: str, headers: tuple[tuple[bytes, bytes], ...], arrival: Arrival = DIRECT
    ) -> Peer:
        """Where a request comes from. Says once per peer how to trust it as a proxy, where that would help
        (PROXY-1).
        """
        peer = describe_peer(address, headers, self.rules.peers, arrival=arrival)
        if peer.proxied_untrusted:
            hint = trusted_proxies_hint(peer, self.rules.peers)
            if hint is not None:
                self._say_once(peer, "proxied by an address that is not trusted", fix=hint)
        return self._vouched(peer, headers)

    def keeps_out(self, address: str, headers: tuple[tuple[bytes, bytes], ...], arrival: Arrival = DIRECT) -> bool:
        """Whether the address lists keep out whom a trusted proxy speaks for in this request, recorded.

        The socket's own address was asked about when it was accepted. By the lists of now: a proxy keeps its
        connections (V16).
        """
        network = self.rules.network_on(arrival)
        if network.open:
            return False
        peer = describe_peer(address, headers, self.rules.peers, arrival=arrival)
        reason = network.refusal_behind(peer.way)
        if reason is None:
            return False
        log.warning(
            "peer refused by network policy", peer=peer.way[-1], proxy=peer.address, listener=arrival.listener,
            reason=reason,
        )  # fmt: skip
        record_kept_out(self._audit, peer, reason)
        return True

    def outside(self, peer: Peer) -> bool:
        """Whether somebody who came in through trusted proxies would be kept out by the address lists of now."""
        return self.rules.network_on(peer.arrival).refusal_behind(peer.way) is not None

    def _vouched(self, peer: Peer, headers: tuple[tuple[bytes, bytes], ...]) -> Peer:
        """The same peer with what a trusted proxy says about the person behind it, where that is asked for."""
        rules = self.rules
        claim = read_claim(headers, peer.arrival.provenance) if rules.tailnet or peer.arrival.relayed else None
        if isinstance(claim, str):
            return attrs.evolve(peer, vouched=refused_claim(claim))
        if claim is not None:
            off = None if rules.tailnet else refused_claim("tailscale_off")
            return attrs.evolve(peer, tailnet=claim if rules.tailnet else None, vouched=off)
        # What the rules say now, not what the listener said when a kept-alive connection came in (V16).
        asked_for = rules.on(peer.arrival).admission.auth_type == "trusted-proxy"
        if rules.vouch is None or not asked_for:
            return peer
        trusted = is_trusted_proxy(peer.address, peer.arrival, rules.peers)
        # Only where it would matter: asking the system for its addresses costs some system calls.
        here = trusted and (is_loopback(peer.address) or peer.address in self._own_addresses())
        voucher = Voucher(trusted=trusted, here=here, attributed=peer.attributed)
        vouched = judge_vouching(voucher, headers, rules.vouch)
        return attrs.evolve(peer, vouched=attrs.evolve(vouched, epoch=self._epoch))

    def _as_now(self, peer: Peer) -> Peer:
        """The same peer, without a proxy's word that was judged by rules which have been replaced since (V16)."""
        vouched = peer.vouched
        if vouched is None or vouched.source != "trusted-proxy" or vouched.epoch == self._epoch:
            return peer
        return attrs.evolve(peer, vouched=attrs.evolve(vouched, user=None, scopes=(), reason="rules_changed"))

    async def _from_tailnet(self, peer: Peer, rules: GatekeeperRules) -> Peer:
        """The same peer with the person that tailscaled names, if its whois bears it out (TS-6). Only for who presented
        no credential: a wrong one is never outweighed by where somebody sits (V9, V59)."""
        claim = peer.tailnet
        if claim is None or not rules.tailnet:
            return peer
        return attrs.evolve(peer, vouched=await self.tailnet(claim, rules.identity_scopes))

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
            rules, peer = self.rules, self._as_now(peer)
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
        question, key, api_key = await self._measure(params, peer, credential, challenge, challenge_age, opened_by)
        verdict = admit(question)
        if conn_id:
            self.verdicts.put(conn_id, Remembered(verdict=verdict, peer=peer, client=params.client.id))
        if isinstance(verdict, Refused):
            return self._refuse(verdict, peer, question, conn_id)
        self._succeeded(key, question)
        try:
            if isinstance(verdict, PairingNeeded):
                return await self._ask_for_pairing(verdict, question, conn_id)
            return await self._let_in(verdict, question, api_key)
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

    async def _measure(
        self,
        params: ConnectParams,
        peer: Peer,
        credential: TransportCredential,
        challenge: Challenge,
        challenge_age: float,
        opened_by: KeyStatement | None,
    ) -> tuple[AdmissionQuestion, FailureKey, ApiKey | None]:
        rules = self.rules.on(peer.arrival)
        origin = check_origin(peer, rules.origins, client_is_ui=params.client.id == CONTROL_UI_ID)
        device: DeviceVerdict | None = None
        if params.device is not None and origin.ok:
            device = verify_device(params.device, params, challenge, now_ms=self._now_ms(), challenge_age=challenge_age)
        pairing: Any = None
        approved_roles: tuple[str, ...] = ()
        revoked = removed = known = False
        token_outcome = DeviceTokenOutcome.NONE
        setup: SetupStanding | None = None
        registered: str | None = None
        if device is not None and device.ok and device.device_id is not None:
            try:
                records = {record.role: record for record in self._book.records_of(device.device_id)}
            except DeviceBookUnreadable:
                pairing = UNREADABLE
            else:
                record = records.get(params.role)
                registered = next((other.secure_key for other in records.values()), None)
                approved_roles = tuple(role for role, other in records.items() if other.live)
                pairing = record if record is not None and record.live else None
                revoked = record is not None and not record.live
                removed = not records and self._book.was_removed(device.device_id)
                known = bool(records)
                token_outcome = self._device_token(params.auth, record)
                if params.auth.bootstrap_token and self._setup_codes is not None:
                    try:
                        setup = await self._setup_codes.find(params.auth.bootstrap_token)
                    except (DeviceBookUnreadable, StoreError):
                        pairing = UNREADABLE
        proven = device.device_id if device is not None and device.ok and isinstance(pairing, PairedDevice) else None
        key = failure_key(
            peer, params.role, CredentialClass.SHARED_SECRET, browser=origin.browser, proven_device=proven
        )
        if token_outcome is DeviceTokenOutcome.MATCH:
            # The device token decides; comparing it with the shared secret would cost a bcrypt check per reconnect.
            found = Presented()
        else:
            auth = params.auth
            if token_outcome is DeviceTokenOutcome.EXPIRED and isinstance(pairing, PairedDevice):
                # An expired token is not a wrong secret, wherever it was put.
                spent = auth.token is not None and self._tokens.verify(pairing, auth.token)
                auth = attrs.evolve(auth, token=None) if spent else auth
            found = await self._secret(auth, peer, params.role, credential, key, origin)
            other = params.auth.device_token or params.auth.bootstrap_token
            stale = token_outcome is DeviceTokenOutcome.EXPIRED
            if origin.ok and params.role == "operator" and found.nothing and (stale or not other):
                peer = await self._from_tailnet(peer, rules)
        question = AdmissionQuestion(
            params=params,
            peer=peer,
            rules=rules.admission,
            origin=origin,
            secret=found.secret,
            secret_via=found.via,
            locked_for=found.locked_for,
            device=device,
            device_token=token_outcome,
            api_key=found.api_key,
            api_key_scopes=found.scopes,
            pairing=pairing,
            approved_roles=approved_roles,
            revoked=revoked,
            removed=removed,
            known=known,
            setup=setup,
            opened_by=opened_by,
            registered_key=registered,
        )
        return question, key, found.key

    def _device_token(self, auth: ConnectAuth, record: PairedDevice | None) -> DeviceTokenOutcome:
        candidates = device_token_candidates(auth)
        if not candidates:
            return DeviceTokenOutcome.NONE
        if record is None:
            return DeviceTokenOutcome.MISMATCH
        if not record.live:
            return DeviceTokenOutcome.REVOKED
        if not any(self._tokens.verify(record, candidate) for candidate in candidates):
            return DeviceTokenOutcome.MISMATCH
        expired = self._issued.expired(record, self._now_ms())
        return DeviceTokenOutcome.EXPIRED if expired else DeviceTokenOutcome.MATCH

    async def _secret(
        self,
        auth: ConnectAuth,
        peer: Peer,
        role: str,
        credential: TransportCredential,
        key: FailureKey,
        origin: OriginVerdict,
    ) -> Presented:
        rules = self.rules.on(peer.arrival)
        if not origin.ok:
            return Presented()  # a foreign page's credentials are not even looked at (V1)
        presented = presented_secret(auth, rules.admission, peer, query_token=credential.query_token)
        value, via = presented.value, presented.via
        if via == "query" or presented.note is not None:
            self._say_once(peer, presented.note or "the token came in the URL; it may end up in the logs of proxies")
        if value is None and credential.bearer is not None:
            value, via = credential.bearer, "bearer"
        if value is None:
            return Presented()
        api_key, known = self._keys.check(value, self._now_ms())
        if api_key is ApiKeyOutcome.MATCH:
            # 256 random bits are not found by trying: who is locked out of guessing may still show a good key.
            return Presented(via=via, api_key=api_key, key=known)
        if rules.admission.auth_type == "none":
            return Presented()
        vouched = peer.vouched is not None and peer.vouched.ok and role == "operator"
        if api_key is not ApiKeyOutcome.NONE and api_key is not ApiKeyOutcome.MALFORMED and not self._like_a_key():
            tried = failure_key(peer, role, CredentialClass.API_KEY, browser=origin.browser)
            locked = self.ledger.locked_for(tried, now=monotonic())
            secret = SecretOutcome.LOCKED if locked > 0 else SecretOutcome.MISSING
            return Presented(secret=secret, via=via, locked_for=locked, api_key=api_key)
        if vouched:
            # The proxy decides here; a browser's forgotten token of former days is neither compared nor counted.
            return Presented()
        locked = self.ledger.locked_for(key, now=monotonic())
        if locked > 0:
            return Presented(secret=SecretOutcome.LOCKED, via=via, locked_for=locked, api_key=api_key)
        outcome = await self._compare(value, rules)
        busy = _BUSY_SECONDS if outcome is SecretOutcome.LOCKED else 0.0
        return Presented(secret=outcome, via=via, locked_for=busy, api_key=api_key)

    def _like_a_key(self) -> bool:
        """True where somebody chose a shared secret that looks like an API key: then both have to be tried."""
        return any(text is not None and text.startswith(KEY_PREFIX) for text in (self.rules.token, self.rules.password))

    async def _compare(self, value: str, rules: GatekeeperRules) -> SecretOutcome:
        if rules.admission.auth_type != "password":
            return check_secret(value, rules.token)
        checker = self._passwords.get(rules.password_hash) if rules.password_hash is not None else None
        if checker is not None:
            try:
                right = await checker.matches(value)
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

    async def _ask_for_pairing(self, needed: PairingNeeded, question: AdmissionQuestion, conn_id: str) -> Rejection:
        if needed.setup_id is not None and self._setup_codes is not None:
            await self._setup_codes.bind(needed.setup_id, needed.device_id)
        outcome = await self._book.request_pairing(ask_of(question, needed.scopes), self._now_ms())
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
        await record_request(self._audit, outcome, question, needed.reason)
        refusal = pairing_refusal(needed, outcome.request.request_id)
        if conn_id:
            seen = Remembered(
                verdict=needed, peer=question.peer, client=question.params.client.id,
                request_id=outcome.request.request_id,
            )  # fmt: skip
            self.verdicts.put(conn_id, seen)
        record_refusal(self._audit, refusal, question, conn_id)
        return Rejection(error=refusal.error, close=refusal.close, http_status=refusal.http_status)

    async def _let_in(self, verdict: Admitted, question: AdmissionQuestion, api_key: ApiKey | None) -> Grant:
        params, now = question.params, self._now_ms()
        record: PairedDevice | None = question.pairing if isinstance(question.pairing, PairedDevice) else None
        if verdict.pair_silently:
            approved = await self._book.approve_silently(ask_of(question, verdict.scopes), "local", now)
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
            if approved.events:  # nothing was decided anew where the record stood already
                await record_paired_silently(self._audit, record, question, verdict.trail)
        elif verdict.upgrade_scopes:
            wanted = (*verdict.scopes, *verdict.upgrade_scopes)
            outcome = await self._book.request_pairing(ask_of(question, wanted), now)
            for event in outcome.events:
                self._publish(event)
            await record_request(self._audit, outcome, question, "scope-upgrade")
        handed: tuple[HandedToken, ...] = ()
        if verdict.setup is not None:
            record, handed = await self._redeem(verdict, verdict.setup, question)
        if record is not None:
            record = await self._register_key(record, question)
        token = None
        if record is not None:
            handout: Handout | None = None
            if verdict.method != "api-key":  # what a key opened must not outlive the key (V26)
                by_itself = verdict.method == "device-token"
                handout = await self._issued.hand_out(record, now, afresh=not by_itself)
                record = handout.record
            record = self._still_approved(record, verdict)
            self._book.touch(record.device_id, record.role, question.peer.client_address, now)
            if verdict.method == "device-token":
                self._issued.settle(record, now)
            token = None if handout is None else issued_token(handout)
        if api_key is not None:
            self._keys.touch(api_key.key_id, question.peer.client_address, now)
        return Grant(
            role=verdict.role,
            scopes=verdict.scopes,
            method=verdict.method,
            protocol=verdict.protocol,
            params=params,
            device_id=verdict.device_id,
            principal=principal_of(verdict, api_key),
            device_token=token,
            api_key_id=api_key.key_id if api_key is not None else None,
            handed=handed,
            user=verdict.user,
        )

    async def _register_key(self, record: PairedDevice, question: AdmissionQuestion) -> PairedDevice:
        """The first key of a paired device: its own identity signed it, and that is what was approved (S095)."""
        statement = question.opened_by
        if statement is None:
            return record
        if record.key_statement is None:
            records = await self._book.register_key(record.device_id, statement_text(statement))
            record = next(other for other in records if other.role == record.role)
            await record_key(self._audit, record, question, statement)
        return record

    async def _redeem(
        self, verdict: Admitted, setup: SetupRedemption, question: AdmissionQuestion
    ) -> tuple[PairedDevice, tuple[HandedToken, ...]]:
        """Spend a setup code: its device is paired and the code is worthless when this returns, or neither."""
        if self._setup_codes is None:
            raise SetupCodeSpent(setup.setup_id)
        redeemed = await self._setup_codes.redeem(setup.setup_id, ask_of(question, verdict.scopes), setup.handed)
        for event in redeemed.events:
            self._publish(event)
        log.info(
            "pairing approved by a setup code",
            device_id=redeemed.device.device_id,
            role=redeemed.device.role,
            subject=setup.setup_id,
            peer=question.peer.client_address,
        )
        await record_redeemed(self._audit, redeemed, question, verdict.trail)
        if redeemed.handed is None:
            return redeemed.device, ()
        handout = await self._issued.hand_out(redeemed.handed, self._now_ms(), afresh=True)
        operator, issued = handout.record, issued_token(handout)
        if issued is None:
            return redeemed.device, ()
        token = HandedToken(role=operator.role, scopes=operator.scopes, grant=DeviceTokenGrant(**attrs.asdict(issued)))
        return redeemed.device, (token,)

    def _still_approved(self, record: PairedDevice, verdict: Admitted) -> PairedDevice:
        """The record as it is now. Comparing a password or writing a request takes time: what was revoked, rotated or
        narrowed meanwhile admits nobody (AUTH-5). From here to the live session nothing waits any more.
        """
        now = self._book.lookup(record.device_id, record.role)
        if now is None or now.token_generation != record.token_generation:
            raise ApprovalRefused(record.device_id, record.role, "revoked")
        held = frozenset(now.scopes) | frozenset(verdict.session_scopes)
        if not all(satisfies(held, scope) for scope in verdict.scopes):
            raise ApprovalRefused(record.device_id, record.role, "scope-upgrade")
        return now

    # --- HTTP

    async def http(self, *, peer: Peer, bearer: str | None) -> Grant | Rejection:
        """Decide on one HTTP request by its headers alone; its body has not been read yet (V47)."""
        while True:
            rules, peer = self.rules, self._as_now(peer)
            verdict = await self._decide_http(rules, peer, bearer)
            if isinstance(verdict, Rejection) or self.rules is rules:
                return verdict

    async def _decide_http(self, rules: GatekeeperRules, peer: Peer, bearer: str | None) -> Grant | Rejection:
        rules = rules.on(peer.arrival)
        origin = OriginVerdict(ok=True, reason="checked by the HTTP rule", browser=peer.origin is not None)
        key = failure_key(peer, "operator", CredentialClass.SHARED_SECRET, browser=origin.browser)
        credential = TransportCredential(bearer=bearer)
        found = await self._secret(ConnectAuth(), peer, "operator", credential, key, origin)
        if found.nothing:
            peer = await self._from_tailnet(peer, rules)
        measured: dict[str, Any] = {
            "peer": peer,
            "rules": rules.admission,
            "origin": origin,
            "secret": found.secret,
            "locked_for": found.locked_for,
            "api_key": found.api_key,
            "api_key_scopes": found.scopes,
        }
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


async def _nobody(claim: TailnetClaim, identity_scopes: Mapping[str, tuple[str, ...]]) -> Vouched:
    return refused_claim("tailscale_unavailable")


def _checkers(rules: GatekeeperRules, before: dict[str, PasswordChecker]) -> dict[str, PasswordChecker]:
    hashes = {some.password_hash for some in (rules, *rules.listeners.values()) if some.password_hash is not None}
    return {hashed: before.get(hashed) or PasswordChecker(hashed) for hashed in hashes}
