"""What letting somebody in leaves behind: pairing requests, paired devices, tokens handed out, keys registered.

Owns the durable consequences of a verdict, in their order. It must not decide who may come in (`policy.admission`), nor
know how a peer was measured.

Invariants: a pairing request is durable before the refusal that names it is sent (PAIR-1); a setup code is spent and
its device paired, or neither; what was revoked or narrowed while this waited admits nobody (AUTH-5).
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.apikeys import ApiKey, ApiKeys
from openclaw_gateway.pairing.devices import ApprovalRefused, DeviceBook
from openclaw_gateway.pairing.issued import Handout, IssuedTokens
from openclaw_gateway.pairing.records import BookEvent, PairedDevice
from openclaw_gateway.pairing.setupcodes import SetupCodes, SetupCodeSpent
from openclaw_gateway.policy.admission import AdmissionQuestion, Admitted, PairingNeeded, pairing_refusal
from openclaw_gateway.policy.explain import RecentVerdicts, Remembered
from openclaw_gateway.policy.verdicts import SetupRedemption
from openclaw_gateway.protocol.hello import DeviceTokenGrant, HandedToken
from openclaw_gateway.protocol.scopes import satisfies
from openclaw_gateway.server.asking import ask_of, issued_token, principal_of, statement_text
from openclaw_gateway.server.grants import Grant, Rejection
from openclaw_gateway.server.recording import (
    record_key,
    record_paired_silently,
    record_redeemed,
    record_refusal,
    record_request,
)

__all__ = ["Enrolment"]

log = get_logger("auth")


class Enrolment:
    """``publish`` tells those who may hear of pairing; ``verdicts`` remembers for `gateway.explain`."""

    def __init__(
        self,
        *,
        book: DeviceBook,
        issued: IssuedTokens,
        keys: ApiKeys,
        setup_codes: SetupCodes | None,
        publish: Callable[[BookEvent], None],
        audit: AuditTrail,
        verdicts: RecentVerdicts,
        now_ms: Callable[[], int],
    ) -> None:
        self._book = book
        self._issued = issued
        self._keys = keys
        self._setup_codes = setup_codes
        self._publish = publish
        self._audit = audit
        self._verdicts = verdicts
        self._now_ms = now_ms

    async def ask_for_pairing(self, needed: PairingNeeded, question: AdmissionQuestion, conn_id: str) -> Rejection:
        """Register what a device asks for; the refusal that names its request. Raises `StoreError`."""
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
            self._verdicts.put(conn_id, seen)
        record_refusal(self._audit, refusal, question, conn_id)
        return Rejection(error=refusal.error, close=refusal.close, http_status=refusal.http_status)

    async def let_in(self, verdict: Admitted, question: AdmissionQuestion, api_key: ApiKey | None) -> Grant:
        """Do what ``verdict`` says and make the grant. Cancelling before it returns admits nobody.

        Raises `SetupCodeSpent`, `ApprovalRefused`, `StoreError`, `DeviceBookUnreadable`.
        """
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
