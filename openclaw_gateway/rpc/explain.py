"""`gateway.explain`: why a connection was let in or turned away, or what would become of one that might come.

Owns the parameters and the look-ups; the reading of a verdict is `policy.explain`'s, the decision itself the same
`policy.admission.admit` that real peers meet. For administrators only: the answer names devices, addresses and rules.
Asking changes nothing: no failure is counted, nothing is registered, no secret is compared.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

import attrs

from openclaw_gateway.pairing.devices import DeviceBook, DeviceBookUnreadable
from openclaw_gateway.policy.admission import UNREADABLE
from openclaw_gateway.policy.explain import (
    NEW_DEVICE,
    Presented,
    Supposition,
    explain_kept_out,
    explain_supposition,
    suppose,
)
from openclaw_gateway.policy.lockout import CredentialClass, failure_key
from openclaw_gateway.protocol.connect import CLIENT_IDS
from openclaw_gateway.protocol.errors import wire_error
from openclaw_gateway.protocol.scopes import ROLES
from openclaw_gateway.rpc.table import CallContext, CallError, MethodTable
from openclaw_gateway.server.gatekeeper import Gatekeeper
from openclaw_gateway.value import Value

__all__ = ["register"]

MAX_TEXT: Final = 512
MAX_SCOPES: Final = 64


@attrs.frozen(eq=False, repr=False)
class ExplainParams(Value):
    conn_id: str | None = None
    ip: str | None = None
    role: str = "operator"
    scopes: tuple[str, ...] = ("operator.read",)
    client_id: str = "cli"
    device: str | None = None
    host: str | None = None
    origin: str | None = None
    forwarded: str | None = None
    auth: Presented | None = None


def register(table: MethodTable, *, gatekeeper: Gatekeeper, book: DeviceBook) -> None:
    def explain(context: CallContext, params: ExplainParams) -> dict[str, Any]:
        if (params.conn_id is None) == (params.ip is None):
            raise _invalid("at root: must have either connId or ip")
        if params.conn_id is not None:
            seen = gatekeeper.verdicts.get(params.conn_id)
            if seen is None:
                raise CallError(wire_error("unknown-connection", conn=params.conn_id[:80]))
            return seen.explain().to_wire()
        return _suppose(gatekeeper, book, params)

    table.method("gateway.explain", scope="operator.admin", params=ExplainParams)(explain)


def _suppose(gatekeeper: Gatekeeper, book: DeviceBook, params: ExplainParams) -> dict[str, Any]:
    _check(params)
    rules = gatekeeper.rules
    device, records, request_id, removed = _look_up(book, params)
    supposed = Supposition(
        ip=params.ip or "",
        role=params.role,
        scopes=params.scopes,
        client_id=params.client_id,
        device=device,
        host=params.host,
        origin=params.origin,
        forwarded=params.forwarded,
        presents=params.auth,
    )
    question = suppose(
        supposed, rules=rules.admission, peers=rules.peers, origins=rules.origins, records=records, removed=removed
    )
    kept_out = explain_kept_out(question.peer, rules.network)
    if kept_out is not None:
        return kept_out.to_wire()
    proven = device if question.pairing not in {None, UNREADABLE} else None
    key = failure_key(
        question.peer, params.role, CredentialClass.SHARED_SECRET, browser=question.origin.browser, proven_device=proven
    )
    locked = gatekeeper.ledger.locked_for(key, now=monotonic())
    if locked > 0:
        question = suppose(
            supposed, rules=rules.admission, peers=rules.peers, origins=rules.origins, records=records,
            removed=removed, locked_for=locked,
        )  # fmt: skip
    return explain_supposition(question, request_id).to_wire()


def _check(params: ExplainParams) -> None:
    for name in ("ip", "device", "host", "origin", "forwarded"):
        value = getattr(params, name)
        if value is not None and not (value.isprintable() and 0 < len(value) <= MAX_TEXT):
            raise _invalid(f"at /{name}: must be printable, at most {MAX_TEXT} characters")
    if params.role not in ROLES:
        raise _invalid("at /role: must be operator or node")
    if params.client_id not in CLIENT_IDS:
        raise _invalid("at /clientId: must be equal to one of the allowed values")
    if len(params.scopes) > MAX_SCOPES:
        raise _invalid(f"at /scopes: must NOT have more than {MAX_SCOPES} items")
    if params.auth == "device" and params.device is None:
        raise _invalid("at /auth: device needs /device")


def _look_up(book: DeviceBook, params: ExplainParams) -> tuple[str | None, Any, str | None, bool]:
    """The device (full id or unique prefix; what is not known is taken for a new one), its records, its waiting
    request, and whether a person removed it."""
    if params.device is None:
        return None, (), None, False
    try:
        ids = {record.device_id for record in book.paired()} | {request.device_id for request in book.pending()}
        matches = [known for known in ids if known.startswith(params.device)]
        if len(matches) > 1:
            raise _invalid("at /device: more than one device begins with this")
        device = matches[0] if matches else NEW_DEVICE if params.device == "new" else params.device
        waiting = next((r for r in book.pending() if (r.device_id, r.role) == (device, params.role)), None)
        request_id = waiting.request_id if waiting is not None else None
        return device, book.records_of(device), request_id, not matches and book.was_removed(device)
    except DeviceBookUnreadable:
        return params.device, UNREADABLE, None, False


def _invalid(fault: str) -> CallError:
    return CallError(wire_error("invalid-params", method="gateway.explain", fault=fault))
