"""What a connection leaves in the audit trail: which fields of a verdict, a request or a session go into which row.

Owns that choice and nothing else; the trail cleans, orders and writes. Invariant: what a peer wrote freely (the reason
of its Close frame, its names) does not go into a row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from openclaw_gateway.config.schema import GatewayConfig
from openclaw_gateway.config.secrets import ResolvedAuth
from openclaw_gateway.config.watch import ConfigChange
from openclaw_gateway.ops.audit import Action, AuditTrail
from openclaw_gateway.pairing.issued import Handout
from openclaw_gateway.pairing.outcomes import RequestOutcome
from openclaw_gateway.pairing.records import BookEvent, PairedDevice
from openclaw_gateway.pairing.setupcodes import RedeemedCode
from openclaw_gateway.policy.admission import AdmissionQuestion, Refused
from openclaw_gateway.policy.locality import Peer
from openclaw_gateway.protocol.errors import WireError
from openclaw_gateway.protocol.keystatement import KeyStatement, fingerprint

if TYPE_CHECKING:
    from openclaw_gateway.server.gatekeeper import Grant
    from openclaw_gateway.server.session import Session

__all__ = [
    "record_channel",
    "record_configuration",
    "record_expired",
    "record_http",
    "record_joined",
    "record_kept_out",
    "record_key",
    "record_left",
    "record_paired_silently",
    "record_redeemed",
    "record_refreshed",
    "record_refusal",
    "record_request",
    "record_start",
    "record_turned_away",
]

GATEWAY: Final = "gateway"
# Settings that decide who can reach the gateway, or who is let in without being asked about.
_EXPOSING: Final = (
    "gateway.bind",
    "gateway.customBindHost",
    "gateway.port",
    "gateway.auth.type",
    "gateway.auth.allowQueryToken",
    "gateway.controlUi.allowedOrigins",
    "gateway.pairing.autoApprove",
    "gateway.tailscale",
    "gateway.tls",
    "gateway.transports.http",
    "gateway.trustedProxies",
)


def _device(question: AdmissionQuestion) -> str | None:
    """The id of a device whose signature was found good; a claim is not worth a row."""
    verdict = question.device
    return verdict.device_id if verdict is not None and verdict.ok else None


def _claimant(device: str | None, role: str) -> str:
    return f"device:{device}:{role}" if device is not None else "unknown"


def record_refusal(audit: AuditTrail, verdict: Refused, question: AdmissionQuestion, conn_id: str) -> None:
    params, device = question.params, _device(question)
    details = verdict.error.details or {}
    audit.note(
        Action.CONNECT,
        outcome="refused",
        actor=_claimant(device, params.role),
        role=params.role,
        device=device,
        address=question.peer.client_address,
        client=params.client.id,
        conn_id=conn_id or None,
        request_id=details.get("requestId"),
        code=details.get("code", verdict.error.code),
        reason=verdict.trail[-1] if verdict.trail else None,
        trail=verdict.trail,
        transport=question.transport,
    )


def record_turned_away(audit: AuditTrail, error: WireError, peer: Peer, conn_id: str) -> None:
    """A connect that never got as far as a verdict: malformed, or one too many."""
    code = (error.details or {}).get("code", error.code)
    reason = error.key or error.code
    audit.note(
        Action.CONNECT, outcome="refused", actor="unknown", address=peer.client_address, conn_id=conn_id or None,
        code=code, reason=reason, transport="websocket",
    )  # fmt: skip


def record_kept_out(audit: AuditTrail, peer: Peer, reason: str) -> None:
    """Whoever a trusted proxy spoke for is kept out by the address lists: the row of a refused socket."""
    audit.note(
        Action.CONNECT, outcome="refused", actor="unknown", address=peer.way[-1], code="NETWORK_DENIED", reason=reason
    )


async def record_request(audit: AuditTrail, outcome: RequestOutcome, question: AdmissionQuestion, reason: str) -> None:
    """A pairing request that is new. Durable when this returns; raises `StoreUnavailable` as `AuditTrail.commit`."""
    if not outcome.created:
        return
    request = outcome.request
    actor = _claimant(request.device_id, request.role)
    if outcome.superseded is not None:
        audit.note(
            Action.PAIRING_SUPERSEDED, actor=actor, role=request.role, device=request.device_id,
            address=question.peer.client_address, request_id=outcome.superseded.request_id,
            superseded_by=request.request_id,
        )  # fmt: skip
    await audit.commit(
        Action.PAIRING_REQUESTED, actor=actor, role=request.role, device=request.device_id,
        address=question.peer.client_address, client=question.params.client.id, request_id=request.request_id,
        reason=reason, scopes=request.scopes, commands=request.commands or None,
    )  # fmt: skip


async def record_paired_silently(
    audit: AuditTrail, record: PairedDevice, question: AdmissionQuestion, trail: tuple[str, ...]
) -> None:
    """A device that was paired because a rule says so. As `record_request`."""
    await audit.commit(
        Action.PAIRING_APPROVED, actor=GATEWAY, role=record.role, device=record.device_id,
        address=question.peer.client_address, client=question.params.client.id,
        reason=trail[-1] if trail else None, trail=trail, scopes=record.scopes,
    )  # fmt: skip


async def record_redeemed(
    audit: AuditTrail, code: RedeemedCode, question: AdmissionQuestion, trail: tuple[str, ...]
) -> None:
    """A setup code that was used, and each role that its device was paired in by it. As `record_request`."""
    done = code.completion
    audit.note(
        Action.SETUP_CODE_REDEEMED, actor=_claimant(done.device_id, code.device.role), role=code.device.role,
        device=done.device_id, address=question.peer.client_address, client=question.params.client.id,
        key_id=done.setup_id, label=done.access,
    )  # fmt: skip
    for record in (code.device, code.handed):
        if record is not None:
            await record_paired_silently(audit, record, question, trail)


async def record_key(
    audit: AuditTrail, record: PairedDevice, question: AdmissionQuestion, statement: KeyStatement
) -> None:
    """The end-to-end key that a device paired earlier has now registered. As `record_request`."""
    await audit.commit(
        Action.KEY_REGISTERED, actor=_claimant(record.device_id, record.role), role=record.role,
        device=record.device_id, address=question.peer.client_address, client=question.params.client.id,
        fingerprint=fingerprint(statement.raw_key),
    )  # fmt: skip


def record_channel(audit: AuditTrail, session: Session, reason: str, code: int) -> None:
    """A secure channel that was refused or has broken: forged, replayed or cut messages, a key that does not fit."""
    grant = session.grant
    audit.note(
        Action.CHANNEL_REFUSED, outcome="refused", actor=grant.principal if grant is not None else "unknown",
        role=grant.role if grant is not None else None, device=session.device_id,
        address=session.peer.client_address, conn_id=session.conn_id if grant is not None else None,
        reason=reason, close_code=code,
    )  # fmt: skip


def record_http(audit: AuditTrail, grant: Grant, peer: Peer) -> None:
    audit.note(
        Action.CONNECT, actor=grant.principal, role=grant.role, address=peer.client_address,
        client=grant.params.client.id, auth=grant.method, transport="http",
    )  # fmt: skip


def record_joined(audit: AuditTrail, session: Session) -> None:
    grant = session.grant
    assert grant is not None
    audit.note(
        Action.CONNECT, actor=grant.principal, role=grant.role, device=grant.device_id,
        address=session.peer.client_address, client=grant.params.client.id, conn_id=session.conn_id,
        auth=grant.method, scopes=grant.scopes, transport="secure" if session.secure else "websocket",
    )  # fmt: skip


def record_left(audit: AuditTrail, session: Session) -> None:
    """The end of a session that was admitted; what was refused has its row already."""
    grant, cause = session.grant, session.scope.cause
    if grant is None:
        return
    code = int(cause.close.code) if cause is not None else None
    reason = cause.close.reason if cause is not None and not cause.by_peer else "closed by the peer"
    audit.note(
        Action.DISCONNECT, actor=grant.principal, role=grant.role, device=grant.device_id,
        address=session.peer.client_address, client=grant.params.client.id, conn_id=session.conn_id,
        reason=reason or None, close_code=code, duration_ms=round((time.monotonic() - session.opened_at) * 1000),
    )  # fmt: skip


def record_start(audit: AuditTrail, config: GatewayConfig, auth: ResolvedAuth, *, port: int, version: str) -> None:
    audit.note(
        Action.GATEWAY_STARTED, actor=GATEWAY, bind=config.bind, port=port or None, auth=auth.type,
        tailscale=config.tailscale.mode, pid=os.getpid(), version=version,
    )  # fmt: skip


def record_configuration(audit: AuditTrail, change: ConfigChange, before: ResolvedAuth, auth: ResolvedAuth) -> None:
    """A configuration that was taken over: which settings, and (apart) what it means for who can reach us."""
    if not change.changed:
        return
    old, new = change.old.config, change.new.config
    after = change.new.hash[:12]
    audit.note(Action.CONFIG_CHANGED, actor=GATEWAY, keys=change.changed, hash_after=after, source="file")
    keys = tuple(key for key in change.changed if any(_within(key, root) for root in _EXPOSING))
    if keys or before.type != auth.type:
        audit.note(
            Action.EXPOSURE_CHANGED, actor=GATEWAY, bind=new.bind, bind_before=old.bind, port=new.port,
            auth=auth.type, auth_before=before.type, tailscale=new.tailscale.mode, keys=keys,
        )  # fmt: skip


def _within(key: str, root: str) -> bool:
    return key == root or key.startswith(root + ".") or root.startswith(key + ".")


def record_expired(audit: AuditTrail, events: Sequence[BookEvent]) -> None:
    """Requests that nobody decided on in time."""
    for event in events:
        if event.payload.get("decision") == "expired":
            audit.note(
                Action.PAIRING_EXPIRED, actor=GATEWAY, device=event.payload.get("deviceId"),
                request_id=event.payload.get("requestId"),
            )  # fmt: skip


def record_refreshed(audit: AuditTrail, handout: Handout, address: str) -> None:
    """A device renewed its own token with its refresh token."""
    record = handout.record
    audit.note(
        Action.TOKEN_ROTATED,
        actor=f"device:{record.device_id}:{record.role}",
        device=record.device_id,
        role=record.role,
        address=address,
        scopes=record.scopes,
        expires_at=handout.expires_at_ms,
        reason="refreshed",
    )
