"""Paired devices' rows: the SQL behind the device book, as jobs for `Store.run`.

Owns each durable change of what is paired as one function of the database that decides and writes in the same
transaction: two tasks that ask at once are put in order by the store, not by a lock. Requests that wait stand in
`pairing.requestrows`, the way between rows and records in `pairing.columns`. It must not know tasks, memory views or
events. Every function may run again from the start (see `Store.run`).

Invariant: no function here turns a revoked role live or widens a live one: that takes a person's approval (V11, V26).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

import attrs

from openclaw_gateway.errors import GatewayError
from openclaw_gateway.pairing.columns import (
    SELECT_PAIRED,
    SELECT_PENDING,
    SELECT_RESOLVED,
    paired_of,
    pending_of,
    records_of,
    resolution_of,
    with_roles,
)
from openclaw_gateway.pairing.records import Ask, PairedDevice, PendingRequest, Resolution, key_of
from openclaw_gateway.pairing.requestrows import resolve_waiting
from openclaw_gateway.pairing.tokens import DeviceTokens, TokenSeed
from openclaw_gateway.value import Value

__all__ = [
    "MAX_DEVICES",
    "MAX_REMOVED",
    "Approval",
    "ApprovalRefused",
    "Snapshot",
    "approve_silently",
    "is_removed",
    "load",
    "other_key",
    "records_of",
    "register_key",
    "reissue",
    "save_seen",
]

MAX_DEVICES: Final = 20_000
MAX_REMOVED: Final = 20_000


@attrs.define(eq=False, repr=False)
class ApprovalRefused(GatewayError):
    """What was asked cannot be approved: ``reason`` is revoked, removed or scope-upgrade (a person has to decide), key
    or limit.
    """

    device_id: str
    role: str
    reason: str

    def __str__(self) -> str:
        return f"{self.role} of device {self.device_id[:12]} cannot be approved: {self.reason}"


@attrs.frozen(eq=False, repr=False)
class Snapshot(Value):
    """Everything the book keeps in memory, as read at one moment."""

    paired: list[PairedDevice]
    pending: list[PendingRequest]
    resolved: list[Resolution]
    removed: list[str]


@attrs.frozen(eq=False, repr=False)
class Approval(Value):
    """A device's records after an approval. ``request_id`` names what was approved; ``fresh`` is False for a no-op."""

    device: PairedDevice
    records: tuple[PairedDevice, ...]
    request_id: str
    fresh: bool
    resolved: Resolution | None = None


def load(db: sqlite3.Connection) -> Snapshot:
    """Raises `ValueError` or `TypeError` where a row cannot be read: nothing is left out silently (V60)."""
    devices: dict[str, list[PairedDevice]] = {}
    for row in db.execute(f"{SELECT_PAIRED} ORDER BY role"):
        devices.setdefault(row[0], []).append(paired_of(row))
    paired = [record for records in devices.values() for record in with_roles(records)]
    pending = [pending_of(row) for row in db.execute(SELECT_PENDING)]
    resolved = [resolution_of(row) for row in db.execute(f"{SELECT_RESOLVED} ORDER BY at_ms")]
    removed = [row[0] for row in db.execute("SELECT device_id FROM removed_devices ORDER BY removed_at_ms")]
    return Snapshot(paired, pending, resolved, removed)


def approve_silently(
    db: sqlite3.Connection, ask: Ask, via: str, now: int, tokens: DeviceTokens, new_id: Callable[[], str]
) -> Approval:
    """Pair (device, role) with what it asks, where nothing was decided about it before. Raises `ApprovalRefused`."""
    before = records_of(db, ask.device_id)
    if any(record.public_key != ask.public_key for record in before) or other_key(before, ask.key_statement):
        raise ApprovalRefused(ask.device_id, ask.role, "key")
    same = next((record for record in before if record.role == ask.role), None)
    if same is not None:
        if not same.live:
            raise ApprovalRefused(ask.device_id, ask.role, "revoked")
        if not set(ask.scopes) <= set(same.scopes):
            raise ApprovalRefused(ask.device_id, ask.role, "scope-upgrade")
        if ask.key_statement is not None:
            register_key(db, ask.device_id, ask.key_statement)
            before = records_of(db, ask.device_id)
            same = next(record for record in before if record.role == ask.role)
        return Approval(same, before, "", fresh=False)
    if is_removed(db, ask.device_id):
        raise ApprovalRefused(ask.device_id, ask.role, "removed")
    if not before and db.execute("SELECT count(*) FROM devices").fetchone()[0] >= MAX_DEVICES:
        raise ApprovalRefused(ask.device_id, ask.role, "limit")
    _insert_approved(db, ask, via, now, tokens.seed(ask.device_id, ask.role, 1))
    request_id, resolved = resolve_waiting(db, ask, now)
    records = records_of(db, ask.device_id)
    device = next(record for record in records if record.role == ask.role)
    return Approval(device, records, request_id or new_id(), fresh=True, resolved=resolved)


def reissue(
    db: sqlite3.Connection, device_id: str, role: str, now: int, tokens: DeviceTokens
) -> tuple[PairedDevice, ...]:
    """Give a live (device, role) a new token; the old one is worthless from then on. Empty where nothing is live."""
    records = records_of(db, device_id)
    old = next((record for record in records if record.role == role and record.live), None)
    if old is None:
        return ()
    seed = tokens.seed(device_id, role, old.token_generation + 1)
    db.execute(
        "UPDATE device_roles SET token_generation = ?, token_salt = ?, token_digest = ?, token_issued_at_ms = ? "
        "WHERE device_id = ? AND role = ?",
        (seed.generation, seed.salt, seed.digest, now, device_id, role),
    )
    return records_of(db, device_id)


def other_key(records: tuple[PairedDevice, ...], statement: str | None) -> bool:
    """True where ``statement`` is about another X25519 key than the one that the device registered."""
    wanted = key_of(statement)
    return wanted is not None and any(record.secure_key not in {None, wanted} for record in records)


def register_key(db: sqlite3.Connection, device_id: str, statement: str) -> tuple[PairedDevice, ...]:
    """Keep a device's first key statement; the same key again changes nothing. All records of the device.

    Raises `ApprovalRefused` where another key is registered, or nothing is known of the device any more.
    """
    records = records_of(db, device_id)
    if not records or other_key(records, statement):
        raise ApprovalRefused(device_id, "", "key")
    db.execute(
        "UPDATE devices SET key_statement = ? WHERE device_id = ? AND key_statement IS NULL", (statement, device_id)
    )
    return records_of(db, device_id)


def is_removed(db: sqlite3.Connection, device_id: str) -> bool:
    """True where a person removed the device and nobody approved it since."""
    return db.execute("SELECT 1 FROM removed_devices WHERE device_id = ?", (device_id,)).fetchone() is not None


def save_seen(db: sqlite3.Connection, seen: Iterable[tuple[str, str, int, str]]) -> None:
    """``(device_id, role, Unix milliseconds, address)``; a time never goes back."""
    db.executemany(
        "UPDATE device_roles SET last_seen_at_ms = ?3, last_ip = ?4 "
        "WHERE device_id = ?1 AND role = ?2 AND last_seen_at_ms <= ?3",
        list(seen),
    )


def _insert_approved(db: sqlite3.Connection, ask: Ask, via: str, now: int, seed: TokenSeed) -> None:
    values = {
        **attrs.asdict(ask),
        "scopes": json.dumps(ask.scopes),
        "now": now,
        "via": via,
        "generation": seed.generation,
        "salt": seed.salt,
        "digest": seed.digest,
    }
    db.execute(
        "INSERT INTO devices VALUES (:device_id, :public_key, :display_name, NULL, :platform, :device_family, "
        ":client_id, :client_mode, :now, :key_statement) ON CONFLICT (device_id) DO UPDATE SET "
        "key_statement = coalesce(devices.key_statement, excluded.key_statement)",
        values,
    )
    db.execute(
        "INSERT INTO device_roles VALUES (:device_id, :role, :scopes, :now, :via, :generation, :salt, :digest, :now, "
        "NULL, :now, :source_ip)",
        values,
    )
