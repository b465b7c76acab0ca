"""Methods by which people decide about devices: `device.pair.*` and `device.token.*` (spec wire.md sections 3, 6, 11).

Owns the parameters, the results and who a caller is to `pairing.decisions`, which has the rules. It must not know rows.
All of them need ``operator.pairing``.

V21, decided: a session that authenticated with nothing but a device's own token sees and handles that device alone,
whatever scopes it has, except ``operator.admin``, which sees all. Whoever holds the gateway's secret has proved more
than a device and sees all within its scopes.

AUTH-5: what a revocation ends, ends in the step in which the book learns of it (`DeviceBook.on_cut`). A session that
takes authority from its own device reads its answer first and is closed right behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import attrs

from openclaw_gateway.ops.audit import AuditTrail
from openclaw_gateway.ops.auditrows import Action
from openclaw_gateway.ops.health import now_ms
from openclaw_gateway.ops.log import get_logger
from openclaw_gateway.pairing.decisions import (
    ApprovalDenied,
    AskChanged,
    Decider,
    TokenChangeDenied,
    UnknownDevice,
    UnknownRequest,
)
from openclaw_gateway.pairing.devices import ApprovalRefused, DeviceBook, DeviceBookUnreadable
from openclaw_gateway.pairing.records import BookEvent, PairedDevice, paired_to_wire
from openclaw_gateway.protocol.close import CloseCode
from openclaw_gateway.protocol.errors import WireError, wire_error
from openclaw_gateway.protocol.scopes import ADMIN, PAIRING
from openclaw_gateway.rpc.audit import recorded
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable, NoParams
from openclaw_gateway.server.registry import SessionRegistry
from openclaw_gateway.store import StoreError
from openclaw_gateway.value import Value

__all__ = ["MAX_LABEL", "decider", "own_device_of", "refusals", "register"]

MAX_LABEL: Final = 64
_MAX_SCOPES: Final = 64
_DENIALS: Final = {
    "not-approved": "the device has no approved token in this role",
    "role-needs-admin": "tokens of this role need operator.admin",
    "beyond-approved": "more than was approved for the device",
    "beyond-caller": "more than the caller holds",
    "unknown-scope": "no such scope in this role",
}
_IMPOSSIBLE: Final = {
    "limit": "no more devices can be paired",
    "key": "another key is known under this device id",
}

log = get_logger("pairing")


@attrs.frozen(eq=False, repr=False)
class ApproveParams(Value):
    """``ask_hash``: the row's ``askHash`` as it was listed; what waits by then must be the same (PAIR-5)."""

    request_id: str
    ask_hash: str | None = None


@attrs.frozen(eq=False, repr=False)
class RequestParams(Value):
    request_id: str


@attrs.frozen(eq=False, repr=False)
class DeviceParams(Value):
    device_id: str


@attrs.frozen(eq=False, repr=False)
class RenameParams(Value):
    device_id: str
    label: str


@attrs.frozen(eq=False, repr=False)
class RotateParams(Value):
    device_id: str
    role: str
    scopes: list[str] | None = None


@attrs.frozen(eq=False, repr=False)
class RevokeParams(Value):
    device_id: str
    role: str


def own_device_of(context: CallContext) -> str | None:
    """The one device that this caller may see and handle; None where it may see all (V21)."""
    if context.auth_method != "device-token" or ADMIN in context.scopes:
        return None
    return context.device_id or ""


def decider(context: CallContext) -> Decider:
    """The caller as one who decides."""
    return Decider(name=f"operator:{context.principal}", scopes=context.scopes, own_device=own_device_of(context))


def register(
    table: MethodTable,
    *,
    book: DeviceBook,
    registry: SessionRegistry,
    publish: Callable[[BookEvent], None],
    audit: AuditTrail,
) -> None:
    """``publish`` sends an event of the book to whoever may hear it; ``audit`` has each decision on the disk before it
    is answered (AUDIT-1).
    """
    desk = _Desk(book, registry, publish, audit)
    table.method("device.pair.list", scope=PAIRING)(desk.list_devices)
    table.method("device.pair.approve", scope=PAIRING, params=ApproveParams)(desk.approve)
    table.method("device.pair.reject", scope=PAIRING, params=RequestParams)(desk.reject)
    table.method("device.pair.remove", scope=PAIRING, params=DeviceParams)(desk.remove)
    table.method("device.pair.rename", scope=PAIRING, params=RenameParams)(desk.rename)
    table.method("device.token.rotate", scope=PAIRING, params=RotateParams)(desk.rotate)
    table.method("device.token.revoke", scope=PAIRING, params=RevokeParams)(desk.revoke)


# --- inside


@attrs.frozen(eq=False)
class _Desk:
    """The handlers."""

    book: DeviceBook
    registry: SessionRegistry
    publish: Callable[[BookEvent], None]
    audit: AuditTrail

    def list_devices(self, context: CallContext, params: NoParams) -> dict[str, Any]:
        with refusals(context):
            listed = self.book.to_wire(only=own_device_of(context))
        here = {session.device_id for session in self.registry}
        for row in listed["paired"]:
            row["connected"] = row["deviceId"] in here
        return listed

    async def approve(self, context: CallContext, params: ApproveParams) -> dict[str, Any]:
        request_id = params.request_id.strip()
        with refusals(context):
            outcome = await self.book.approve(request_id, decider(context), now_ms(), ask_hash=params.ask_hash)
        device = outcome.device
        log.info(
            "pairing approved",
            device_id=device.device_id,
            role=device.role,
            conn_id=context.conn_id,
            request_id=request_id,
            scopes=device.scopes,
        )
        self._tell(outcome.events)
        await self._record(Action.PAIRING_APPROVED, context, device, request_id=request_id, scopes=device.scopes)
        records = self.book.records_of(device.device_id) or (device,)
        return {"requestId": request_id, "device": paired_to_wire(records)}

    async def reject(self, context: CallContext, params: RequestParams) -> dict[str, Any]:
        request_id = params.request_id.strip()
        with refusals(context):
            gone, events = await self.book.reject(request_id, decider(context), now_ms())
        log.info(
            "pairing rejected",
            conn_id=context.conn_id,
            request_id=request_id,
            device_id=gone.device_id,
            role=gone.role,
        )
        self._tell(events)
        await recorded(
            self.audit, Action.PAIRING_REJECTED, context, device=gone.device_id, role=gone.role, request_id=request_id
        )
        return {"requestId": request_id, "deviceId": gone.device_id}

    async def remove(self, context: CallContext, params: DeviceParams) -> dict[str, Any]:
        device_id = params.device_id.strip()
        spare = _spared(context, device_id)
        with refusals(context):
            decided = await self.book.remove(device_id, decider(context), now_ms(), spare=spare)
        log.info(
            "pairing removed", device_id=decided.device.device_id, role=decided.device.role, conn_id=context.conn_id
        )
        self._tell(decided.events)
        self._end_own(context, device_id, None)
        await self._record(Action.PAIRING_REMOVED, context, decided.device)
        return {"deviceId": device_id}

    async def rename(self, context: CallContext, params: RenameParams) -> dict[str, Any]:
        device_id, label = params.device_id.strip(), _label(params.label)
        with refusals(context):
            decided = await self.book.rename(device_id, label, decider(context))
        log.info(
            "pairing renamed", device_id=decided.device.device_id, role=decided.device.role, conn_id=context.conn_id
        )
        self._tell(decided.events)
        await self._record(Action.PAIRING_RENAMED, context, decided.device, label=label)
        return {"deviceId": device_id, "label": label}

    async def rotate(self, context: CallContext, params: RotateParams) -> dict[str, Any]:
        device_id, role = params.device_id.strip(), params.role.strip()
        scopes = None if params.scopes is None else tuple(params.scopes[:_MAX_SCOPES])
        by, spare = decider(context), _spared(context, device_id)
        with refusals(context, "rotation"):
            decided = await self.book.rotate(device_id, role, scopes, by, now_ms(), spare=spare)
        device = decided.device
        log.info(
            "pairing: token rotated",
            device_id=device.device_id,
            role=device.role,
            conn_id=context.conn_id,
            scopes=device.scopes,
        )
        self._tell(decided.events)
        self._end_own(context, device_id, role)
        await self._record(Action.TOKEN_ROTATED, context, device, scopes=device.scopes)
        return {
            "deviceId": device_id,
            "role": role,
            "scopes": list(device.scopes),
            "rotatedAtMs": device.token_issued_at_ms,
            **self._delivery(context, device),
        }

    async def revoke(self, context: CallContext, params: RevokeParams) -> dict[str, Any]:
        device_id, role = params.device_id.strip(), params.role.strip()
        by, spare = decider(context), _spared(context, device_id)
        with refusals(context, "revocation"):
            decided = await self.book.revoke(device_id, role, by, now_ms(), spare=spare)
        log.info(
            "pairing: token revoked",
            device_id=decided.device.device_id,
            role=decided.device.role,
            conn_id=context.conn_id,
        )
        self._tell(decided.events)
        self._end_own(context, device_id, role)
        await self._record(Action.TOKEN_REVOKED, context, decided.device)
        return {"deviceId": device_id, "role": role, "revokedAtMs": decided.device.revoked_at_ms}

    async def _record(self, action: Action, context: CallContext, device: PairedDevice, **more: Any) -> None:
        await recorded(self.audit, action, context, device=device.device_id, role=device.role, **more)

    def _tell(self, events: tuple[BookEvent, ...]) -> None:
        for event in events:
            self.publish(event)

    def _end_own(self, context: CallContext, device_id: str, role: str | None) -> None:
        for session in self.registry.of_device(device_id, role):
            if session.conn_id == context.conn_id:
                session.close_when_answered(CloseCode.DEVICE_REMOVED, "device removed")

    def _delivery(self, context: CallContext, device: PairedDevice) -> dict[str, Any]:
        """The new token goes to the device itself alone, where it came with its own token (V51)."""
        token = None
        if context.auth_method == "device-token" and context.device_id == device.device_id:
            token = self.book.tokens.issue(device)
        if token is None:
            return {"tokenDelivery": "withheld-cross-device"}
        return {"token": token, "tokenDelivery": "in-band"}


def _spared(context: CallContext, device_id: str) -> str | None:
    return context.conn_id if context.device_id == device_id else None


def _label(text: str) -> str:
    label = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * MAX_LABEL]).split())
    if not label or len(label) > MAX_LABEL:
        fault = f"at /label: must have 1 to {MAX_LABEL} printable characters"
        raise CallError(wire_error("invalid-params", method="device.pair.rename", fault=fault))
    return label


@contextmanager
def refusals(context: CallContext, action: str = "") -> Iterator[None]:
    """What the book raises, as errors of the wire; the log says who was refused what."""
    try:
        yield
    except (StoreError, DeviceBookUnreadable) as exc:
        raise CallError(wire_error("store-unavailable")) from exc
    except (UnknownRequest, AskChanged, ApprovalDenied, ApprovalRefused, UnknownDevice, TokenChangeDenied) as exc:
        log.warning("pairing: decision refused", conn_id=context.conn_id, error=str(exc))
        raise CallError(_refusal(exc, action)) from exc


def _refusal(exc: Exception, action: str) -> WireError:
    match exc:
        case UnknownRequest():
            return _unknown_request(exc)
        case AskChanged():
            return wire_error("ask-changed", details={"requestId": exc.request.request_id})
        case ApprovalDenied():
            details = {"requestId": exc.request.request_id, "missingScopes": list(exc.missing)}
            return wire_error("approval-denied", details=details, scopes=", ".join(exc.missing))
        case ApprovalRefused():
            return wire_error("approval-impossible", reason=_IMPOSSIBLE.get(exc.reason, exc.reason))
        case TokenChangeDenied():
            details = {"reason": exc.reason, "scopes": list(exc.scopes[:16])}
            return wire_error("token-change-denied", details=details, action=action, reason=_DENIALS[exc.reason])
        case _:
            return wire_error("unknown-device")


def _unknown_request(exc: UnknownRequest) -> WireError:
    known = exc.resolution
    if known is None:
        return wire_error("unknown-request", became="")
    details: dict[str, Any] = {"requestId": known.request_id, "decision": known.decision, "decidedAtMs": known.at_ms}
    if known.replaced_by is None:
        return wire_error("unknown-request", details=details, became=f": it was {known.decision} already")
    details |= {
        "replacedBy": known.replaced_by,
        "addedScopes": list(known.added_scopes),
        "remediationHint": f"openclaw devices approve {known.replaced_by}",
    }
    added = f", which also asks for {', '.join(known.added_scopes)}" if known.added_scopes else ""
    became = f": superseded by {known.replaced_by}{added}"
    return wire_error("unknown-request", details=details, became=became)
