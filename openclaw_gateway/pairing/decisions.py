"""What a person decides about devices, as jobs for `Store.run`: approve, reject, remove, rename, rotate, revoke.

Owns the rule of who may decide what, inside the transaction that carries the decision out: what is approved is the row
as it is then, within the scopes of whoever approves (V18, V19), and whoever holds no more than a device's own token
decides on that device alone (V21). Every path (method, command line, the offline tool) goes through these functions.
It must not know tasks, memory views, sessions or events. Every function may run again from the start (see `Store.run`).

Invariants: nothing but `approve` makes authority wider or brings it back (V26); what `rotate` leaves is within the
caller's scopes, what was approved for the device, and the roles that it has.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Final, Literal

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing import requestrows, rows
from openclaw_gateway.pairing.records import PairedDevice, PendingRequest, Resolution
from openclaw_gateway.pairing.rows import Approval, ApprovalRefused
from openclaw_gateway.pairing.tokens import DeviceTokens
from openclaw_gateway.protocol.scopes import ADMIN, KNOWN_OPERATOR_SCOPES, satisfies
from openclaw_gateway.value import Value

__all__ = ["OWNER", "ApprovalDenied", "AskChanged", "Decider", "TokenChangeDenied", "UnknownDevice", "UnknownRequest"]

Denial = Literal["not-approved", "role-needs-admin", "beyond-approved", "beyond-caller", "unknown-scope"]


@attrs.frozen(kw_only=True, eq=False, repr=False)
class Decider(Value):
    """Who decides. ``own_device``: a session that came with that device's own token and nothing else."""

    name: str
    scopes: frozenset[str]
    own_device: str | None = None

    @property
    def admin(self) -> bool:
        return ADMIN in self.scopes

    def may_handle(self, device_id: str) -> bool:
        return self.admin or self.own_device in {None, device_id}

    def lacks(self, role: str, scopes: tuple[str, ...]) -> tuple[str, ...]:
        """What this decider would need to hold besides, to grant ``scopes`` in ``role``."""
        needed = scopes if role == "operator" else (ADMIN,)
        return tuple(scope for scope in needed if not satisfies(self.scopes, scope))


# Whoever owns the state directory needs nobody's leave (PAIR-2).
OWNER: Final = Decider(name="state-directory", scopes=KNOWN_OPERATOR_SCOPES)


@attrs.define(eq=False)
class UnknownRequest(GatewayError):
    """Nothing waits under this id (for this decider). ``resolution``: what became of it, where that is remembered."""

    request_id: str
    resolution: Resolution | None = None

    def __str__(self) -> str:
        return f"unknown requestId {self.request_id[:64]}"


@attrs.define(eq=False)
class AskChanged(GatewayError):
    """What waits is not what was looked at: the hash of the ask is another one."""

    request: PendingRequest

    def __str__(self) -> str:
        return f"request {self.request.request_id} does not ask for what was listed"


@attrs.define(eq=False)
class ApprovalDenied(GatewayError):
    """The approver holds less than would be granted: ``missing`` are the scopes that it lacks (V19)."""

    request: PendingRequest
    missing: tuple[str, ...]

    def __str__(self) -> str:
        return f"approving {self.request.request_id} needs {', '.join(self.missing)}"


@attrs.define(eq=False)
class UnknownDevice(GatewayError):
    """No such device is paired, or this decider may not handle it."""

    device_id: str

    def __str__(self) -> str:
        return f"unknown deviceId {self.device_id[:64]}"


@attrs.define(eq=False)
class TokenChangeDenied(GatewayError):
    """A token cannot be rotated or revoked by this decider, or not to these scopes."""

    device_id: str
    role: str
    reason: Denial
    scopes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"token of {self.role} of device {self.device_id[:12]}: {self.reason}"


@attrs.frozen(eq=False, repr=False)
class TokenChange(Value):
    """A device's records after its token changed. ``changed`` is False where it was that way already."""

    device: PairedDevice
    records: tuple[PairedDevice, ...]
    changed: bool = True


def approve(
    db: sqlite3.Connection,
    request_id: str,
    by: Decider,
    now: int,
    tokens: DeviceTokens,
    *,
    ask_hash: str | None = None,
) -> Approval:
    """Grant exactly what the row asks for, on top of what the device holds in that role.

    A row never changes what it asks for (a wider ask gets a new id), so the id alone binds too; ``ask_hash`` binds to
    what was listed whatever happens to the row (PAIR-5). A revoked or removed device starts afresh with what is
    approved now. Raises `UnknownRequest`, `AskChanged`, `ApprovalDenied`, `ApprovalRefused` (key, limit).
    """
    request = _waiting(db, request_id, by, now)
    if ask_hash is not None and ask_hash != request.ask_hash:
        raise AskChanged(request)
    missing = by.lacks(request.role, request.scopes)
    if missing:
        raise ApprovalDenied(request, missing)
    before = rows.records_of(db, request.device_id)
    if any(record.public_key != request.public_key for record in before) or rows.other_key(
        before, request.key_statement
    ):
        raise ApprovalRefused(request.device_id, request.role, "key")
    if not before and db.execute("SELECT count(*) FROM devices").fetchone()[0] >= rows.MAX_DEVICES:
        raise ApprovalRefused(request.device_id, request.role, "limit")
    old = next((record for record in before if record.role == request.role), None)
    _write_approval(db, request, old, by, now, tokens)
    db.execute("DELETE FROM removed_devices WHERE device_id = ?", (request.device_id,))
    resolved = _resolve(db, request, "approved", now)
    records = rows.records_of(db, request.device_id)
    device = next(record for record in records if record.role == request.role)
    return Approval(device, records, request_id, fresh=True, resolved=resolved)


def reject(db: sqlite3.Connection, request_id: str, by: Decider, now: int) -> Resolution:
    """End a request. What the device holds already is unchanged. Raises `UnknownRequest`."""
    return _resolve(db, _waiting(db, request_id, by, now), "rejected", now)


def remove(db: sqlite3.Connection, device_id: str, by: Decider, now: int) -> tuple[PairedDevice, ...]:
    """Forget a device and all its roles; only an approval brings it back. Raises `UnknownDevice`."""
    records = _records(db, device_id, by)
    db.execute("DELETE FROM devices WHERE device_id = ?", (device_id,))
    db.execute("INSERT OR REPLACE INTO removed_devices VALUES (?, ?)", (device_id, now))
    db.execute(
        "DELETE FROM removed_devices WHERE device_id IN "
        "(SELECT device_id FROM removed_devices ORDER BY removed_at_ms DESC, device_id LIMIT -1 OFFSET ?)",
        (rows.MAX_REMOVED,),
    )
    return records


def rename(db: sqlite3.Connection, device_id: str, label: str, by: Decider) -> tuple[PairedDevice, ...]:
    """Give a device the operator's own name for it. Raises `UnknownDevice`."""
    _records(db, device_id, by)
    db.execute("UPDATE devices SET label = ? WHERE device_id = ?", (label, device_id))
    return rows.records_of(db, device_id)


def rotate(
    db: sqlite3.Connection,
    device_id: str,
    role: str,
    scopes: tuple[str, ...] | None,
    by: Decider,
    now: int,
    tokens: DeviceTokens,
) -> TokenChange:
    """A new token for a live (device, role); ``scopes`` narrow what it holds from now on, None keeps it.

    Raises `UnknownDevice`, `TokenChangeDenied`.
    """
    record = _live_target(db, device_id, role, by)
    left = record.scopes if scopes is None else tuple(sorted(set(scopes)))
    if not set(left) <= KNOWN_OPERATOR_SCOPES or (left and role != "operator"):
        raise TokenChangeDenied(device_id, role, "unknown-scope", left)
    held = frozenset(record.scopes)
    beyond = tuple(scope for scope in left if not satisfies(held, scope))
    if beyond:
        raise TokenChangeDenied(device_id, role, "beyond-approved", beyond)
    _within_caller(device_id, role, left, by)
    seed = tokens.seed(device_id, role, record.token_generation + 1)
    db.execute(
        "UPDATE device_roles SET scopes = ?, token_generation = ?, token_salt = ?, token_digest = ?, "
        "token_issued_at_ms = ? WHERE device_id = ? AND role = ?",
        (json.dumps(left), seed.generation, seed.salt, seed.digest, now, device_id, role),
    )
    return _token_change(db, device_id, role)


def revoke(db: sqlite3.Connection, device_id: str, role: str, by: Decider, now: int) -> TokenChange:
    """Take (device, role) its authority; the row stays, so that only an approval brings it back (V26).

    Revoking twice is no error and moves no date. Raises `UnknownDevice`, `TokenChangeDenied`.
    """
    records = _records(db, device_id, by)
    record = next((record for record in records if record.role == role), None)
    if record is None:
        raise TokenChangeDenied(device_id, role, "not-approved")
    _within_caller(device_id, role, record.scopes, by)
    if record.revoked_at_ms is not None:
        return TokenChange(record, records, changed=False)
    db.execute("UPDATE device_roles SET revoked_at_ms = ? WHERE device_id = ? AND role = ?", (now, device_id, role))
    return _token_change(db, device_id, role)


# --- inside


def _waiting(db: sqlite3.Connection, request_id: str, by: Decider, now: int) -> PendingRequest:
    request = requestrows.pending_request(db, request_id)
    if request is not None and request.expires_at_ms > now:
        if by.may_handle(request.device_id):
            return request
        raise UnknownRequest(request_id)  # no more is said about others' requests (V21)
    known = requestrows.resolution(db, request_id)
    raise UnknownRequest(request_id, known if known is not None and by.may_handle(known.device_id) else None)


def _records(db: sqlite3.Connection, device_id: str, by: Decider) -> tuple[PairedDevice, ...]:
    records = rows.records_of(db, device_id) if by.may_handle(device_id) else ()
    if not records:
        raise UnknownDevice(device_id)
    return records


def _live_target(db: sqlite3.Connection, device_id: str, role: str, by: Decider) -> PairedDevice:
    for record in _records(db, device_id, by):
        if record.role == role and record.live:
            return record
    raise TokenChangeDenied(device_id, role, "not-approved")


def _within_caller(device_id: str, role: str, scopes: tuple[str, ...], by: Decider) -> None:
    missing = by.lacks(role, scopes)
    if missing:
        reason: Denial = "beyond-caller" if role == "operator" else "role-needs-admin"
        raise TokenChangeDenied(device_id, role, reason, missing)


def _token_change(db: sqlite3.Connection, device_id: str, role: str) -> TokenChange:
    records = rows.records_of(db, device_id)
    return TokenChange(next(record for record in records if record.role == role), records)


def _write_approval(
    db: sqlite3.Connection,
    request: PendingRequest,
    old: PairedDevice | None,
    by: Decider,
    now: int,
    tokens: DeviceTokens,
) -> None:
    # The operator's label is kept: it is not the device's to change.
    db.execute(
        "INSERT INTO devices VALUES (:device_id, :public_key, :display_name, NULL, :platform, :device_family, "
        ":client_id, :client_mode, :now, :key_statement) ON CONFLICT (device_id) DO UPDATE SET "
        "display_name = excluded.display_name, "
        "key_statement = coalesce(devices.key_statement, excluded.key_statement), "
        "platform = excluded.platform, device_family = excluded.device_family, client_id = excluded.client_id, "
        "client_mode = excluded.client_mode",
        {
            "device_id": request.device_id,
            "public_key": request.public_key,
            "display_name": request.display_name,
            "platform": request.platform,
            "device_family": request.device_family,
            "client_id": request.client_id,
            "client_mode": request.client_mode,
            "key_statement": request.key_statement,
            "now": now,
        },
    )
    if old is not None and old.live:
        scopes = tuple(sorted({*old.scopes, *request.scopes}))
        db.execute(
            "UPDATE device_roles SET scopes = ?, approved_at_ms = ?, approved_via = ? WHERE device_id = ? AND role = ?",
            (json.dumps(scopes), now, by.name, request.device_id, request.role),
        )
        return
    seed = tokens.seed(request.device_id, request.role, 1 if old is None else old.token_generation + 1)
    db.execute(
        "INSERT OR REPLACE INTO device_roles VALUES (:device_id, :role, :scopes, :now, :via, :generation, :salt, "
        ":digest, :now, NULL, :now, :source_ip)",
        {
            "device_id": request.device_id,
            "role": request.role,
            "scopes": json.dumps(request.scopes),
            "now": now,
            "via": by.name,
            "generation": seed.generation,
            "salt": seed.salt,
            "digest": seed.digest,
            "source_ip": request.source_ip,
        },
    )


def _resolve(db: sqlite3.Connection, request: PendingRequest, decision: str, now: int) -> Resolution:
    db.execute("DELETE FROM pending_requests WHERE request_id = ?", (request.request_id,))
    resolved = Resolution(
        request_id=request.request_id,
        device_id=request.device_id,
        role=request.role,
        decision=decision,
        replaced_by=None,
        added_scopes=(),
        at_ms=now,
    )
    requestrows.record_resolution(db, resolved)
    return resolved
